#!/usr/bin/env python3
"""Builds, runs every suite, and counts: what ./test does after the system's packages have been seen to.

A suite is a list of commands, each leaving a report (ctest's or pytest's JUnit file) in build/test-logs/. Tests in C
programs are counted one by one, from the XML that cmocka prints. A suite that cannot start, or that ran nothing,
counts as one failure.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "test-logs"
# Those that pytest runs with vLLM's interpreter: the folder under tests/, and what it is called.
SUITES = (("repo", "repository"), ("cli", "program"), ("docs", "documents"), ("e2e", "real vLLM"))
PYTHONS = ("3.11", "3.10", "3.12", "3.13", "3.14")  # what the extension runs on
OLDER_PYTHONS = ("3.8", "3.9")  # on which it must keep quiet
SANITIZED_PYTHONS = ("3.12", "3.13", "3.11", "3.10")  # the first of them runs the sanitizer builds
# How much of it: kills of the C writer, of children that drive vLLM's scheduler, and of real servers' processes; and
# damaged bytes tried on the reader.
AMOUNTS = {
    "quick": {"PM_KILLS": "1000", "PM_HARNESS_KILLS": "20", "PM_TEST_ROUNDS": "5000"},
    "full": {"PM_KILLS": "20000", "PM_HARNESS_KILLS": "200", "PM_SERVER_KILLS": "3"},
    "soak": {"PM_KILLS": "200000", "PM_HARNESS_KILLS": "2000", "PM_SERVER_KILLS": "60", "PM_TEST_ROUNDS": "1000000"},
}
# preset: the runtime that is loaded before a plain interpreter, and how it is set there
# (die_after_fork=0: the thread sanitizer else ends a child of fork() that starts a thread, as a recorder's does.)
SANITIZERS = {
    "asan": ("libasan.so", {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1"}),
    "tsan": ("libtsan.so", {"TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0:die_after_fork=0"}),
}
# Tests of the extension that start a shell or close standard error, which a process does not survive that has the
# thread sanitizer's runtime loaded before it: no fault of what is tested, the other builds run them.
NOT_UNDER = {
    "tsan": (
        "test_closed_standard_error",
        "test_the_root_writes_the_files_at_its_end",
        "test_however_the_root_ends",
        "test_ctrl_c",
        "test_a_root_that_only_started_others",
        "test_a_slow_export_is_left_running",
        "test_under_run_the_first_server_is_the_one_that_was_meant",
    )
}
SANITIZED_AMOUNTS = {"PM_KILLS": "400", "PM_TEST_ROUNDS": "2000"}
JOBS = str(min(os.cpu_count() or 1, int(os.environ.get("PM_JOBS", "64"))))


class Count:
    def __init__(self):
        self.passed = 0
        self.failures = []  # (name, what happened)
        self.skips = []  # (name, reason)

    def add(self, other):
        self.passed += other.passed
        self.failures += other.failures
        self.skips += other.skips

    def __len__(self):
        return self.passed + len(self.failures) + len(self.skips)


def say(text):
    print(text, flush=True)


def run(log, command, environment=None, timeout=3600):
    """Runs a command with its output in a log; returns its exit status (or -9 after the timeout)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        print("$", *command, file=out, flush=True)
        try:
            return subprocess.run(
                [str(word) for word in command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, timeout=timeout, env={**os.environ, **(environment or {})},
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            print(f"\nkilled after {timeout} s", file=out)
            return -9
        except OSError as error:
            print(f"\n{error}", file=out)
            return -1


def tail(path, lines=30):
    text = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join("    " + line for line in text[-lines:])


def first_line(text, default=""):
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), default)


def from_pytest(report, suite):
    count = Count()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{suite}: {case.get('classname', '')}.{case.get('name', '')}"
        if (skipped := case.find("skipped")) is not None:
            count.skips.append((name, first_line(skipped.get("message"), "no reason given")))
        elif (bad := case.find("failure")) is not None or (bad := case.find("error")) is not None:
            count.failures.append((name, first_line(bad.get("message"))[:300]))
        else:
            count.passed += 1
    return count


# One test of a cmocka program, as it prints it with CMOCKA_MESSAGE_OUTPUT=xml.
CMOCKA_CASE = re.compile(r'<testcase name="([^"]*)"[^>]*?(?:/>|>(.*?)</testcase>)', re.S)


