#!/usr/bin/env python3
"""Runs a command, and holds up its processes at random: what a test takes for granted on a machine that goes on, fails here.

usage: scripts/holdups.py [--seed N] [--share P] [--longest SECONDS] [--spin N] COMMAND...
  for example   scripts/holdups.py --spin 2 -- python -m pytest tests/cli -x -q

Each thread of the command's descendants that is new is, with probability P, given the processor only when nobody else wants it
(SCHED_IDLE), for up to so many seconds, and so is one of all of them every tenth of a second. --spin keeps N processors busy
beside it, without which nothing is held up on an idle machine. The order in which two processes do what they were told
to do then differs from run to run: what the order is not promised to be is found out. By hand, as root or with
CAP_SYS_NICE (Linux lets nobody else leave SCHED_IDLE). Ends with the command's exit code.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

LOOK_S = 0.02


def tasks_of(pid):
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:  # it ended meanwhile
        return []


def children_of(pid):
    found = []
    for task in tasks_of(pid):
        try:
            found.extend(int(child) for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            pass
    return found


def threads_below(pid):
    """Every thread of every process that descends from pid, pid itself not."""
    found, todo = [], [pid]
    while todo:
        process = todo.pop()
        for child in children_of(process):
            found.extend(tasks_of(child))
            todo.append(child)
    return found


def schedule(thread, policy):
    try:
        os.sched_setscheduler(thread, policy, os.sched_param(0))
    except ProcessLookupError:
        pass


class Holdups:
    def __init__(self, random, share, longest):
        self.random, self.share, self.longest = random, share, longest
        self.seen, self.until, self.next, self.count = set(), {}, 0.0, 0

    def hold(self, thread, now):
        schedule(thread, os.SCHED_IDLE)
        self.until[thread] = now + self.longest * self.random.random() ** 3  # mostly short
        self.count += 1

    def look(self, pid):
        now, threads = time.monotonic(), threads_below(pid)
        for thread in [thread for thread, end in self.until.items() if end < now]:
            del self.until[thread]
            schedule(thread, os.SCHED_OTHER)
        for thread in threads:
            if thread not in self.seen and self.random.random() < self.share:
                self.hold(thread, now)
        self.seen = set(threads)
        if threads and now >= self.next:
            self.hold(self.random.choice(threads), now)
            self.next = now + 0.1


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--share", type=float, default=0.3, metavar="P")
    parser.add_argument("--longest", type=float, default=5, metavar="SECONDS")
    parser.add_argument("--spin", type=int, default=0, metavar="N")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    command = asked.command[1:] if asked.command[:1] == ["--"] else asked.command
    if not command:
        parser.error("say which command")
    print(f"holdups: seed {asked.seed}", file=sys.stderr)
    holdups = Holdups(random.Random(asked.seed), asked.share, asked.longest)
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(asked.spin)]
    try:
        with subprocess.Popen(command) as process:
            while process.poll() is None:
                holdups.look(process.pid)
                time.sleep(LOOK_S)
    finally:
        for each in spinning:
            each.kill()
    print(f"holdups: {holdups.count} times", file=sys.stderr)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main())
