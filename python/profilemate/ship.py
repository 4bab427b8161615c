"""What `profilemate ship` runs: sessions to a folder or an object store, and back.

The work is done by _shipsource.py (what of a session is complete), _shipstore.py (the targets), _shipment.py (one
session on its way) and _shipfetch.py (a shipped session as a session's folder again).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from profilemate._shipfetch import Fetch
from profilemate._shipment import MANIFEST, Round, Shipment, load_manifest
from profilemate._shipsource import Source, SourceError, sessions_below
from profilemate._shipstore import NoLibrary, Store, StoreError, open_store

__all__ = ["main"]


@dataclass
class _Words:
    """The words of the program (src/cmd/ship.c): flags, and key=value."""

    values: dict[str, str] = field(default_factory=dict)
    sessions: list[Path] = field(default_factory=list)
    bases: list[Path] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, words: Sequence[str]) -> _Words:
        made = cls()
        for word in words:
            key, is_value, value = word.partition("=")
            if not is_value:
                made.flags.add(key)
            elif key in ("session", "base"):
                (made.sessions if key == "session" else made.bases).append(Path(value))
            else:
                made.values[key] = value
        return made


def _say(text: str) -> None:
    print(f"profilemate: {text}", file=sys.stderr, flush=True)


def _amount(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


class _Shipper:
    def __init__(self, store: Store, words: _Words):
        self.store = store
        self.words = words
        self.shipments: dict[Path, Shipment] = {}
        self.over: set[Path] = set()  # complete at the target: not looked at again
        self.told: dict[Path, str] = {}  # the last complaint about each, said once
        self.failed: set[Path] = set()
        self.stop = threading.Event()

    # ---- one session ----

    def _shipment(self, path: Path) -> Shipment:
        if path not in self.shipments:
            self.shipments[path] = Shipment(Source(path), self.store)
        return self.shipments[path]

    def _forget(self, path: Path) -> None:
        shipment = self.shipments.pop(path, None)
        if shipment is not None:
            shipment.source.close()

    def _report(self, shipment: Shipment, result: Round) -> None:
        if "quiet" in self.words.flags or ("watch" in self.words.flags and result.shipped == 0 and not result.complete):
            return
        rest = f", {result.there} there already" if result.there else ""
        state = "complete" if result.complete else "the server still runs"
        amount = f" ({_amount(result.shipped_bytes)})" if result.shipped else ""
        objects = f"{result.shipped} object{'' if result.shipped == 1 else 's'}"
        print(f"{shipment.source.path.name}: {objects} shipped{amount}{rest}; {state}", file=sys.stderr, flush=True)

    def _one(self, path: Path, last: bool) -> None:
        shipment = self._shipment(path)
        result = shipment.round(last)
        if "verify" in self.words.flags or "delete" in self.words.flags and result.complete:
            bad = shipment.verify("verify" in self.words.flags)
            if bad:
                _say(f"{shipment.url}: {len(bad)} objects are damaged or gone ({', '.join(bad[:3])}…), shipping them again")
                again = shipment.round(last)
                again.shipped += result.shipped
                again.shipped_bytes += result.shipped_bytes
                result = again
        self._report(shipment, result)
        if result.damaged:
            raise StoreError(
                f"{shipment.url}: {len(result.damaged)} objects are damaged or gone, and no longer at the source: "
                + ", ".join(result.damaged[:3])
            )
        if result.complete:
            print(shipment.url, flush=True)
            if "delete" in self.words.flags:
                self._delete(shipment)
            self.over.add(path)
            self._forget(path)
        elif "watch" not in self.words.flags or last:
            print(shipment.url, flush=True)

    def _delete(self, shipment: Shipment) -> None:
        """After the source, as it is now, was compared with the target, object by object."""
        source = shipment.source
        path = source.path
        if source.owner != os.geteuid():
            raise StoreError(f"{path} belongs to user {source.owner}, it stays: delete it as that user")
        if source.has_spool():
            raise StoreError(f"{path} has records in a spool still, it stays: `profilemate export` brings them home")
        why = shipment.is_all_there()
        if why is not None:
            raise StoreError(f"{path} stays: {why}")
        about = os.stat(path, follow_symlinks=False)
        if (about.st_dev, about.st_ino) != (source.device, source.inode):
            raise StoreError(f"{path} stays: it is another folder now")
        # `profilemate sessions --prune` goes on with what is left of a removal under this name.
        going = path.with_name(f".removing_{path.name}")
        os.rename(path, going)
        shutil.rmtree(going)
        if "quiet" not in self.words.flags:
            print(f"{path.name}: removed here", file=sys.stderr, flush=True)

    # ---- all of them ----

    def _paths(self) -> list[Path]:
        return self.words.sessions if "all" not in self.words.flags else sessions_below(self.words.bases)

    def pass_over(self, last: bool = False) -> None:
        """Each session once; a failure of one is told and is not in the way of the others."""
        paths = [path for path in self._paths() if path not in self.over]
        for gone in set(self.shipments) - set(paths):
            self._forget(gone)
        self.failed &= set(paths)
        for path in paths:
            if self.stop.is_set() and not last:
                return
            try:
                self._one(path, last)
                self.failed.discard(path)
                self.told.pop(path, None)
            except (SourceError, StoreError, OSError) as error:
                self._forget(path)
                text = str(error)
                self.failed.add(path)
                if self.told.get(path) != text:
                    self.told[path] = text
                    _say(text)

    def watch(self, interval_s: float, for_s: float | None) -> None:
        until = None if for_s is None else time.monotonic() + for_s
        while True:
            last = self.stop.is_set() or (until is not None and time.monotonic() >= until)
            self.pass_over(last)
            if last or ("all" not in self.words.flags and all(path in self.over for path in self.words.sessions)):
                return
            wait = interval_s if until is None else min(interval_s, max(0.0, until - time.monotonic()))
            self.stop.wait(wait)

    def run(self) -> int:
        if "watch" in self.words.flags:

            def ended(number: int, frame: object) -> None:
                self.stop.set()  # a last look, then the end; a second signal ends it at once
                signal.signal(number, signal.SIG_DFL)

            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, ended)
            for_text = self.words.values.get("for")
            self.watch(float(self.words.values["interval"]), float(for_text) if for_text else None)
        else:
            self.pass_over(last=True)
            if not self._paths() and not self.over and "quiet" not in self.words.flags:
                print("no session is there to ship", file=sys.stderr)
        return 1 if self.failed else 0


def _fetch(url: str, out: Path, quiet: bool) -> int:
    fetched = Fetch(open_store(url.rstrip("/")), out).run()
    for name in fetched.damaged[:20]:
        _say(f"{url}: {name} is damaged or gone, the session is without it")
    if len(fetched.damaged) > 20:
        _say(f"{url}: {len(fetched.damaged) - 20} more objects are damaged or gone")
    if not quiet:
        state = "" if fetched.complete else ", not complete: shipped while the server ran, or in part"
        print(f"{fetched.objects} objects{state}", file=sys.stderr)
    print(fetched.path)
    return 1 if fetched.damaged else 0


def _list(url: str) -> int:
    """A line for each session: its address, whether it is complete, its objects and bytes."""
    store = open_store(url.rstrip("/"))
    sizes: dict[str, list[int]] = {}
    known: set[str] = set()
    for key, size in store.list(""):
        parts = key.split("/")
        at = parts.index("records") if "records" in parts else len(parts) - 1
        folder = "/".join(parts[:at]) + "/" if at else ""
        sizes.setdefault(folder, [0, 0])
        sizes[folder][0] += 1
        sizes[folder][1] += size
        if parts[-1] == MANIFEST:
            known.add(folder)
    for folder, (count, size) in sorted(sizes.items()):
        if folder not in known and f"{folder}session" not in known and store.stat(f"{folder}session") is None:
            continue
        manifest = load_manifest(store, folder) if folder in known else None
        state = "complete" if manifest and manifest.get("complete") is True else "partial"
        print(f"{store.url}/{folder.rstrip('/')}\t{state}\t{count} objects\t{_amount(size)}")
    return 0


def main(given: Sequence[str]) -> int:
    words = _Words.of(given)
    try:
        if "fetch" in words.values:
            return _fetch(words.values["fetch"], Path(words.values["out"]), "quiet" in words.flags)
        if "list" in words.values:
            return _list(words.values["list"])
        return _Shipper(open_store(words.values["target"].rstrip("/")), words).run()
    except NoLibrary as error:
        _say(
            f"`profilemate ship` needs the Python package {error} for s3:// in {sys.executable}, "
            f"run: {sys.executable} -m pip install 'profilemate[ship]'"
        )
    except (SourceError, StoreError) as error:
        _say(str(error))
    except OSError as error:
        _say(f"{error.filename or 'a file'}: {error.strerror}")
    except BrokenPipeError:
        pass
    except KeyboardInterrupt:
        return 130
    return 1
