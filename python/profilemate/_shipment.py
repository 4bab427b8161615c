"""One session on its way: what is at the target already, what is shipped next, and when the source may go.

At the target a session is a folder, HOST/NAME-TOKEN/ :

    session, metadata.json, …             files of the session as they are
    records/FILE.pmrec/0.header.gz        the head of a process's record file
    records/FILE.pmrec/core.00000012.gz   one segment of it; `zcat 0.header.gz *.[0-9]*.gz` is a record file again
    manifest.json                         size and SHA-256 of each object, and whether the session is complete

A segment's name says which it is, and its content never changes: who ships it twice, or beside another shipper, writes
the same. So the objects themselves say what has arrived, and a manifest that is old, or was never written because the
shipper was killed, costs a comparison and loses nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from profilemate._shipsource import STREAMS, RecordFile, Segment, Source, parse_segment
from profilemate._shipstore import Store, blocks_of, same, sha256_of

MANIFEST = "manifest.json"
FORMAT = 1
# A manifest grows with its session: it is written again when that is at most so many bytes a second, and at the end.
MANIFEST_BYTES_PER_S = 2048
SMALL_BYTES = 8 << 20
HEADER_BYTES_MAX = 1 << 30
SLOT_BYTES_MAX = 1 << 22
SEGMENT_NAME = re.compile(rf"records/[^/]+/({'|'.join(STREAMS)})\.(\d+)\.gz")


@dataclass
class Entry:
    bytes: int
    sha256: str
    progress: str = ""  # of a header: what it told


@dataclass
class Round:
    """What one look at a session came to."""

    shipped: int = 0
    shipped_bytes: int = 0
    there: int = 0
    finished: bool = False
    complete: bool = False
    damaged: list[str] = field(default_factory=list)


def packed(data: bytes) -> bytes:
    """The same bytes for the same data, so that an object shipped twice is the same object."""
    return gzip.compress(data, 1, mtime=0)


def unpacked(blob: bytes, limit: int) -> bytes | None:
    """None where it is not what `packed` makes, or of more bytes than that."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        data = inflate.decompress(blob, limit + 1)
    except zlib.error:
        return None
    return data if inflate.eof and not inflate.unused_data and len(data) <= limit else None


def is_segment(slot: bytes, name: str) -> bool:
    """Whether a slot is the segment that the object's name says."""
    match, about = SEGMENT_NAME.fullmatch(name), parse_segment(slot)
    return bool(match and about and (STREAMS[about.stream], about.index) == (match[1], int(match[2])))


def key_part(text: str) -> str:
    """A name as a part of a key: nothing that a shell, an URL or a file system takes amiss."""
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in text)[:200]
    return cleaned if cleaned.strip(".") else "_"


def load_manifest(store: Store, folder: str) -> dict[str, Any] | None:
    """None where there is none, or none that can be read: the objects themselves are what counts."""
    if store.stat(folder + MANIFEST) is None:
        return None
    try:
        found = json.loads(b"".join(store.get(folder + MANIFEST)))
    except ValueError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("objects"), dict):
        return None
    return found


def entries_of(manifest: dict[str, Any] | None) -> dict[str, Entry]:
    found = {}
    for name, told in (manifest or {}).get("objects", {}).items():
        if isinstance(told, dict) and isinstance(told.get("bytes"), int) and isinstance(told.get("sha256"), str):
            found[name] = Entry(told["bytes"], told["sha256"], str(told.get("progress", "")))
    return found


