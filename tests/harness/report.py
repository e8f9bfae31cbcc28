"""Counts checks and says, for each that fails, what was expected. Knows no client and no broker."""

import re
import sys
import time
import traceback


class Report:
    """Cases by name; `finish` prints the total in the form that `cargo xtask` reads."""

    def __init__(self, name_filter=None):
        self.passed = 0
        self.failed = []
        self.name_filter = re.compile(name_filter) if name_filter else None

    def wants(self, name):
        return self.name_filter is None or self.name_filter.search(name) is not None

    def ok(self, name, seconds=None):
        self.passed += 1
        print(f"PASS  {name}" + (f"  ({seconds:.1f} s)" if seconds is not None else ""))

    def fail(self, name, why):
        self.failed.append(name)
        print(f"FAIL  {name}")
        for line in str(why).rstrip().splitlines():
            print(f"      {line}")

    def check(self, name, condition, why=""):
        if condition:
            self.ok(name)
        else:
            self.fail(name, why() if callable(why) else why)
        return bool(condition)

    def equal(self, name, expected, got):
        return self.check(name, expected == got, lambda: f"expected: {short(expected)}\ngot:      {short(got)}")

    def case(self, name, work):
        """Runs work(); an exception is the failure."""
        if not self.wants(name):
            return None
        started = time.monotonic()
        try:
            result = work()
        except AssertionError as error:
            self.fail(name, error)
            return None
        except Exception:
            self.fail(name, traceback.format_exc())
            return None
        self.ok(name, time.monotonic() - started)
        return result

    def note(self, text):
        print(f"NOTE  {text}")

    def finish(self):
        for name in self.failed:
            print(f"failed: {name}")
        print(f"{self.passed} passed, {len(self.failed)} failed")
        sys.exit(1 if self.failed or self.passed == 0 else 0)


def short(value, length=600):
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"
