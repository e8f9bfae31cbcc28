"""Rounds of load with acks=all on a file system that forgets at a power cut what was not fsynced (`harness/forgetful.py`);
after each, everything acknowledged must be there (`harness/promises.py`). In every second round batches come that are so large
that they are written straight to their segments; that they were is read from the broker's metrics.
"""

import argparse
import os
import pathlib
import random
import shutil
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import forgetful, server  # noqa: E402
from harness.promises import PARTITIONS, TOPIC, Acknowledged, Load, configure, create, delete, verify  # noqa: E402
from harness.report import Report  # noqa: E402


MIB = 1 << 20
# Small segments, so that many are closed; in rounds with large batches some that several of those fit into.
SEGMENT_BYTES = 1 * MIB
SEGMENT_BYTES_LARGE = 16 * MIB
# Of large batches in a round that has them: all is read back after each.
LARGE_BYTES = 24 * MIB


def straight_writes(http_port):
    """How many there were since the broker's start, as its metrics tell."""
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = [float(line.split()[-1]) for line in lines if line.startswith("millrace_straight_writes_total")]
    assert found, "the metrics tell nothing of straight writes"
    return int(sum(found))


def power_cut(broker, disk, chance, frozen):
    """Ends the broker and the power; what was lost, in words."""
    if frozen:
        # The disk stops in the middle of what it does; the broker learns nothing of it.
        disk.freeze()
        time.sleep(chance.uniform(0.0, 0.05))
        broker.process.kill()
    else:
        broker.kill()
    seed = chance.getrandbits(32)
    lost = disk.cut(seed)
    broker.kill()
    return ", ".join(f"{name} {value}" for name, value in lost.items()) + f", seed of the cut {seed}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=["millrace", "kafka"], default="millrace")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    report = Report()
    why = forgetful.why_not()
    if why is not None:
        report.fail("a file system can be mounted here", f"{why}\nrun it as root, or where unprivileged user namespaces and /dev/fuse are allowed")
        report.finish()
    forgetful.private_mounts()
    chance = random.Random(options.seed)
    overrides = {"log.segment.bytes": str(SEGMENT_BYTES)}
    http_port = server.free_port()
    if options.broker == "millrace":
        overrides["http.listener"] = f"127.0.0.1:{http_port}"
    if options.broker == "kafka":
        # Its default keeps nearly nothing.
        overrides["log.flush.interval.messages"] = "1"
    directory = server.INTEROP / "run" / f"powercut-{options.broker}"
    broker = server.Server(options.broker, directory, chance.randint(1, len(os.sched_getaffinity(0))), overrides)
    features = ["no-fallocate"] if options.broker == "millrace" and chance.random() < 0.3 else []
    disk = forgetful.Forgetful(broker.data, *features)
    report.note(f"seed {options.seed}; the file system {' and '.join(features) or 'has everything'}")
    promised = Acknowledged()
    broker.start()
    promised.topics[TOPIC] = create(broker, TOPIC, PARTITIONS)
    time.sleep(0.5)
    load = Load(broker, promised, options.seed)
    broken, before, straight = False, 0, 0
    try:
        for number in range(1, options.rounds + 1):
            name = f"power cut {number}"
            large = number % 2 == 0
            configure(broker, TOPIC, "segment.bytes", SEGMENT_BYTES_LARGE if large else SEGMENT_BYTES)
            load.large_bytes = LARGE_BYTES if large else 0
            time.sleep(chance.uniform(0.3, 2.5))
            if not report.check(f"{name}: the broker lived until then", broker.alive(), broker.log_tail):
                break
            promised.topics[f"made-in-round-{number}"] = create(broker, f"made-in-round-{number}", 2)
            if number > 2:
                gone = f"made-in-round-{number - 2}"
                delete(broker, gone)
                del promised.topics[gone]
                promised.deleted.add(gone)
            if large and options.broker == "millrace":
                # However slow the machine is, and however much the last cut left to be written first: this one comes when some
                # of them are under way.
                deadline = time.monotonic() + 60
                while not (hits := straight_writes(http_port)) and time.monotonic() < deadline:
                    load.large_bytes = max(load.large_bytes, 2 * MIB)
                    time.sleep(0.05)
                straight += hits
                report.check(f"{name}: batches were written straight to their segments", hits > 0, lambda: broker.log_tail())
            lost = power_cut(broker, disk, chance, chance.random() < 0.5)
            load.large_bytes = 0
            if chance.random() < 0.3:
                # And again while it recovers, or right after.
                broker.start()
                time.sleep(chance.uniform(0.0, 0.3))
                lost += "; then " + power_cut(broker, disk, chance, chance.random() < 0.5)
            if options.broker == "millrace":
                # The number of cores may change between starts.
                broker.cores = chance.randint(1, len(os.sched_getaffinity(0)))
            seconds = broker.start()
            try:
                count, wrong = load.verified()
            except AssertionError as error:
                count, wrong = len(promised.records), [str(error)]
            broken |= bool(wrong)
            before, new = count, count - before
            report.note(f"{name}: {lost}; the restart on {broker.cores} cores took {seconds:.2f} s")
            report.check(
                f"{name}: all {count} acknowledged records ({new} new) are there once, at their offsets", not wrong,
                "\n".join(wrong) + f"\nseed {options.seed}\n{broker.log_tail(20)}",
            )
            if load.fatal or broken:
                break
        if options.broker == "millrace":
            report.note(f"{straight} straight writes were seen before the cuts")
        load.stop()
        report.check("the producers went on through every cut", not load.fatal, "\n".join(load.fatal))
        count, wrong = verify(broker, promised)
        report.check(f"in the end all {count} acknowledged records are there", not wrong and count > 0, "\n".join(wrong))
    except AssertionError as error:
        report.fail("the broker serves", f"{error}\nseed {options.seed}")
    finally:
        load.stopping.set()
        broker.kill()
        disk.close()
        shutil.rmtree(directory / "data", ignore_errors=True)
    report.finish()


if __name__ == "__main__":
    main()
