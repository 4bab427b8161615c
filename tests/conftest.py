"""For every suite: a failed test's report says when its module began and when it failed (CLOCK_MONOTONIC, s), so that
scripts/run_tests.py can tell whether the machine stood still in that time (scripts/stalls.py)."""

import time

import pytest

BEGAN = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    module = item.getparent(pytest.Module) or item
    module.stash.setdefault(BEGAN, time.monotonic())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item, call):
    if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        module = item.getparent(pytest.Module) or item
        now = time.monotonic()
        item.user_properties += [("module_began", module.stash.get(BEGAN, now)), ("failed_at", now)]
