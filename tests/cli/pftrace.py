"""Reads Perfetto traces (protobuf) as far as the tests look into them: tracks, and slices with their times and arguments.

Field numbers are those of protos/perfetto/trace of the Perfetto project.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path


def fields(data: bytes):
    """(number, value) of a message: whole numbers, or the bytes of strings and messages."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            value = varint()
        elif key & 7 == 1:
            value = struct.unpack_from("<Q", data, at)[0]
            at += 8
        else:
            assert key & 7 == 2, f"field {key >> 3} has the wire type {key & 7}"
            length = varint()
            value = data[at : at + length]
            at += length
        yield key >> 3, value


@dataclass
class Slice:
    track: int
    name: str
    category: str
    begin_ns: int
    end_ns: int = 0
    args: dict = field(default_factory=dict)
    flows: list = field(default_factory=list)
    depth: int = 0


@dataclass
class Trace:
    tracks: dict[int, tuple[str, int]]  # name, parent
    slices: list[Slice]
    clocks: dict[int, int]


def read(path: Path) -> Trace:
    """Also checks what a viewer relies on: slices nest, every end has a begin, names and tracks are told first."""
    names: dict[tuple[int, int, int], str] = {}
    tracks: dict[int, tuple[str, int]] = {}
    clocks: dict[int, int] = {}
    events = []
    for number, packet in fields(path.read_bytes()):
        assert number == 1
        parts: dict[int, list] = {}
        for key, value in fields(packet):
            parts.setdefault(key, []).append(value)
        sequence = parts[10][0]
        for interned in parts.get(12, ()):
            for sort, entry in fields(interned):
                told = dict(fields(entry))
                names[sequence, sort, told[1]] = told[2].decode()
        for snapshot in parts.get(6, ()):
            clocks.update((dict(fields(c))[1], dict(fields(c))[2]) for key, c in fields(snapshot) if key == 1)
        for descriptor in parts.get(60, ()):
            told = dict(fields(descriptor))
            tracks[told[1]] = told[2].decode(), told.get(5, 0)
        for event in parts.get(11, ()):
            told: dict[int, list] = {}
            for key, value in fields(event):
                told.setdefault(key, []).append(value)
            assert told[11][0] in tracks
            name = names[sequence, 2, told[10][0]] if 10 in told else told.get(23, [b""])[0].decode()
            category = names[sequence, 1, told[3][0]] if 3 in told else told.get(22, [b""])[0].decode()
            args = {}
            for annotation in told.get(4, ()):
                fact = dict(fields(annotation))
                key = names[sequence, 3, fact[1]] if 1 in fact else fact[10].decode()
                args[key] = fact[3] if 3 in fact else fact[6].decode()
            events.append((parts[8][0], told[9][0], told[11][0], name, category, args, told.get(47, []) + told.get(48, [])))
    open_: dict[int, list[Slice]] = {}
    slices = []
    for at, kind, track, name, category, args, flows in sorted(events, key=lambda event: event[0]):
        stack = open_.setdefault(track, [])
        if kind == 1:
            stack.append(Slice(track, name, category, at, 0, args, flows, len(stack)))
            slices.append(stack[-1])
        elif kind == 2:
            stack.pop().end_ns = at
    assert not any(open_.values())
    return Trace(tracks, slices, clocks)
