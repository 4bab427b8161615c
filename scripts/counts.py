"""What the reports of ctest and pytest (JUnit's XML) say: passed, failed and skipped tests."""

import re
import xml.etree.ElementTree as ElementTree


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


def first_line(text, default=""):
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), default)


def module_of(case):
    """The file of a test of pytest: tests.e2e.test_kill.TestAll is in tests/e2e/test_kill.py."""
    words = case.get("classname", "").split(".")
    while words and not words[-1].startswith("test_"):
        words.pop()
    return "/".join(words) + ".py"


def from_pytest(report, suite, without=()):
    """The tests of a report but those of the modules without."""
    count = Count()
    for case in ElementTree.parse(report).iter("testcase"):
        if module_of(case) in without:
            continue
        name = f"{suite}: {case.get('classname', '')}.{case.get('name', '')}"
        if (skipped := case.find("skipped")) is not None:
            count.skips.append((name, first_line(skipped.get("message"), "no reason given")))
        elif (bad := case.find("failure")) is not None or (bad := case.find("error")) is not None:
            count.failures.append((name, first_line(bad.get("message"))[:300]))
        else:
            count.passed += 1
    return count


def failed_modules(report):
    """{file of tests: (when it began, when its last failed test had failed)}, CLOCK_MONOTONIC in s as tests/conftest.py
    wrote them, of each module with a failure; both None where nothing was written."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is None and case.find("error") is None:
            continue
        told = {each.get("name"): float(each.get("value")) for each in case.iter("property")}
        module, began, failed = module_of(case), told.get("module_began"), told.get("failed_at")
        had = found.get(module, (began, failed))
        known = None not in (began, failed, *had)
        found[module] = (min(had[0], began), max(had[1], failed)) if known else (None, None)
    return found


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
