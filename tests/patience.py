"""Waiting for what another process does, on a machine that may be away for a minute at any moment."""

from __future__ import annotations

import time

PATIENCE_S = 180  # nothing is measured: what has not come after so long will not come
LOOKS = 30  # and after so many looks, for a single one may take most of that time


def until(what, why="it did not come to that", seconds: float = PATIENCE_S, every: float = 0.05):
    """The first true value of what(), asked again and again; why, or what why() says, is the failure's message."""
    deadline, looks = time.monotonic() + seconds, 0
    while not (value := what()):
        looks += 1
        assert looks < LOOKS or time.monotonic() < deadline, f"{why() if callable(why) else why} ({looks} looks)"
        time.sleep(every)
    return value