class Shipment:
    """A session and its place at the target; kept over the rounds of --watch."""

    def __init__(self, source: Source, store: Store):
        self.source = source
        self.store = store
        facts = source.facts
        self.host = facts.get("host", "") or "unknown"
        self.name = source.path.name
        self.token = facts["token"].lower()
        self.folder = f"{key_part(self.host)}/{key_part(facts.get('name') or self.name)}-{self.token[:8]}/"
        self.url = f"{store.url}/{self.folder}".rstrip("/")
        self._known: dict[str, Entry] | None = None
        self._counting = threading.Lock()
        self._strays: dict[str, int] = {}  # at the target, and not known to be what they should be
        self._lost: set[str] = set()  # were at the target once
        self._manifest_due = 0.0
        self._manifest_told: tuple[int, bool] | None = None

    # ---- what is there ----

    def _look(self) -> dict[str, Entry]:
        """The objects that are at the target, by the manifest as far as it agrees with what lies there."""
        if self._known is not None:
            return self._known
        listed = {key[len(self.folder) :]: size for key, size in self.store.list(self.folder)}
        manifest = load_manifest(self.store, self.folder) if MANIFEST in listed else None
        told = entries_of(manifest)
        known = {name: entry for name, entry in told.items() if listed.get(name) == entry.bytes}
        self._strays = {name: size for name, size in listed.items() if name not in known and name != MANIFEST}
        self._lost = set(told) - set(known)
        if manifest is not None:
            self._manifest_told = (len(told), manifest.get("complete") is True)
        self._known = known
        return known

    # ---- one object ----

    def _ship(self, name: str, data: bytes | int, size: int, sha256: str, result: Round, progress: str = "") -> None:
        known = self._look()
        entry = known.get(name)
        if entry is not None and (entry.bytes, entry.sha256) == (size, sha256):
            result.there += 1
            entry.progress = progress or entry.progress
            return
        stray = self._strays.pop(name, None)
        # Arrived without being told of: a shipper was killed, or another one works beside this one.
        if stray == size and same(self.store, self.folder + name, size, sha256):
            with self._counting:
                known[name] = Entry(size, sha256, progress)
                result.there += 1
            return
        self.store.put(self.folder + name, data, size, sha256)
        with self._counting:
            known[name] = Entry(size, sha256, progress)
            result.shipped += 1
            result.shipped_bytes += size

    def _ship_bytes(self, name: str, data: bytes, result: Round, progress: str = "") -> None:
        self._ship(name, data, len(data), hashlib.sha256(data).hexdigest(), result, progress)

    def _ship_open(self, name: str, fd: int, result: Round) -> None:
        size = os.fstat(fd).st_size
        if size <= SMALL_BYTES:
            self._ship_bytes(name, b"".join(blocks_of(fd)), result)
            return
        self._ship(name, fd, *sha256_of(blocks_of(fd)), result)

    # ---- a record file ----

    @staticmethod
    def _final(record: RecordFile) -> Iterator[tuple[str, Segment]]:
        for segment in record.segments():
            if segment.sealed or record.done:
                yield f"records/{record.name}/{segment.name}.gz", segment

    def _ship_records(self, record: RecordFile, result: Round) -> None:
        if not record.ready:
            return
        known, before = self._look(), result.shipped
        self._ship_segments(record, known, result)
        name = f"records/{record.name}/0.header.gz"
        header = record.header()
        progress = record.progress(header)
        if name in known and not record.done and result.shipped == before and known[name].progress == progress:
            result.there += 1
        else:
            self._ship_bytes(name, packed(header), result, progress)

    def _ship_segments(self, record: RecordFile, known: dict[str, Entry], result: Round) -> None:
        """Those that are not there yet, as many at once as the store likes: no more of them are held in memory. When
        one fails, those on their way arrive or fail before that is told."""
        going: set[Future[None]] = set()
        with ThreadPoolExecutor(self.store.at_once) as pool:

            def arrived(least: str) -> None:
                done, rest = wait(going, return_when=least)
                going.intersection_update(rest)
                for each in done:
                    each.result()

            for name, segment in self._final(record):
                if name in known:
                    result.there += 1
                    continue
                data = record.copy(segment)
                if data is None:
                    continue
                if self.store.at_once == 1:
                    self._ship_bytes(name, packed(data), result)
                    continue
                if len(going) >= self.store.at_once:
                    arrived(FIRST_COMPLETED)
                # Each task has a name of its own: what they write into is not read by another meanwhile.
                going.add(pool.submit(self._ship_bytes, name, packed(data), result))
            arrived(ALL_COMPLETED)

    # ---- the session ----

    def round(self, last: bool = False) -> Round:
        """Ships what is complete and not there yet. Raises StoreError and SourceError; what has arrived stays."""
        result = Round()
        self._look()
        result.finished = self.source.finished()
        for name in ("session", "metadata.json"):  # first: without them nobody knows what the rest is of
            data = self.source.file(name)
            if data is not None:
                self._ship_bytes(name, data, result)
        for record in self.source.record_files():
            self._ship_records(record, result)
        if result.finished:
            for name, fd in self.source.other_files():
                if name not in ("session", "metadata.json"):
                    self._ship_open(name, fd, result)
            self._adopt(result)
        result.complete = result.finished
        self._tell(result, last)
        return result

    def _adopt(self, result: Round) -> None:
        """Segments that arrived untold, and that the source has given up meanwhile, are the manifest's, too."""
        known = self._look()
        for name in sorted(self._strays):
            if not SEGMENT_NAME.fullmatch(name) or name in known:
                continue
            blob = b"".join(self.store.get(self.folder + name))
            slot = unpacked(blob, SLOT_BYTES_MAX)
            if slot is not None and is_segment(slot, name):
                known[name] = Entry(len(blob), hashlib.sha256(blob).hexdigest())
            else:
                self._lost.add(name)
        self._strays = {}
        result.damaged = sorted(name for name in self._lost if name not in known)

    def _tell(self, result: Round, last: bool) -> None:
        """The manifest, if it has something new to say."""
        known, now = self._look(), time.monotonic()
        told = (len(known), result.complete)
        if result.shipped == 0 and told == self._manifest_told:
            return
        if not (result.complete or last or now >= self._manifest_due):
            self._manifest_told = None
            return
        others = load_manifest(self.store, self.folder)
        if others is not None and others.get("complete") is True and not result.complete:
            return  # another shipper saw the end: what it wrote knows more
        for name, entry in entries_of(others).items():
            if name not in known and name not in self._lost and SEGMENT_NAME.fullmatch(name):
                known[name] = entry
        facts = self.source.facts
        objects = {}
        for name, entry in sorted(known.items()):
            objects[name] = {"bytes": entry.bytes, "sha256": entry.sha256}
            if entry.progress:
                objects[name]["progress"] = entry.progress
        manifest = {
            "format": FORMAT,
            "session": facts.get("name") or self.name,
            "token": self.token,
            "host": self.host,
            "start_real_ns": int(facts["start_real_ns"]) if facts.get("start_real_ns", "").isdigit() else 0,
            "complete": result.complete,
            "bytes": sum(entry.bytes for entry in known.values()),
            "objects": objects,
        }
        data = (json.dumps(manifest, separators=(",", ":"), sort_keys=True) + "\n").encode()
        self.store.put(self.folder + MANIFEST, data, len(data), hashlib.sha256(data).hexdigest())
        self._manifest_told = (len(known), result.complete)
        self._manifest_due = now + len(data) / MANIFEST_BYTES_PER_S

    def verify(self, read_back: bool) -> list[str]:
        """The objects that are not at the target as they were shipped; they are forgotten, so that a round ships them anew."""
        known = self._look()
        bad = [
            name
            for name, entry in sorted(known.items())
            if not same(self.store, self.folder + name, entry.bytes, entry.sha256, read_back)
        ]
        for name in bad:
            del known[name]
            self._lost.add(name)
        if bad:
            self._manifest_told = None
        return bad

    def is_all_there(self) -> str | None:
        """Compares the source, as it is now, with the target, object by object: None, or what is not there."""
        known = self._look()
        if not self.source.finished():
            return "a process still writes it"
        left_out = self.source.left_out()
        if left_out is not None:
            return f"{left_out} in it is not a file that is shipped"
        wanted: dict[str, tuple[int, str]] = {}
        for record in self.source.record_files():
            if not record.ready:
                return f"records/{record.name} is no record file"
            for name, segment in self._final(record):
                data = record.copy(segment)
                if data is None:
                    return f"{name} changes"
                blob = packed(data)
                wanted[name] = (len(blob), hashlib.sha256(blob).hexdigest())
            blob = packed(record.header())
            wanted[f"records/{record.name}/0.header.gz"] = (len(blob), hashlib.sha256(blob).hexdigest())
        for name, fd in self.source.other_files():
            wanted[name] = sha256_of(blocks_of(fd))
        for name, (size, sha256) in wanted.items():
            if name not in known or not same(self.store, self.folder + name, size, sha256, read_back=True):
                return f"{name} is not at the target as it is here"
        return None
