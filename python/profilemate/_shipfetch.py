"""A shipped session as a session's folder again: also of one that arrived in part, or that lost something since."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from profilemate._shipment import (
    HEADER_BYTES_MAX, MANIFEST, SEGMENT_NAME, SLOT_BYTES_MAX, Entry, entries_of, is_segment, load_manifest, unpacked,
)  # fmt: skip
from profilemate._shipsource import RECYCLED, RECYCLED_AT, STATE_AT, STREAMS
from profilemate._shipstore import Store, StoreError


@dataclass
class Fetched:
    path: Path
    objects: int = 0
    complete: bool = False
    damaged: list[str] = field(default_factory=list)


class _Bad(Exception):
    """An object that is not what was shipped."""


class Fetch:
    def __init__(self, store: Store, out: Path):
        self.store = store
        self.out = out
        manifest = load_manifest(store, "")
        self.entries: dict[str, Entry] = entries_of(manifest)
        self.complete = bool(manifest and manifest.get("complete") is True)
        self.damaged: list[str] = []
        self.objects = 0

    def _blocks(self, name: str) -> Iterator[bytes]:
        """What was shipped under the name; _Bad at the end where it is something else."""
        entry = self.entries.get(name)
        digest, size = hashlib.sha256(), 0
        for block in self.store.get(name):
            digest.update(block)
            size += len(block)
            yield block
        # A manifest that is older than the object knows another one: header and small files are shipped again.
        if entry is not None and (size, digest.hexdigest()) != (entry.bytes, entry.sha256):
            raise _Bad

    def _unpacked(self, name: str, limit: int) -> bytes:
        try:
            packed = b"".join(self._blocks(name))
        except _Bad:
            if not name.endswith("/0.header.gz"):
                raise
            packed = b"".join(self.store.get(name))  # gzip's own checksum has to do
        data = unpacked(packed, limit)
        if data is None:
            raise _Bad
        return data

    def _record_file(self, folder: Path, file: str, names: list[str]) -> None:
        """The header, then the segments in the order of their streams and numbers."""
        base = f"records/{file}/"
        if base + "0.header.gz" not in names:
            self.damaged += names
            return
        try:
            header = bytearray(self._unpacked(base + "0.header.gz", HEADER_BYTES_MAX))
            if len(header) < 4096 or header[:8] != b"PFMEREC1":
                raise _Bad
        except _Bad:
            self.damaged += [base + "0.header.gz", *names]
            return
        slot_bytes = struct.unpack_from("<I", header, 16)[0]
        self.objects += 1
        order = []
        for name in names:
            match = SEGMENT_NAME.fullmatch(name)
            if match:
                order.append((STREAMS.index(match[1]), int(match[2]), name))
        whole: dict[int, list[int]] = {stream: [] for stream in range(len(STREAMS))}
        with open(folder / file, "xb", opener=_private) as out:
            out.write(header)
            for stream, index, name in sorted(order):
                try:
                    slot = self._unpacked(name, SLOT_BYTES_MAX)
                    if len(slot) != slot_bytes or not is_segment(slot, name):
                        raise _Bad
                except _Bad:
                    self.damaged.append(name)
                    continue
                out.write(slot)
                whole[stream].append(index)
                self.objects += 1
            # The source gave up its oldest segments in time; where all of them are here, nothing is missing.
            if all(indices == list(range(len(indices))) for indices in whole.values()):
                state = struct.unpack_from("<I", header, STATE_AT)[0] & ~RECYCLED
                struct.pack_into("<I", header, STATE_AT, state)
                header[RECYCLED_AT : RECYCLED_AT + 32] = bytes(32)
                out.seek(0)
                out.write(header)

    def _file(self, folder: Path, name: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with open(path, "xb", opener=_private) as out:
                for block in self._blocks(name):
                    out.write(block)
        except _Bad:
            # Metadata is written anew while a server runs: the newer one is no damage.
            if not self.complete and name in ("session", "metadata.json"):
                pass
            else:
                path.unlink()
                self.damaged.append(name)
                return
        self.objects += 1

    def run(self) -> Fetched:
        names = sorted(name for name, _ in self.store.list(""))
        if "session" not in names:
            raise StoreError(f"{self.store.url} holds no session, `profilemate ship --list` shows what was shipped")
        for name in names:
            if name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")):
                raise StoreError(f"{self.store.url} has an object whose name leads elsewhere: {name!r}")
        missing = [name for name in self.entries if name not in names]
        self.out.mkdir(parents=True, exist_ok=True)
        title = PurePosixPath(self.store.url).name
        path = self.out / title
        if path.exists():
            raise StoreError(f"{path} is there already, give another folder")
        folder = Path(tempfile.mkdtemp(prefix=".profilemate-fetch-", dir=self.out))
        try:
            (folder / "records").mkdir(mode=0o700)
            files: dict[str, list[str]] = {}
            for name in names:
                parts = name.split("/")
                if len(parts) == 3 and parts[0] == "records" and parts[1].endswith(".pmrec"):
                    files.setdefault(parts[1], []).append(name)
                elif name != MANIFEST:
                    self._file(folder, name)
            for file, parts in sorted(files.items()):
                self._record_file(folder / "records", file, parts)
            self._without_spool(folder / "session")
            os.rename(folder, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return Fetched(path, self.objects, self.complete and not missing, sorted({*self.damaged, *missing}))

    @staticmethod
    def _without_spool(path: Path) -> None:
        """Where the records lay on the machine of the server means nothing here."""
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join(line for line in lines if not line.startswith(b"spool ")))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
