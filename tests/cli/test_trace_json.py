"""The trace reader against Python's json, on seeded random traces: sound ones, odd ones, damaged ones.

Whatever Python reads, ours reads, with the same values. What Python refuses may be read up to the damage.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from program import BUILD

DUMP = BUILD / "tests" / "dump_trace"
ROUNDS = int(os.environ.get("PM_TEST_ROUNDS", "3000")) // 5
KINDS = {
    "cpu_op": "cpu_op",
    "user_annotation": "user_annotation",
    "kernel": "kernel",
    "cuda_runtime": "runtime",
    "gpu_memcpy": "gpu_memcpy",
    "python_function": "python_function",
    "never heard of": "other",
}
MAX_NS = 2**62


class Duplicates(list):
    """An object's members in order, keys more than once."""


def text_of(value, rng: random.Random) -> str:
    """JSON in one of its many spellings."""
    if isinstance(value, Duplicates):
        parts = [f"{text_of(k, rng)}{space(rng)}:{space(rng)}{text_of(v, rng)}" for k, v in value]
        return "{" + space(rng) + f"{space(rng)},{space(rng)}".join(parts) + space(rng) + "}"
    if isinstance(value, dict):
        return text_of(Duplicates(value.items()), rng)
    if isinstance(value, list):
        return "[" + space(rng) + f"{space(rng)},{space(rng)}".join(text_of(v, rng) for v in value) + space(rng) + "]"
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=rng.random() < 0.7)
        if rng.random() < 0.1:
            text = (
                '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in text[1:-1] if c not in '"\\') + '"'
            )
        return text
    return json.dumps(value)


class Raw:
    """A number as it is spelled."""

    def __init__(self, text: str):
        self.text = text


def space(rng: random.Random) -> str:
    return rng.choice(["", "", "", " ", " ", "\n", "\n    ", "\t", "\r\n", " " * rng.randrange(12)])


def number(rng: random.Random) -> Raw:
    digits = str(rng.randrange(10 ** rng.randrange(1, 22)))
    return Raw(
        rng.choice(
            [
                digits,
                digits[:15],
                f"{digits[:16]}.{rng.randrange(1000):03}",
                f"{digits[:13]}.{rng.randrange(10**6):06}",
                f"-{digits[:15]}",
                f"{digits[:6]}e{rng.randrange(12)}",
                f"{digits[:3]}.5E-{rng.randrange(3)}",
                "0",
                "-0",
                "NaN",
                "Infinity",
                "-Infinity",
            ]
        )
    )


def string(rng: random.Random) -> str:
    return "".join(
        rng.choice(
            [
                "a",
                "aten::mm",
                " ",
                '"',
                "\\",
                "/",
                "{",
                "}",
                "[",
                "]",
                ",",
                ":",
                "\n",
                "\x00",
                "\x1f",
                "ä",
                "€",
                "😀",
                "\ud83d",
            ]
        )
        for _ in range(rng.randrange(10))
    )


def anything(rng: random.Random, depth: int = 0):
    choice = rng.randrange(9 if depth < 4 else 6)
    if choice < 2:
        return number(rng)
    if choice < 4:
        return string(rng)
    if choice < 6:
        return rng.choice([None, True, False])
    if choice < 8:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(4))]
    return Duplicates(
        (rng.choice(["a", "ts", "args", string(rng)]), anything(rng, depth + 1)) for _ in range(rng.randrange(4))
    )


