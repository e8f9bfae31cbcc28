"""Rounds of load with acks=all, `kill -9` or SIGTERM, restart; after each, everything acknowledged must be there
(`harness/promises.py`).
"""

import argparse
import pathlib
import random
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import server  # noqa: E402
from harness.promises import PARTITIONS, TOPIC, Acknowledged, Load, create, verify  # noqa: E402
from harness.report import Report  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=["millrace", "kafka"], default="millrace")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    report = Report()
    chance = random.Random(options.seed)
    report.note(f"seed {options.seed}")
    overrides = {"log.segment.bytes": str(4 << 20)}
    broker = server.Server(options.broker, server.INTEROP / "run" / f"crash-{options.broker}", options.cores, overrides)
    promised = Acknowledged()
    broker.start()
    promised.topics[TOPIC] = create(broker, TOPIC, PARTITIONS)
    time.sleep(0.5)
    load = Load(broker, promised, options.seed)
    try:
        for number in range(1, options.rounds + 1):
            how = "SIGTERM" if number % 3 == 0 else "kill -9"
            name = f"round {number}: {how}"
            time.sleep(chance.uniform(1.0, 3.0))
            before = len(promised.records)
            if not report.check(f"{name}: the broker lived until then", broker.alive(), broker.log_tail):
                break
            promised.topics[f"made-in-round-{number}"] = create(broker, f"made-in-round-{number}", 2)
            if how == "SIGTERM":
                code = broker.stop()
                report.check(f"{name}: exit code", code == (0 if options.broker == "millrace" else 143), f"expected 0, got {code}\n{broker.log_tail()}")
            else:
                broker.kill()
                if number % 4 == 1:
                    # A crash during recovery.
                    broker.start()
                    time.sleep(chance.uniform(0.0, 0.2))
                    broker.kill()
            seconds = broker.start()
            try:
                count, wrong = load.verified()
            except AssertionError as error:
                count, wrong = len(promised.records), [str(error)]
            report.check(
                f"{name}: all {count} acknowledged records ({count - before} new) are there once, at their offsets; the restart took {seconds:.2f} s",
                not wrong, "\n".join(wrong) + f"\nseed {options.seed}\n{broker.log_tail(10)}",
            )
            if load.fatal:
                break
        load.stop()
        report.check("the producers went on through every round", not load.fatal, "\n".join(load.fatal))
        count, wrong = verify(broker, promised)
        report.check(f"in the end all {count} acknowledged records are there", not wrong and count > 0, "\n".join(wrong))
    except AssertionError as error:
        report.fail("the broker serves", f"{error}\nseed {options.seed}")
    finally:
        load.stopping.set()
        broker.kill()
    report.finish()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
