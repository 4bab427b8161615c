"""What there is to ship of a session: its files, and of its record files the segments that will not change any more.

The layout is that of `man profilemate-session`. A process holds a lock on the first byte of its record file for as long
as it lives: without it, and without more to come, all of the file is final; else only the segments that their writer
has left. Nothing in a sessions' folder is trusted: links are not followed, and only regular files of the folder's own
owner are taken.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILE_MAGIC = b"PFMEREC1"
SEGMENT_MAGIC = b"PFMESEG1"
STREAMS = ("keep", "core", "blocks", "custom")
CLOSED = 1  # the process ended the file itself
RECYCLED = 4  # some detail had to go
YOUNG_S = 120.0  # a session without a process, this young, is about to get one
READ_BYTES = 1 << 20
DEPTH_MAX = 8

_HEAD = struct.Struct("<8sIIIII")  # magic, version, header, segment, live offset, live bytes
_SEGMENT = struct.Struct("<8sQIIQQ24xQ")  # magic, index, stream, flags, first record, first fact, (clock), sealed
_LOCK = "hhqqi4x"  # struct flock where off_t is 64 bits

# Offsets in the header, of what changes.
STATE_AT, SLOTS_AT, LOST_AT, RECYCLED_AT, LIVE_INDEX_AT = 116, 136, 144, 176, 232


class SourceError(Exception):
    """One sentence: what, where."""


@dataclass(frozen=True)
class Segment:
    stream: int
    index: int
    slot: int
    first_ordinal: int
    sealed: bool

    @property
    def name(self) -> str:
        """Of one segment, for ever: the bytes behind it do not change once it is final."""
        return f"{STREAMS[self.stream]}.{self.index:08d}"


def parse_segment(head: bytes) -> Segment | None:
    """Of the first 128 bytes of a slot; None where there is none (yet)."""
    if len(head) < 128:
        return None
    magic, index, stream, _, first_ordinal, _, sealed = _SEGMENT.unpack_from(head)
    if magic != SEGMENT_MAGIC or stream >= len(STREAMS):
        return None
    return Segment(stream, index, 0, first_ordinal, sealed != 0)


def pread(fd: int, size: int, offset: int) -> bytes:
    """So many bytes, fewer only at the end of the file."""
    got = b""
    while len(got) < size:
        block = os.pread(fd, size - len(got), offset + len(got))
        if not block:
            break
        got += block
    return got


class RecordFile:
    """One process's records, open for one look."""

    def __init__(self, fd: int, name: str):
        self.fd = fd
        self.name = name
        head = pread(fd, 4096, 0)
        if len(head) < 4096 or head[:8] != FILE_MAGIC:
            self.ready = False  # just being made, or no record file: nothing to ship of it
            self.done = not self._locked()
            return
        _, version, self.header_bytes, self.segment_bytes, self.live_offset, self.live_bytes = _HEAD.unpack_from(head)
        if version != 1:
            raise SourceError(f"{name} has format version {version}, this profilemate ships version 1: use a newer one")
        if not (1 << 16 <= self.segment_bytes <= 1 << 22 and 4096 <= self.header_bytes <= 1 << 30):
            raise SourceError(f"{name}: its header names sizes that cannot be")
        self.ready = True
        # Asked before the segments are looked at: what is final then stays so.
        closed = struct.unpack_from("<I", head, STATE_AT)[0] & CLOSED
        self.done = bool(closed) or not self._locked()

    def _locked(self) -> bool:
        asked = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        told = struct.unpack(_LOCK, fcntl.fcntl(self.fd, fcntl.F_GETLK, asked))
        return bool(told[0] != fcntl.F_UNLCK)

    def segments(self) -> list[Segment]:
        """Those that are there, in order of their slots."""
        found = []
        slots = max(0, os.fstat(self.fd).st_size - self.header_bytes + self.segment_bytes - 1) // self.segment_bytes
        for slot in range(slots):
            segment = parse_segment(pread(self.fd, 128, self.header_bytes + slot * self.segment_bytes))
            if segment is not None:
                found.append(Segment(segment.stream, segment.index, slot, segment.first_ordinal, segment.sealed))
        return found

    def copy(self, segment: Segment) -> bytes | None:
        """The whole slot; None where its writer has taken it again meanwhile."""
        at = self.header_bytes + segment.slot * self.segment_bytes
        got = pread(self.fd, self.segment_bytes, at)
        for head in (got, pread(self.fd, 128, at)):
            now = parse_segment(head)
            if now is None or (now.stream, now.index, now.first_ordinal) != (
                segment.stream, segment.index, segment.first_ordinal,
            ):  # fmt: skip
                return None
        return got.ljust(self.segment_bytes, b"\0")

    def header(self) -> bytes:
        """The header with a whole copy of the totals."""
        for _ in range(20):
            got = pread(self.fd, self.header_bytes, 0)
            if self.done or self._copy_of(got) == self._copy_of(pread(self.fd, self.header_bytes, 0)):
                return got
        return got

    def _copy_of(self, header: bytes) -> tuple[int, bytes]:
        """Which copy of the totals is in force, and its moment: whole, if neither changed while it was read."""
        index = struct.unpack_from("<I", header, LIVE_INDEX_AT)[0]
        at = self.live_offset + index * self.live_bytes
        return index, header[at : at + 8] if index < 2 else b""

    def progress(self, header: bytes) -> str:
        """Changes when the header has something to tell: facts counted, losses, a state. (Not with the heartbeat.)"""
        index, _ = self._copy_of(header)
        at = self.live_offset + index * self.live_bytes + 8
        covers = header[at : at + 32] if index < 2 else b""
        state = header[STATE_AT : STATE_AT + 4] + header[SLOTS_AT : RECYCLED_AT + 32] + covers
        return state.hex()

    def close(self) -> None:
        os.close(self.fd)