def event(rng: random.Random) -> Duplicates:
    members = [
        ("ph", rng.choice(["X", "X", "X", "X", "s", "f", "M", "i", "B", "XX", 3])),
        ("cat", rng.choice([*KINDS, string(rng)])),
        ("name", string(rng)),
        ("pid", rng.choice([rng.randrange(50000), "Spans", string(rng)])),
        ("tid", rng.choice([rng.randrange(50000), "stream 7", -1])),
        ("ts", number(rng)),
        ("dur", number(rng)),
    ]
    arguments = [
        ("External id", rng.choice([number(rng), rng.randrange(1, 10**6), 2**63, 2**64 - 1])),
        ("correlation", rng.randrange(1, 10**6)),
        ("Input Dims", [[rng.randrange(9) for _ in range(rng.randrange(3))] for _ in range(rng.randrange(4))]),
        (string(rng), anything(rng)),
    ]
    rng.shuffle(arguments)
    members.append(
        ("args", rng.choice([Duplicates(arguments), Duplicates(arguments), Duplicates(arguments), anything(rng)]))
    )
    members.append((string(rng), anything(rng)))
    if rng.random() < 0.2:
        members.append(rng.choice(members[1:8]))
        members.append((rng.choice(["ts", "name", "args"]), anything(rng)))
    if rng.random() < 0.3:
        rng.shuffle(members)
    if rng.random() < 0.1:
        del members[rng.randrange(len(members))]
    return Duplicates(members)


def trace(rng: random.Random) -> str:
    events = [event(rng) if rng.random() < 0.95 else anything(rng) for _ in range(rng.randrange(1, 12))]
    if rng.random() < 0.2:
        return space(rng) + text_of(events, rng) + space(rng)
    outer = [("schemaVersion", 1), ("distributedInfo", anything(rng)), ("deviceProperties", anything(rng))]
    outer += [(string(rng), anything(rng)) for _ in range(rng.randrange(3))]
    outer.insert(rng.randrange(len(outer) + 1), ("traceEvents", events))
    if rng.random() < 0.05:
        outer.insert(0, ("traceEvents", [event(rng)]))
    return space(rng) + text_of(Duplicates(outer), rng) + space(rng)


def nanoseconds(value) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    if value != value:
        return 0
    if abs(value) >= MAX_NS // 1000:
        return MAX_NS if value > 0 else -MAX_NS
    return int((Decimal(value) * 1000).to_integral_value(ROUND_HALF_UP))


