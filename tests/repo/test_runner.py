"""What scripts/run_tests.py does with a failure: it stays one, unless the machine stood still in the module's time."""

import shutil
import sys
from argparse import Namespace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import run_tests  # noqa: E402
import stalls  # noqa: E402

MODULES = {
    "test_first.py": """
        import pathlib, pytest
        mark = pathlib.Path(__file__).with_name("mark")
        @pytest.fixture(scope="module")
        def made():
            if not mark.exists():
                mark.touch()
                assert False, "the machine was away"
        def test_one(made): pass
        def test_two(made): pass
    """,
    "test_wrong.py": "def test_wrong():\n    assert False, 'it is wrong'\n",
    "test_right.py": "class TestAll:\n    def test_right(self): pass\n",
}


@pytest.fixture
def counted(tmp_path, monkeypatch, capsys):
    """Runs the modules above; answers as the stalls' account is asked for the modules' times."""
    (tmp_path / "tests" / "made").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    for name, text in MODULES.items():
        lines = text.split("\n")
        (tmp_path / "tests" / "made" / name).write_text("\n".join(line.removeprefix(" " * 8) for line in lines))
    monkeypatch.setattr(run_tests, "ROOT", tmp_path)
    monkeypatch.setattr(run_tests, "LOGS", tmp_path / "logs")

    def run(why):
        runner = run_tests.Runner(Namespace(mode="full"))
        asked = []
        runner.stalls.told = lambda began, ended: asked.append((began, ended)) or why
        runner.suite("made", [runner.pytest("made", sys.executable, "tests/made")])
        assert all(0 < began <= ended for began, ended in asked) and len(asked) == 2
        return runner, capsys.readouterr().out

    return run


def test_a_failure_while_the_machine_went_on_stays(counted):
    runner, said = counted("")
    assert (runner.total.passed, len(runner.total.failures), runner.again) == (1, 3, [])
    assert "1 passed, 3 failed" in said


def test_what_failed_while_it_stood_still_is_run_once_more_and_told(counted):
    runner, said = counted("the machine stood still for 52 s")
    assert (runner.total.passed, [name for name, _ in runner.total.failures]) == (
        3,
        ["made-again: tests.made.test_wrong.test_wrong"],
    )
    assert sorted(module for module, _ in runner.again) == ["tests/made/test_first.py", "tests/made/test_wrong.py"]
    assert "tests/made/test_first.py: the machine stood still for 52 s: it is run once more" in said


@pytest.mark.parametrize(
    ("looks", "says"),
    [
        ([], ""),
        ([(0, 7), (0.5, 7), (1, 7.4)], ""),
        ([(0, 7), (0.5, 7), (52.4, 7)], "the machine stood still for 52 s"),
        ([(i / 2, i / 3) for i in range(70)], "everything waited for disk, memory or the host for 23 s"),
    ],
)
def test_when_it_stood_still(looks, says):
    assert stalls.told(looks) == says


def test_this_machine_has_an_account():
    assert stalls.waited_s() >= 0
