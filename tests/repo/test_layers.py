"""The rooms of src/ depend on each other in one direction only: every #include is checked against the table."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
SRC = ROOT / "src"

# room -> rooms whose headers it may include, beside its own
MAY_USE = {
    "base": set(),
    "session": {"base"},
    "recorder": {"session", "base"},
    "gpu": {"base"},
    "probe": {"gpu", "recorder", "session", "base"},
    "hook": {"probe", "recorder", "session", "base"},
    "reader": {"session", "base"},
    "trace": {"base"},
    "convert": {"recorder", "session", "base"},
    "view": {"reader", "trace", "session", "base"},
    "explain": {"view", "reader", "session", "base"},
    "html": {"explain", "view", "reader", "session", "base"},
    "compare": {"view", "reader", "session", "base"},
    "live": {"view", "reader", "session", "base"},
    "serve": {"live", "html", "view", "reader", "session", "base"},
    "otlp": {"serve", "live", "view", "reader", "session", "base"},
    "cmd": {"otlp", "serve", "live", "compare", "convert", "html", "explain", "view", "reader", "trace", "recorder", "session", "base"},
    "binding": {"view", "reader", "session", "base"},
}
# What a probe is given of the hooks: reading objects, the guard, and Python itself.
EXTRA = {
    "probe": {"hook/compat.h", "hook/read.h", "hook/guard.h"},
    # The table of hooks is data, which `doctor` reads without Python; the gate, which it asks, is pure C.
    "cmd": {"probe/targets.def", "hook/gate.h"},
    # Which session a person means is the same in Python; that file prints nothing.
    "binding": {"cmd/place.h", "cmd/old.h"},
}
PYTHON_ROOMS = {"hook", "probe"}


def includes():
    for path in sorted(SRC.rglob("*")):
        if path.suffix not in {".c", ".h", ".def"}:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+["<]([^">]+)[">]', line)
            if match:
                yield path.relative_to(SRC), number, match.group(1)


def test_every_room_is_in_the_table():
    rooms = {path.name for path in SRC.iterdir() if path.is_dir() and any(path.iterdir())}
    assert rooms <= set(MAY_USE), f"rooms without a row: {sorted(rooms - set(MAY_USE))}"


def test_includes_follow_the_order_of_the_rooms():
    wrong = []
    seen = 0
    for path, number, included in includes():
        room, target = path.parts[0], included.split("/")[0]
        if "/" not in included or target not in MAY_USE:
            continue
        seen += 1
        if target == room or target in MAY_USE[room] or included in EXTRA.get(room, ()):
            continue
        wrong.append(f"src/{path}:{number}: {room} must not include {included}")
    assert seen > 50, "the check found hardly any include: it looks in the wrong place"
    assert not wrong, "\n".join(wrong)


def test_python_stays_in_its_rooms():
    wrong = [
        f"src/{path}:{number}: only hook/compat.h, and the Python package's own part, include {included}"
        for path, number, included in includes()
        if included in {"Python.h", "structmember.h"} and str(path) not in {"hook/compat.h", "binding/binding.h"}
    ]
    wrong += [
        f"src/{path}:{number}: Python in {path.parts[0]}/"
        for path, number, included in includes()
        if included == "hook/compat.h" and path.parts[0] not in PYTHON_ROOMS
    ]
    assert not wrong, "\n".join(wrong)


def test_version_checks_stay_in_compat():
    wrong = [
        str(path.relative_to(ROOT))
        for path in sorted(SRC.rglob("*.[ch]"))
        if path.name != "compat.h" and re.search(r"\bPY_(VERSION_HEX|M[A-Z]+_VERSION)\b", path.read_text())
    ]
    assert not wrong, f"PY_VERSION_HEX outside hook/compat.h: {wrong}"


def test_banned_functions():
    banned = re.compile(r"(?<![\w.>])(strcpy|strcat|sprintf|vsprintf|gets|strtok|system|popen)\s*\(")
    wrong = []
    for path in sorted(SRC.rglob("*.[ch]")):
        text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group(0).count("\n"), path.read_text(), flags=re.S)
        for number, line in enumerate(text.splitlines(), 1):
            if banned.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not wrong, "\n".join(wrong)
