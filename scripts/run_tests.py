#!/usr/bin/env python3
"""Builds, runs every suite, and counts: what ./test does after the system's packages have been seen to.

A suite is a list of commands, each leaving a report (ctest's or pytest's JUnit file) in build/test-logs/. Tests in C
programs are counted one by one, from the XML that cmocka prints. A suite that cannot start, or that ran nothing,
counts as one failure. The runs of real vLLM, which leave a processor idle most of the time, go beside all the others.

A module of pytest's that failed while the machine stood still (scripts/stalls.py) is run once more, and this is told.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from counts import Count, failed_modules, from_ctest, from_pytest
from stalls import Stalls

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "test-logs"
# Those that pytest runs with vLLM's interpreter: the folder under tests/, and what it is called.
SUITES = (
    ("repo", "repository"), ("static", "static checks"), ("compat", "vLLM releases"), ("cli", "program"),
    ("docs", "documents"),
)  # fmt: skip
PYTHONS = ("3.11", "3.10", "3.12", "3.13", "3.14")  # what the extension runs on
PACKAGE_PYTHONS = ("3.11", "3.12", "3.13")  # of which one runs the Python package's tests
OLDER_PYTHONS = ("3.8", "3.9")  # on which it must keep quiet
SANITIZED_PYTHONS = ("3.12", "3.13", "3.11", "3.10")  # the first of them runs the sanitizer builds
# How much of it: kills of the C writer, of children that drive vLLM's scheduler, and of real servers' processes; and
# damaged bytes tried on the reader.
AMOUNTS = {
    "quick": {"PM_KILLS": "1000", "PM_HARNESS_KILLS": "20", "PM_TEST_ROUNDS": "5000"},
    "full": {"PM_KILLS": "20000", "PM_HARNESS_KILLS": "200", "PM_SERVER_KILLS": "3"},
    "soak": {
        "PM_KILLS": "200000", "PM_HARNESS_KILLS": "2000", "PM_SERVER_KILLS": "60", "PM_TEST_ROUNDS": "1000000",
        "PM_STATIC": "all",
    },  # fmt: skip
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


class Runner:
    def __init__(self, options):
        self.options = options
        self.total = Count()
        self.venv_python = None
        self.stalls = Stalls()
        self.counting = threading.Lock()  # two suites may end at once
        self.again = []  # (module of tests, why it ran once more)

    def suite(self, name, parts):
        """Runs the parts, (log name, command, report, reader, environment) each, and adds up what they report."""
        began, count, said = time.monotonic(), Count(), [f"== {name}"]
        for part in parts:
            one = self.part(said, *part)
            if part[3] is from_pytest and one.failures:
                one = self.once_more(said, one, *part)
            count.add(one)
        said.append(
            f"   {count.passed} passed, {len(count.failures)} failed, {len(count.skips)} skipped"
            f" in {time.monotonic() - began:.0f} s"
        )
        with self.counting:
            self.total.add(count)
            say("\n".join(said))

    @staticmethod
    def part(said, title, command, report, reader, environment):
        log = LOGS / f"{title}.log"
        report.unlink(missing_ok=True)
        status = run(log, command, environment)
        count = Count()
        try:
            count = reader(report, title)
        except (OSError, ElementTree.ParseError) as error:
            count.failures.append((title, f"left no report ({error}), exit status {status}; see {log}"))
        if not len(count):
            count.failures.append((title, f"ran no test, exit status {status}; see {log}"))
        elif status != 0 and not count.failures:
            count.failures.append((title, f"exit status {status}; see {log}"))
        if count.failures:
            said.append(tail(log))
        return count

    def once_more(self, said, count, title, command, report, reader, environment):
        """The count with the modules that failed while the machine stood still run anew."""
        if not report.exists():
            return count
        stood = {}
        for module, (began, failed) in failed_modules(report).items():
            if began is not None and (why := self.stalls.told(began, failed)) and (ROOT / module).exists():
                stood[module] = why
        if not stood:
            return count
        said += [f"   {module}: {why}: it is run once more" for module, why in stood.items()]
        anew = report.with_name(f"{title}-again.xml")
        words = [anew if word is report else word for word in command]
        place = words.index(next(word for word in words if str(word).startswith("tests/")))
        words[place : place + 1] = stood
        second = self.part(said, f"{title}-again", words, anew, reader, environment)
        first = from_pytest(report, title, without=stood)
        first.add(second)
        with self.counting:
            self.again += stood.items()
        return first

    def broken(self, name, what):
        with self.counting:
            say(f"== {name}\n   {what}")
            self.total.failures.append((name, what))

    def build(self, preset):
        """Configures and builds a preset; False, with a failure counted, when that does not work."""
        began = time.monotonic()
        for step, command in (
            ("configure", ("cmake", "--preset", preset)),
            ("build", ("cmake", "--build", "--preset", preset, "--parallel", JOBS)),
        ):
            log = LOGS / f"{step}-{preset}.log"
            if run(log, command) != 0:
                self.broken(f"build {preset}", f"{step} failed; see {log}\n{tail(log)}")
                return False
        say(f"== build {preset}\n   built in {time.monotonic() - began:.0f} s")
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

    def package_environment(self):
        """On the first CPython that has wheels of all that reads what the package gives: the documents' tests and those of
        real vLLM use it too."""
        version = next(filter(self.interpreter, PACKAGE_PYTHONS), None)
        if version is None:
            self.total.skips.append(("package", f"no CPython {', '.join(PACKAGE_PYTHONS)} to run it on"))
        elif python := self.small_environment(version, "package"):
            os.environ.setdefault("PM_PACKAGE_PYTHON", python)

    def package(self):
        if python := os.environ.get("PM_PACKAGE_PYTHON"):
            others = [path for each in PYTHONS if (path := self.interpreter(each))]
            environment = {"PM_PYTHONS": os.pathsep.join(others)}
            self.suite("Python package", [self.pytest("package", python, "tests/package", environment)])
            if self.options.mode != "quick":
                self.spark()

    def spark(self):
        """Of the package's tests those that need Apache Spark, in an environment of its own (450 MB)."""
        version = next(filter(self.interpreter, PACKAGE_PYTHONS), "")
        command = [ROOT / "scripts" / "setup-python", version, "spark"]
        if not shutil.which("java"):
            self.total.skips.append(("spark", "no Java to run Spark on (Debian: default-jre-headless)"))
            return
        made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if made.returncode != 0:
            self.total.skips.append(("spark", f"pyspark cannot be had; see build/setup-python-{version}.log"))
            return
        part = self.pytest("spark", made.stdout.strip(), "tests/package", more=("-k", "spark or engines"))
        self.suite("Apache Spark", [part])

    def small_environment(self, version, kind="ext"):
        """Its interpreter; None where there is no such CPython, "" (a failure, counted) when it cannot be made."""
        command = [ROOT / "scripts" / "setup-python", version, kind]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if result.returncode == 3:
            return None
        if result.returncode != 0:
            self.broken(f"{kind}-{version}", f"scripts/setup-python failed; see build/setup-python-{version}.log")
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
        chosen = self.options.suite or ["repo", "static", "compat", "unit", "ext", "cli", "package", "docs", "e2e"] + (
            [] if mode == "quick" else ["sanitizers"]
        )
        LOGS.mkdir(parents=True, exist_ok=True)
        for name, value in AMOUNTS[mode].items():
            os.environ.setdefault(name, value)

        if not self.build("release"):
            return self.report(time.monotonic() - began)
        if {"package", "docs", "e2e"} & set(chosen):
            self.package_environment()
        beside = None
        if "e2e" in chosen and (python := self.vllm()):
            say("== real vLLM: it runs beside the suites that follow")
            part = self.pytest("e2e", python, "tests/e2e")
            beside = threading.Thread(target=self.suite, args=("real vLLM", [part]))
            beside.start()
        if "unit" in chosen:
            self.unit("release")
        if "ext" in chosen:
            self.extension()
        if "package" in chosen:
            self.package()
        for name, title in SUITES:
            if name in chosen and (python := self.vllm()):
                self.suite(title, [self.pytest(name, python, f"tests/{name}")])
        if "sanitizers" in chosen:
            for preset, (library, environment) in SANITIZERS.items():
                if self.build(preset):
                    self.unit(preset)
                    self.extension_sanitized(preset, library, environment)
        if beside:
            beside.join()
        return self.report(time.monotonic() - began)

    def report(self, seconds):
        total = self.total
        if self.again:
            say("\nrun once more:")
            for module, why in self.again:
                say(f"  {module}: {why}")
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
        "--suite", action="append",
        choices=("repo", "static", "compat", "unit", "ext", "cli", "package", "docs", "e2e", "sanitizers"),
        help="only this one (may be repeated)",
    )  # fmt: skip
    options = parser.parse_args()
    # A script's `./test &` ignores these two; the tests send them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    return Runner(options).main()


if __name__ == "__main__":
    sys.exit(main())