def from_ctest(report, suite):
    count = Count()
    for case in ElementTree.parse(report).iter("testcase"):
        program = f"{suite}: {case.get('name')}"
        status = case.get("status")
        output = case.findtext("system-out") or ""
        inner = Count()
        for name, body in CMOCKA_CASE.findall(output):
            if "<skipped" in body:
                inner.skips.append((f"{program}.{name}", "skipped by the program"))
            elif "<failure" in body or "<error" in body:
                why = first_line(re.sub(r"<[^>]*>|<!\[CDATA\[|\]\]>", "", body), "failed")
                inner.failures.append((f"{program}.{name}", why[:300]))
            else:
                inner.passed += 1
        if status == "run" and not len(inner):
            inner.passed = 1  # a test that is no cmocka program
        if status in ("disabled", "notrun") or (skipped := case.find("skipped")) is not None:
            reason = "did not run" if status in ("disabled", "notrun") else skipped.get("message", "")
            inner.failures.append((program, f"did not run: {reason}"))
        elif status != "run" and not inner.failures:
            bad = case.find("failure")
            inner.failures.append((program, (bad.get("message") if bad is not None else "") or "ended badly"))
        count.add(inner)
    return count


class Runner:
    def __init__(self, options):
        self.options = options
        self.total = Count()
        self.venv_python = None

    def suite(self, name, parts):
        """Runs the parts, (log name, command, report, reader, environment) each, and adds up what they report."""
        say(f"== {name}")
        began, count = time.monotonic(), Count()
        for title, command, report, reader, environment in parts:
            log = LOGS / f"{title}.log"
            report.unlink(missing_ok=True)
            status = run(log, command, environment)
            part = Count()
            try:
                part = reader(report, title)
            except (OSError, ElementTree.ParseError) as error:
                part.failures.append((title, f"left no report ({error}), exit status {status}; see {log}"))
            if not len(part):
                part.failures.append((title, f"ran no test, exit status {status}; see {log}"))
            elif status != 0 and not part.failures:
                part.failures.append((title, f"exit status {status}; see {log}"))
            if part.failures:
                say(tail(log))
            count.add(part)
        self.total.add(count)
        say(
            f"   {count.passed} passed, {len(count.failures)} failed, {len(count.skips)} skipped"
            f" in {time.monotonic() - began:.0f} s"
        )

    def broken(self, name, what):
        say(f"== {name}\n   {what}")
        self.total.failures.append((name, what))

    def build(self, preset):
        """Configures and builds a preset; False, with a failure counted, when that does not work."""
        say(f"== build {preset}")
        began = time.monotonic()
        for step, command in (
            ("configure", ("cmake", "--preset", preset)),
            ("build", ("cmake", "--build", "--preset", preset, "--parallel", JOBS)),
        ):
            log = LOGS / f"{step}-{preset}.log"
            if run(log, command) != 0:
                say(tail(log))
                self.total.failures.append((f"build {preset}", f"{step} failed; see {log}"))
                return False
        say(f"   built in {time.monotonic() - began:.0f} s")
        return True

    def unit(self, preset):
        report = LOGS / f"unit-{preset}.xml"
        timeout = "1200" if self.options.mode == "soak" else "600"
        command = (
            "ctest", "--test-dir", f"build/{preset}", "--output-junit", report, "--parallel", JOBS,
            "--timeout", timeout, "--test-output-size-passed", "50000000", "--test-output-size-failed", "50000000",
        )  # fmt: skip
        environment = {
            "CMOCKA_MESSAGE_OUTPUT": "xml",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1",
            "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
            **(SANITIZED_AMOUNTS if preset in SANITIZERS else {}),
        }
        self.suite(f"unit tests in C, {preset} build", [(f"unit-{preset}", command, report, from_ctest, environment)])

    def pytest(self, title, python, folder, environment=None, more=()):
        report = LOGS / f"{title}.xml"
        marks = ("-m", "not slow") if self.options.mode == "quick" else ()
        command = (python, "-m", "pytest", folder, "-q", "-ra", "--junit-xml", report, *marks, *more)
        return (
            title,
            command,
            report,
            from_pytest,
            {"PM_BUILD": str(ROOT / "build" / "release"), **(environment or {})},
        )

    def vllm(self):
        """The environment with vLLM in it, made if need be; None, with a failure counted, when that fails."""
        if self.venv_python is None:
            result = subprocess.run([ROOT / "scripts" / "setup-vllm"], stdout=subprocess.PIPE, text=True)
            if result.returncode != 0:
                self.broken("vLLM", "scripts/setup-vllm failed; see build/setup-vllm.log")
                self.venv_python = False
            else:
                self.venv_python = str(Path(result.stdout.strip()) / "bin" / "python")
        return self.venv_python or None

    def extension(self):
        """The extension's tests, on each CPython by itself; where vLLM's environment has that version, in it."""
        parts = []
        older = [path for version in OLDER_PYTHONS if (path := self.interpreter(version))]
        vllm = self.vllm()
        for version in PYTHONS:
            title, bare = f"ext-{version}", self.interpreter(version)
            if bare is None:
                self.total.skips.append((title, f"no CPython {version} on the PATH or under pyenv"))
                continue
            python = vllm if vllm and self.version_of(vllm) == version else self.small_environment(version)
            if python:
                environment = {"PM_PYTHONS": os.pathsep.join([bare, *older])}
                parts.append(self.pytest(title, python, "tests/ext", environment))
        if parts:
            self.suite("extension", parts)
        else:
            self.broken("extension", "no CPython to run it on")

    @staticmethod
    def version_of(python):
        command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip()

    def interpreter(self, version):
        """A bare CPython of that version; None where there is none."""
        script = f'. scripts/lib.sh; python_named "{version}"'
        found = subprocess.run(["bash", "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        return found.stdout.strip() if found.returncode == 0 else None

    def small_environment(self, version):
        """Its interpreter; None where there is no such CPython, "" (a failure, counted) when it cannot be made."""
        command = [ROOT / "scripts" / "setup-python", version]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if result.returncode == 3:
            return None
        if result.returncode != 0:
            self.broken(f"ext-{version}", f"scripts/setup-python failed; see build/setup-python-{version}.log")
            return ""
        return result.stdout.strip()

    def extension_sanitized(self, preset, library, environment):
        """The extension's tests with a sanitizer's runtime loaded before the interpreter."""
        compiler = shutil.which("gcc") or "gcc"
        found = subprocess.run([compiler, f"-print-file-name={library}"], stdout=subprocess.PIPE, text=True)
        path = found.stdout.strip()
        title = f"ext-{preset}"
        version = next(filter(self.interpreter, SANITIZED_PYTHONS), None)
        python = self.small_environment(version) if version else None
        if not python:
            self.total.skips.append((title, "no CPython to run it on"))
            return
        if not os.path.isabs(path):
            self.total.skips.append((title, f"{compiler} has no {library}"))
            return
        more = {"PM_BUILD": str(ROOT / "build" / preset), "PM_SANITIZED": library, "LD_PRELOAD": path, **environment}
        more["PM_PYTHONS"] = self.interpreter(version)
        left_out = NOT_UNDER.get(preset, ()) if self.runtime_breaks_shells(path) else ()
        for test in left_out:
            self.total.skips.append(
                (f"{title}: {test}", f"starts a shell or closes stderr, which {library} loaded first does not survive")
            )
        chosen = ("-k", "not " + " and not ".join(left_out)) if left_out else ()
        self.suite(f"extension, {preset} build", [self.pytest(title, python, "tests/ext", more, chosen)])

    @staticmethod
    def runtime_breaks_shells(path):
        environment = {**os.environ, "LD_PRELOAD": path}
        return subprocess.run(["/bin/sh", "-c", ":"], env=environment, stderr=subprocess.DEVNULL).returncode != 0

    def main(self):
        began, mode = time.monotonic(), self.options.mode
        chosen = self.options.suite or ["repo", "unit", "ext", "cli", "docs", "e2e"] + (
            [] if mode == "quick" else ["sanitizers"]
        )
        LOGS.mkdir(parents=True, exist_ok=True)
        for name, value in AMOUNTS[mode].items():
            os.environ.setdefault(name, value)

        if self.build("release"):
            if "unit" in chosen:
                self.unit("release")
            if "ext" in chosen:
                self.extension()
            for name, title in SUITES:
                if name in chosen and (python := self.vllm()):
                    self.suite(title, [self.pytest(name, python, f"tests/{name}")])
        if "sanitizers" in chosen:
            for preset, (library, environment) in SANITIZERS.items():
                if self.build(preset):
                    self.unit(preset)
                    self.extension_sanitized(preset, library, environment)
        return self.report(time.monotonic() - began)

    def report(self, seconds):
        total = self.total
        if total.skips:
            say("\nskipped:")
            for name, reason in total.skips:
                say(f"  {name}: {reason}")
        if total.failures:
            say("\nfailed:")
            for name, what in total.failures:
                say(f"  {name}: {what}")
        say(f"\n{seconds / 60:.1f} minutes; logs in {LOGS}")
        say(f"{total.passed} passed, {len(total.failures)} failed, {len(total.skips)} skipped")
        return 1 if total.failures or not total.passed else 0


def main():
    parser = argparse.ArgumentParser(prog="./test", description="Builds ProfileMate and runs its tests.")
    parser.add_argument("mode", nargs="?", choices=("full", "quick", "soak"), default="full")
    parser.add_argument(
        "--suite", action="append", choices=("repo", "unit", "ext", "cli", "docs", "e2e", "sanitizers"),
        help="only this one (may be repeated)",
    )  # fmt: skip
    return Runner(parser.parse_args()).main()


if __name__ == "__main__":
    sys.exit(main())
