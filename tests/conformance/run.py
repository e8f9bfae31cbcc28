"""The same requests to Kafka and to Millrace, their answers compared field by field; ids and times are masked, nothing else.

A case is a function of (side, version) in one of the cases_*.py files; what it returns is compared. What may differ, and why,
stands in exceptions.py and nowhere else.
"""

import argparse
import concurrent.futures
import pathlib
import re
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from harness import server  # noqa: E402
from harness.report import Report, short  # noqa: E402
import cases_admin  # noqa: E402, F401
import cases_data  # noqa: E402, F401
import cases_frames  # noqa: E402, F401
import cases_groups  # noqa: E402, F401
import cases_restarts  # noqa: E402, F401
import exceptions  # noqa: E402
from sides import CASES, External, Side  # noqa: E402

# Times and generated names in messages.
NUMBERS = re.compile(r"-?\d{5,}|v\d+")

# What a case that cannot run says; on Kafka it is the suite's own mistake.
BROKEN = "the case cannot run"

CONFIG = {
    # A first answer to an unknown topic must not depend on how fast a broker creates one.
    "auto.create.topics.enable": "false",
    "group.min.session.timeout.ms": "1000",
}


def differences(expected, got, path=""):
    """(path, expected, got) of every field that differs."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in list(expected) + [key for key in got if key not in expected]:
            left, right = expected.get(key, "(absent)"), got.get(key, "(absent)")
            yield from differences(left, right, f"{path}.{key}" if path else key)
    elif isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            yield (f"{path}.length", len(expected), len(got))
        for index, (left, right) in enumerate(zip(expected, got)):
            yield from differences(left, right, f"{path}[{index}]")
    elif expected != got or type(expected) is not type(got):
        yield (path, expected, got)


def answered(side, case, version):
    started = time.monotonic()
    try:
        return side.masked(case.work(side, version)), time.monotonic() - started
    except Exception:
        return f"{BROKEN}: {traceback.format_exc()}", time.monotonic() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=["millrace", "kafka"], default="millrace", help="what is compared with Kafka")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--filter", help="only cases whose name matches this regular expression")
    parser.add_argument("--messages", action="store_true", help="a differing error message is a failure, not a note")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a running Kafka instead of one of our own")
    parser.add_argument("--other", metavar="HOST:PORT", help="a running broker to compare with it")
    options = parser.parse_args()
    report = Report(options.filter)
    run = server.INTEROP / "run"
    kafka = External(options.kafka) if options.kafka else server.Server("kafka", run / "conformance-reference", overrides=CONFIG)
    other = External(options.other) if options.other else server.Server(options.broker, run / f"conformance-{options.broker}", options.cores, CONFIG)
    kafka.start()
    other.start()
    sides = [Side("Kafka", kafka), Side(options.broker.capitalize(), other)]
    requests = 0
    messages = set()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for case in CASES:
            for version in case.versions:
                name = f"{case.api} v{version}: {case.name}" if version is not None else f"{case.api}: {case.name}"
                if not report.wants(name):
                    continue
                (expected, _), (got, _) = pool.map(lambda side: answered(side, case, version), sides)
                if isinstance(expected, str) and expected.startswith(BROKEN):
                    report.fail(name, f"on Kafka, {expected}")
                    continue
                found = list(differences(expected, got))
                allowed = [one for one in found if exceptions.reason(name, one[0], one[1], one[2])]
                found = [one for one in found if one not in allowed]
                only_messages = [one for one in found if one[0].endswith("Message") and one[1] is not None and one[2] is not None]
                if not options.messages:
                    for path, left, right in only_messages:
                        messages.add((case.api, path.split(".")[-1], NUMBERS.sub("N", short(left)), NUMBERS.sub("N", short(right))))
                    found = [one for one in found if one not in only_messages]
                report.check(name, not found, lambda: "\n".join(f"{path}: Kafka {short(left, 300)}, here {short(right, 300)}" for path, left, right in found[:12]))
                if not other.alive():
                    report.fail(name, f"the broker died:\n{other.log_tail()}")
                    break
    for api, field, left, right in sorted(one for one in messages if one[2] != one[3]):
        report.note(f"{api}: {field}: Kafka says {left}, here {right}")
    requests = sum(side.requests for side in sides)
    report.note(f"{requests} requests were sent, {requests // 2} to each broker")
    for broker in (kafka, other):
        broker.kill()
    report.finish()


if __name__ == "__main__":
    main()
