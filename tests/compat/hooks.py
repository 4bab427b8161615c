"""What ProfileMate asks of vLLM, read from its own sources: hooks (src/probe/*.def), the arguments that hooks take by
position and name, and every attribute that a probe reads (reads.py says whose it is)."""

import pathlib
import re
from dataclasses import dataclass

from releases import number

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROBES = ROOT / "src" / "probe"


@dataclass(frozen=True)
class Hook:
    probe: str
    name: str
    module: str
    qualname: str
    kind: str
    optional: bool
    versions: str


ROW = re.compile(r'^T\((\w+),\s*"([^"]+)",\s*"([^"]+)",\s*(\w+),\s*([^,]+),\s*"([^"]+)"', re.M)


def hooks():
    found = []
    for path in sorted(PROBES.glob("*.def")):
        for name, module, qualname, kind, flags, versions in ROW.findall(path.read_text()):
            found.append(Hook(path.stem, name, module, qualname, kind, "OPTIONAL" in flags, versions))
    return found


def within(versions, release):
    """Whether a release is in a range as the tables write it: "0.11.0+", "0.11.2 to 0.23.0"."""
    first, _, last = versions.partition(" to ")
    return number(first.rstrip("+")) <= release and (not last or release <= number(last))


def arguments():
    """(file, position, name) of each argument that a hook looks at."""
    found = set()
    for path in sorted(PROBES.glob("*.c")):
        text = path.read_text()
        names = dict(re.findall(r'static struct pm_name (\w+) =\s*PM_NAME\("([^"]+)"\)', text))
        for position, variable in re.findall(r"pm_call_arg\(call, (\d+), &(\w+)\)", text):
            found.add((path.name, int(position), names[variable]))
    return found


def names_read():
    """name -> files of src/probe that read it."""
    found = {}
    for path in sorted(PROBES.glob("*.c")):
        for name in re.findall(r'PM_NAME\("([^"]+)"\)', path.read_text()):
            found.setdefault(name, set()).add(path.name)
    return found
