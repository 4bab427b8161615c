"""Makes report.svg: serves a tiny model under `profilemate run`, sends the demo's requests, and draws what
`profilemate report` then prints on a terminal.

Started by make.sh with the Python that has vLLM. The session goes to /tmp/vllm_profiling, where a user's would, and is
removed at the end.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import sys
import tempfile
import termios
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "scripts")]

import demo  # noqa: E402
import serving  # noqa: E402
import tiny  # noqa: E402

COLUMNS, LINES, SECTION = 84, 56, 16
SESSIONS = Path("/tmp/vllm_profiling")

# What the terminal looks like. A character cell is 8.4 by 18 at this size in every common monospaced font; textLength
# holds the columns together where a reader's font is another.
SIZE, CELL, LINE, MARGIN, BAR = 14, 8.43, 18, 16, 32
BLANK = "\N{NO-BREAK SPACE}"  # browsers make one of several ordinary ones
GROUND, INK, DIM = "#14181f", "#d7dde6", "#8b95a5"
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "34": "#79c0ff", "35": "#d2a8ff", "36": "#76e3ea"}
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def on_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What a command prints on a terminal of COLUMNS columns, with its colours."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(command[0], command, environment)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    printed = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        printed += part
    os.close(master)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        sys.exit(f"{command} failed:\n{printed.decode(errors='replace')}")
    return printed.decode().replace("\r\n", "\n")


def draw(title: str, text: str) -> str:
    """The text, with ANSI colours, as an SVG picture of a terminal."""
    lines = text.rstrip("\n").split("\n")
    width = max(COLUMNS, *(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in lines)) * CELL + 2 * MARGIN
    height = len(lines) * LINE + BAR + 2 * MARGIN - 4
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}"'
        f' viewBox="0 0 {width:.0f} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{GROUND}"/>',
        *(f'<circle cx="{20 + 18 * i}" cy="{BAR / 2:.0f}" r="5.5" fill="#3a424e"/>' for i in range(3)),
        f'<text x="50%" y="{BAR / 2 + 4:.0f}" fill="{DIM}" font-family="{FONT}" font-size="12"'
        f' text-anchor="middle">{escape(title)}</text>',
        f'<g font-family="{FONT}" font-size="{SIZE}" fill="{INK}" xml:space="preserve" style="white-space: pre">',
    ]
    for number, line in enumerate(lines):
        y, column, style = BAR + MARGIN + 8 + number * LINE, 0, ""
        for part in re.split(r"(\x1b\[[\d;]*m)", line):
            if part.startswith("\x1b["):
                codes = part[2:-1].split(";")
                style = "".join(
                    [' font-weight="bold"'] * ("1" in codes)
                    + [f' fill="{DIM}"'] * ("2" in codes)
                    + [f' fill="{COLOURS[code]}"' for code in codes if code in COLOURS]
                )
            elif part:
                if part.strip():
                    shown = part.rstrip()
                    x = MARGIN + (column + len(shown) - len(shown.lstrip())) * CELL
                    shown = shown.lstrip()
                    place = f'x="{x:.1f}" y="{y}" textLength="{len(shown) * CELL:.1f}"'
                    out.append(f"<text {place}{style}>{escape(shown).replace(' ', BLANK)}</text>")
                column += len(part)
    return "\n".join([*out, "</g>", "</svg>", ""])


def beginning(text: str) -> str:
    """The first sections that have LINES lines together, none of them longer than SECTION lines."""
    # A colour begins where its text does, so that blank lines are blank.
    text = re.sub(r"((?:\x1b\[[\d;]*m)+)(\n+)", r"\2\1", text)
    kept: list[str] = []
    for section in text.rstrip("\n").split("\n\n"):
        lines = section.split("\n")
        if len(lines) > SECTION:
            lines = [*lines[: SECTION - 1], "          \x1b[0m…"]
        if sum(part.count("\n") + 2 for part in kept) + len(lines) > LINES:
            return "\n\n".join([*kept, "  …"])
        kept.append("\n".join(lines))
    return text


def main() -> None:
    SESSIONS.mkdir(mode=0o1777, exist_ok=True)
    before = set(SESSIONS.iterdir())
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tiny-llama").symlink_to(tiny.make("llama"))
        server = serving.Server(
            Path("tiny-llama"), Path(folder) / "server", serving.clean_environment(), launcher="serve",
            before=(str(serving.PROGRAM), "run", "--dir", str(SESSIONS), "--"), cwd=Path(folder),
        )  # fmt: skip
        with server:
            server.wait_ready()
            server.complete_all(demo.requests(), concurrency=12)
            server.stop(signal.SIGINT)
    (session,) = set(SESSIONS.iterdir()) - before
    try:
        environment = {"TERM": "xterm-256color", "PATH": os.defpath, "VLLM_PROFILING_DIR": str(SESSIONS)}
        text = on_a_terminal([str(serving.PROGRAM), "report", "--text", str(session)], environment)
    finally:
        shutil.rmtree(session)
    (HERE / "report.svg").write_text(draw("profilemate report --text", beginning(text)))
    print(HERE / "report.svg")


if __name__ == "__main__":
    main()