def expected(document) -> tuple[int, list]:
    """All events, and the kept ones, by Python."""
    events = document if isinstance(document, list) else document["traceEvents"]
    events = [e for e in events if isinstance(e, dict)]
    kept = []
    for e in events:
        if e.get("ph") != "X" or not isinstance(e.get("name"), str) or nanoseconds(e.get("ts")) is None:
            continue
        cat = e.get("cat")
        kept.append(
            (
                KINDS.get(cat, "other") if isinstance(cat, str) else "cpu_op",
                nanoseconds(e["ts"]),
                min(max(0, nanoseconds(e.get("dur")) or 0), MAX_NS // 2),
                e["name"].encode("utf-8", "surrogatepass").hex(),
                e.get("args") if isinstance(e.get("args"), dict) else {},
            )
        )
    return len(events), kept


def dump(files, *options) -> dict:
    files, found = list(files), {}
    for begin in range(0, len(files), 2000):  # as many as one command line takes
        found.update(dump_some(files[begin : begin + 2000], *options))
    return found


def dump_some(files, *options) -> dict:
    shown = subprocess.run([DUMP, *options, *files], capture_output=True, text=True, timeout=300)
    assert shown.returncode == 0, shown.stderr
    found, current = {}, None
    for line in shown.stdout.splitlines():
        words = line.split(" ")
        if words[0] == "file":
            current = []
            found[words[1]] = (int(words[2]), int(words[3]), current)
        else:
            current.append(words)
    return found


def close(ours: int, theirs: int) -> bool:
    """Python's doubles are exact to 2^-52 only."""
    return abs(ours - theirs) <= 1 + abs(theirs) * 2**-50


KNOWN = ("cpu_op", "kernel", "runtime")


@pytest.mark.parametrize(
    "options", [(), ("chunk=61", "scan=1"), ("chunk=200", "scan=2")], ids=["whole", "plain", "sse2"]
)
def test_sound_traces_of_any_spelling(tmp_path, options):
    rng = random.Random(5)
    texts = {}
    for i in range(ROUNDS):
        path = tmp_path / f"{i}.json"
        text = trace(rng)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        texts[str(path)] = text
    found = dump(texts, *options)
    compared = 0
    for path, text in texts.items():
        document = json.loads(text, parse_float=Decimal)
        if isinstance(document, dict) and not isinstance(document.get("traceEvents"), list):
            continue
        code, events, rows = found[path]
        count, kept = expected(document)
        assert code == 0, path
        assert events == count, path
        assert len(rows) == len(kept), path
        for row, (kind, start, dur, name, arguments) in zip(rows, kept, strict=False):
            compared += 1
            assert row[0] == kind and row[5] == f"{name}.", path
            assert close(int(row[1]), start), path
            assert close(int(row[2]), dur), path
            external = arguments.get("External id")
            if isinstance(external, int) and not isinstance(external, bool) and 0 <= external < 2**64:
                assert int(row[3]) == external, path
            if kind in ("kernel", "runtime") and isinstance(arguments.get("correlation"), int):
                assert int(row[4]) == arguments["correlation"], path
            if kind == "cpu_op" and isinstance(arguments.get("Input Dims"), list):
                assert json.loads(bytes.fromhex(row[8][:-1])) == arguments["Input Dims"], path
    assert compared > ROUNDS


def test_what_fuzzing_found_reads_as_in_python(tmp_path):
    """The kept corpus of tests/fuzz/fuzz_trace.c: whatever Python's json reads of it, ours reads, with the same events."""
    texts = {}
    for kept in sorted((BUILD / "tests" / "corpus" / "trace").iterdir()):
        data = kept.read_bytes()[1:]  # the first byte is the fuzz target's own
        if data[:2] == b"\x1f\x8b":
            continue
        try:
            document = json.loads(data.decode("utf-8", "surrogatepass"), parse_float=Decimal)
        except (ValueError, RecursionError):
            continue
        events = document.get("traceEvents") if isinstance(document, dict) else document
        if not isinstance(events, list):
            continue
        path = tmp_path / kept.name
        path.write_bytes(data)
        texts[str(path)] = document
    assert len(texts) > 20
    found = dump(texts)
    for path, document in texts.items():
        code, events, rows = found[path]
        count, wanted = expected(document)
        assert (code, events, len(rows)) == (0, count, len(wanted)), path
        for row, (kind, start, dur, name, _) in zip(rows, wanted, strict=True):
            assert (row[0], row[5]) == (kind, f"{name}."), path
            assert close(int(row[1]), start) and close(int(row[2]), dur), path


def test_damaged_traces_never_say_more_than_they_hold(tmp_path):
    """Cut or changed: the events before the damage are those of the sound text."""
    rng = random.Random(6)
    sound, files = {}, []
    for i in range(ROUNDS):
        text = trace(rng).encode("utf-8", "surrogatepass")
        path = tmp_path / f"{i}.json"
        cut = rng.randrange(len(text))
        path.write_bytes(text[:cut])
        whole = tmp_path / f"{i}.whole.json"
        whole.write_bytes(text)
        sound[str(path)] = str(whole)
        files += [str(path), str(whole)]
    found = dump(files)
    cut_short = 0
    for path, whole in sound.items():
        code, events, rows = found[path]
        _, all_events, all_rows = found[whole]
        assert code in (-10, -8, 0), path  # cut off, no trace, or only white space is gone
        document = json.loads(Path(whole).read_bytes().decode("utf-8", "surrogatepass"), object_pairs_hook=list)
        if document and isinstance(document[0], tuple) and [key for key, _ in document].count("traceEvents") > 1:
            continue  # a later list takes the place of the first: what is cut off in it had the first one's events
        assert events <= all_events, path
        assert rows == all_rows[: len(rows)], path
        cut_short += len(rows) < len(all_rows)
    assert cut_short > ROUNDS / 4