class Source:
    """A session's folder, looked at anew with each call."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise SourceError(f"{path} cannot be opened ({error.strerror})") from error
        about = os.fstat(self._folder)
        self.owner, self.device, self.inode = about.st_uid, about.st_dev, about.st_ino
        self.facts = self._read_facts()

    def close(self) -> None:
        os.close(self._folder)

    def _read_facts(self) -> dict[str, str]:
        """The file `session`."""
        fd = self._open_at(self._folder, "session")
        if fd is None:
            raise SourceError(f"{self.path} is not a session, it has no file `session`")
        try:
            text = pread(fd, 65536, 0).decode("utf-8", "replace")
        finally:
            os.close(fd)
        facts = dict(line.split(" ", 1) for line in text.split("\n")[:-1] if " " in line)
        token = facts.get("token", "")
        if len(token) != 32 or any(c not in "0123456789abcdef" for c in token.lower()):
            raise SourceError(f"{self.path}/session has no token, so that nobody could tell this session from another")
        return facts

    def _open_at(self, folder: int, name: str) -> int | None:
        """A regular file of the session's owner, not through a link; else None."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (40, 6):  # a link (ELOOP), a FIFO or socket (ENXIO)
                return None
            raise SourceError(f"{self.path}/{name} cannot be read ({error.strerror})") from error
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != self.owner:
            os.close(fd)
            return None
        return fd

    def _folders(self) -> Iterator[tuple[int, bool]]:
        """Where record files lie: in the session, and on a network file system in the spool. (descriptor, is spool)"""
        places = [("records", self._folder, False)]
        spool = self.facts.get("spool", "")
        if spool.startswith("/"):
            places.append((spool, self._folder, True))
        for name, at, is_spool in places:
            try:
                fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:  # a folder that cannot be read is not an empty one
                raise SourceError(f"{self.path}/{name} cannot be read ({error.strerror})") from error
            try:
                if os.fstat(fd).st_uid == self.owner:
                    yield fd, is_spool
            finally:
                os.close(fd)

    def record_files(self) -> Iterator[RecordFile]:
        """Each open only until the next one is asked for; one that came home from the spool is taken from there."""
        seen = set()
        for folder, _ in self._folders():
            for name in sorted(os.listdir(folder)):
                if not name.endswith(".pmrec") or name.startswith(".") or name in seen:
                    continue
                fd = self._open_at(folder, name)
                if fd is None:
                    continue
                seen.add(name)
                try:
                    yield RecordFile(fd, name)
                finally:
                    os.close(fd)

    def has_spool(self) -> bool:
        return any(is_spool and os.listdir(fd) for fd, is_spool in self._folders())

    def _elsewhere(self) -> bool:
        """Its records may lie on another machine's disk: nobody here can tell whether they are still written."""
        if "spool" not in self.facts:
            return False
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            boot = ""
        return self.facts.get("boot_id") != boot and self.facts.get("host") != os.uname().nodename

    def finished(self) -> bool:
        """No process writes any more, or is about to begin."""
        if self._elsewhere():
            return False
        count = 0
        for record in self.record_files():
            count += 1
            if not record.done:
                return False
        if count > 0:
            return True
        newest = max(os.fstat(fd).st_mtime for fd in (self._folder, *(f for f, _ in self._folders())))
        return time.time() - newest > YOUNG_S

    def other_files(self) -> Iterator[tuple[str, int]]:
        """(name with folders, descriptor) of all but the record files and what they share, open until the next."""
        yield from self._walk(self._folder, "", 0)
        for folder, is_spool in self._folders():
            if is_spool:
                yield from self._walk(folder, "records/", 1)

    def left_out(self) -> str | None:
        """The first thing in the folder that is not shipped and is nobody's leftover: links, others' files, depths."""
        shipped = {name for name, _ in self.other_files()} | {f"records/{r.name}" for r in self.record_files()}
        for folder, folders, files in os.walk(self.path, onerror=_raise):
            where = Path(folder).relative_to(self.path)
            for name in (*files, *(each for each in folders if os.path.islink(Path(folder) / each))):
                whole = str(where / name)
                if whole not in shipped and whole != "records/budget" and not name.startswith("."):
                    return whole
        return None

    def _walk(self, folder: int, prefix: str, depth: int) -> Iterator[tuple[str, int]]:
        for name in sorted(os.listdir(folder)):
            whole = prefix + name
            if name.startswith(".") or whole == "records/budget" or (prefix == "records/" and name.endswith(".pmrec")):
                continue
            try:
                about = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(about.st_mode) and depth < DEPTH_MAX and about.st_uid == self.owner:
                sub = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                try:
                    yield from self._walk(sub, whole + "/", depth + 1)
                finally:
                    os.close(sub)
            elif stat.S_ISREG(about.st_mode) and (fd := self._open_at(folder, name)) is not None:
                try:
                    yield whole, fd
                finally:
                    os.close(fd)

    def file(self, name: str) -> bytes | None:
        """A small file of the folder itself."""
        fd = self._open_at(self._folder, name)
        if fd is None:
            return None
        try:
            return pread(fd, 16 << 20, 0)
        finally:
            os.close(fd)


def _raise(error: OSError) -> None:
    raise error


def sessions_below(bases: list[Path]) -> list[Path]:
    """The sessions' folders there, oldest name first."""
    found = []
    for base in bases:
        try:
            entries = sorted(os.scandir(base), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith("session_") and entry.is_dir(follow_symlinks=False):
                path = Path(entry.path)
                if (path / "session").is_file():
                    found.append(path)
    return found
