"""When the machine stood still: a virtual machine may be away for a minute, or wait so long for its disk, at any time.

A thread looks at the clock, at a file and at the kernel's account of time in which everything waited (io and memory of
/proc/pressure, the host's part in /proc/stat) twice a second, so that a test's failure can be told from the machine's.
"""

import os
import threading
import time
from pathlib import Path

EVERY_S = 0.5
GAP_S = 5  # a look that comes so much too late
WAITED_S = 20  # or so much waiting of everything, by the kernel's account, in the time that is asked about


def waited_s():
    """Seconds for which, since the start of the system, all that could have run waited for disk or memory, or for a
    processor that the host had given to others (of one processor, on average)."""
    total = 0.0
    for name in ("io", "memory"):
        try:
            lines = Path(f"/proc/pressure/{name}").read_text().splitlines()
        except OSError:  # a kernel without it
            continue
        total += sum(int(line.rpartition("=")[2]) for line in lines if line.startswith("full")) / 1e6
    stolen = Path("/proc/stat").read_text().split("\n", 1)[0].split()[8]
    return total + int(stolen) / os.sysconf("SC_CLK_TCK") / (os.cpu_count() or 1)


class Stalls:
    def __init__(self):
        self.looks = []  # (CLOCK_MONOTONIC in s, waited_s() then), by time
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while True:
            self.looks.append((time.monotonic(), waited_s()))
            time.sleep(EVERY_S)

    def told(self, began, ended):
        """What the machine did between two points of CLOCK_MONOTONIC, in a few words; "" if it went on."""
        return told([look for look in list(self.looks) if began - 2 * EVERY_S <= look[0] <= ended + GAP_S])


def told(looks):
    gaps = [after[0] - before[0] for before, after in zip(looks, looks[1:], strict=False)]
    if gaps and max(gaps) >= GAP_S:
        return f"the machine stood still for {max(gaps):.0f} s"
    waited = looks[-1][1] - looks[0][1] if looks else 0
    return f"everything waited for disk, memory or the host for {waited:.0f} s" if waited >= WAITED_S else ""
