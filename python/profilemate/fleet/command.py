"""The command line of `profilemate fleet`, by the program's rules: one sentence on stderr, exit code 0, 1 or 2."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import NoReturn

from profilemate.fleet import library, running, show
from profilemate.fleet.engines import EngineMissing

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"profilemate: {message}\nSee `profilemate fleet --help`.", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="profilemate fleet", description="Asks a lake of sessions, by DuckDB or Spark.")
    parser.add_argument("query", nargs="?", metavar="QUERY")
    parser.add_argument("url", nargs="?", metavar="URL", help="a path, file://… or s3://…")
    parser.add_argument("-l", "--list", action="store_true", help="the questions; with QUERY what it takes")
    parser.add_argument("--sql", action="store_true", help="print QUERY's SQL")
    parser.add_argument("--on", choices=("duckdb", "spark"), default="duckdb")
    parser.add_argument("-p", "--param", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("-f", "--format", choices=("table", "csv", "html", "json"), default="table")
    parser.add_argument("-o", "--out", metavar="FILE")
    parser.add_argument("--master", metavar="URL", help="spark: the cluster's master")
    parser.add_argument("--memory", metavar="SIZE", help="what DuckDB, or Spark's driver, may take")
    return parser


def _write(text: str, out: str | None) -> None:
    """To stdout, or a file that appears when it is complete."""
    if out is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(out) or ".", prefix=".profilemate-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, out)
    except BaseException:
        os.unlink(temporary)
        raise


def _ask(options: argparse.Namespace) -> str:
    given = dict(word.split("=", 1) for word in options.param)
    if options.list:
        return show.listing(library.query(options.query) if options.query else None)
    if options.sql:
        asked = library.query(options.query)
        return f"-- {asked.sentence}\n{asked.sql(given)}"
    answer = running.run(options.query, options.url, options.on, master=options.master, memory=options.memory, **given)
    for path, why in answer.left_out.items():
        print(f"profilemate: {show.safe(path)} is left out: {show.safe(why)}", file=sys.stderr)
    return show.shown(answer, options.format)


def main(words: Sequence[str]) -> int:
    options = _parser().parse_args(words)
    if any("=" not in word for word in options.param):
        _parser().error("--param takes NAME=VALUE")
    if not options.list and (options.query is None or (options.url is None) != options.sql):
        _parser().error("give a query and where the lake is, or --list, or --sql and a query")
    try:
        _write(_ask(options), options.out)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, EngineMissing) as error:
        print(f"profilemate: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # an engine's own: its first line says what
        kind = type(error).__module__.split(".")[0]
        if kind not in ("duckdb", "_duckdb", "pyspark", "py4j"):
            raise
        print(f"profilemate: {options.on} could not answer: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    return 0
