"""docs/FAULTS.md names a test for each fault, and the test is there."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "FAULTS.md").read_text()
TEXT = re.sub(r"<!-- faults -->.*?<!-- end -->", "", TEXT, flags=re.S)  # figures of bench/bench_faults.py


def rows() -> list[list[str]]:
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| ")]
    return [row for row in found if not set(row[0]) <= set("- ") and row[0] != "fault"]


def test_every_fault_has_an_outcome_and_a_test_that_exists():
    wrong = []
    for fault, outcome, tests in rows():
        named = re.findall(r"`(tests/[\w/.]+)`(?:: ((?:`\w+`(?:, )?)+))?", tests)
        if not outcome or not named and not tests.startswith("not tried"):
            wrong.append(f"{fault}: no test")
        for file, names in named:
            text = (ROOT / file).read_text() if (ROOT / file).exists() else ""
            wrong += [f"{fault}: {file} has no {n}" for n in re.findall(r"`(\w+)`", names) if not re.search(rf"\b{n}\(", text)]
            if not text:
                wrong.append(f"{fault}: there is no {file}")
    assert len(rows()) > 30
    assert not wrong, "\n".join(wrong)
