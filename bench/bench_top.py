"""What `profilemate top` costs beside a running server: its share of one core at the default refresh.

    python3 bench/bench_top.py [--seconds 20] [--interval 1] [SESSION|PID]

Prints user and system time by wall time, of a run that writes screens to /dev/null. The budget is 2 % at one server.
"""

import argparse
import os
import resource
import subprocess
import time
from pathlib import Path

BUILD = Path(os.environ.get("PM_BUILD", Path(__file__).resolve().parents[1] / "build" / "release"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server", nargs="*", help="a session or a pid; without: all servers of the host")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--interval", type=float, default=1)
    asked = parser.parse_args()
    count = max(2, round(asked.seconds / asked.interval))
    words = ["top", "--batch", "--interval", str(asked.interval), "--count", str(count), *asked.server]
    began = time.monotonic()
    subprocess.run([BUILD / "bin" / "profilemate", *words], stdout=subprocess.DEVNULL, check=True)
    wall = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    share = (used.ru_utime + used.ru_stime) / wall
    print(f"{count} screens in {wall:.1f} s: {share:.2%} of one core ({used.ru_maxrss // 1024} MiB at most)")


if __name__ == "__main__":
    main()
