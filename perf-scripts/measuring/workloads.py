"""The loads of the speed table with their bars, and the generator that drives them.

Knows `millrace bench load` and its JSON; knows no broker.
"""

import json
import os
import subprocess
import time

from . import brokers, machine

# Others' share of a core beside broker and generator, from which a run says little about either.
OTHERS_SHARE_MAX = 0.2


class Bar:
    """One figure of a side (`of`) against a rival's: `higher` is better for rates, lower for times and costs."""

    def __init__(self, metric, against, must, reach, higher, of="millrace"):
        self.metric = metric
        self.against = against
        self.must = must
        self.reach = reach
        self.higher = higher
        self.of = of

    def verdict(self, ratio):
        met = (lambda bar: ratio >= bar) if self.higher else (lambda bar: ratio <= bar)
        return "reached" if met(self.reach) else "met" if met(self.must) else "NOT MET"

    def told(self, bar):
        return f"{'>=' if self.higher else '<='} {bar:g}"


class Row:
    """A load of the table, and the sides beside `millrace` that it is measured on."""

    def __init__(self, name, title, options, bars, sides=("bare", "kafka"), topic=None):
        self.name = name
        self.title = title
        self.options = options
        self.bars = bars
        self.sides = ("millrace", *sides)
        # With so many partitions that making and deleting them takes longer than a run: a topic of this name, which stays, and
        # which has had records in all of them before anything is measured.
        self.topic = topic


# How each metric is found in the generator's JSON, its unit, and how it is written.
METRICS = {
    "requests/s": lambda run: run["requests_per_second"],
    "records/s": lambda run: run["records_per_second"],
    "MB/s": lambda run: run["mb_per_second"],
    "p50 us": lambda run: run["latency_from_intended_us"]["p50"],
    "p99 us": lambda run: run["latency_from_intended_us"]["p99"],
    "p99.9 us": lambda run: run["latency_from_intended_us"]["p99_9"],
    "p99.99 us": lambda run: run["latency_from_intended_us"]["p99_99"],
    "CPU s/GB": lambda run: run["broker"]["cpu_seconds_per_gb"],
    "CPU s/M requests": lambda run: run["broker"]["cpu_seconds_per_million_requests"],
    "peak MiB": lambda run: run["broker"]["resident_bytes_max"] / 2**20,
    "sleeps/request": lambda run: run["broker"]["voluntary_switches"] / max(run["requests"], 1),
}

# The native protocol is held against Kafka's, over TCP and over its Unix socket: that is for who runs beside the broker.
NATIVE_BARS = [Bar(metric, "millrace", bar, bar, higher, of=side)
               for side in ("native", "native-unix") for metric, bar, higher in (("requests/s", 1.2, True), ("p50 us", 0.9, False))]

# The order in which sides are told.
SIDES = ["millrace", "native", "native-unix", "bare", "kafka", "kafka-flush", "rival", "one", "two"]

ROWS = [
    Row("small", "64 connections x 1 KiB, one in flight each",
        ["--connections", 64, "--record-size", 1024],
        [Bar("requests/s", "bare", 0.6, 1.0, True), Bar("requests/s", "kafka", 1.5, 3, True),
         Bar("requests/s", "kafka-flush", 25, 50, True), Bar("CPU s/M requests", "kafka", 0.4, 0.15, False),
         *NATIVE_BARS],
        ("native", "native-unix", "bare", "kafka", "kafka-flush")),
    Row("shared", "the same, all to one partition",
        ["--connections", 64, "--record-size", 1024, "--partitions", 1],
        [Bar("requests/s", "bare", 0.6, 1.0, True), Bar("requests/s", "kafka", 1.5, 3, True),
         Bar("requests/s", "kafka-flush", 25, 50, True), Bar("CPU s/M requests", "kafka", 0.4, 0.15, False)],
        ("bare", "kafka", "kafka-flush")),
    Row("large", "8 connections x 16 KiB, five in flight",
        ["--connections", 8, "--record-size", 16384, "--in-flight", 5],
        [Bar("MB/s", "bare", 0.7, 1.3, True), Bar("MB/s", "kafka", 1.7, 3, True),
         Bar("CPU s/GB", "kafka", 0.25, 0.12, False)],
        ("bare", "kafka", "kafka-flush")),
    Row("single", "one connection, 1 KiB, one in flight",
        ["--connections", 1, "--record-size", 1024],
        [Bar("p50 us", "bare", 1.3, 1.1, False), Bar("p99 us", "bare", 1.6, 1.2, False), *NATIVE_BARS],
        ("native", "native-unix", "bare", "kafka", "kafka-flush")),
    Row("partitions", "1,000 partitions x 100 B, ten connections",
        ["--connections", 10, "--record-size", 100, "--partitions", 1000],
        [Bar("requests/s", "bare", 0.6, 0.9, True), Bar("requests/s", "kafka-flush", 30, 60, True)],
        ("bare", "kafka", "kafka-flush"), topic="thousand"),
    Row("gathered", "the same, 100 partitions a request",
        ["--connections", 10, "--record-size", 100, "--partitions", 1000, "--partitions-per-request", 100],
        [Bar("requests/s", "bare", 0.5, 0.8, True)],
        ("bare", "kafka", "kafka-flush"), topic="thousand"),
    Row("open", "20,000 x 1 KiB a second, open loop, 64 connections",
        ["--connections", 64, "--record-size", 1024, "--rate", 20000],
        [Bar("p99 us", "bare", 2, 1.3, False), Bar("p99.9 us", "kafka", 0.2, 0.1, False)],
        ("bare", "kafka")),
]

# Requests that bring records to each of a lasting topic's partitions, three times.
PRIMING = ["--connections", 10, "--record-size", 100, "--partitions", 1000, "--requests", 3000, "--drain-seconds", 120]

# Two data cores against one: a row of its own kind, because both sides are Millrace, started anew for each run. The load has
# a core beside one data core, and shares both with two, with a thread on each: what counts is the broker's CPU time. There are
# enough connections that two cores have work all the time; whoever has none sleeps, and sleeping costs too.
CORES = Row("cores", "256 connections x 1 KiB, two data cores against one",
            ["--connections", 256, "--record-size", 1024],
            [Bar("CPU s/M requests", "one", 1.15, 1.05, False, of="two")], ())
CORES.sides = ("one", "two")


def chosen(names, beside=()):
    """The names of rows, separated by commas, as a list; all, and those `beside`, without. "none" is no row."""
    known = [row.name for row in ROWS] + list(beside)
    if not names:
        return known
    wanted = [name for name in names.split(",") if name != "none"]
    for name in wanted:
        if name not in known:
            raise SystemExit(f"no row {name}; there are {', '.join(known)}, none")
    return wanted


def row_of(name):
    """The row of this name; None for what is no load of the generator's."""
    return next((row for row in [*ROWS, CORES] if row.name == name), None)


class LoadFailed(SystemExit):
    """The generator did not come to its end: a broker that does not answer, above all. Ends the script, unless somebody goes on without this run."""


def _others(pid):
    """CPU seconds so far of everything but this broker, this script and its children."""
    own = os.times()
    own = own.user + own.system + own.children_user + own.children_system
    return machine.busy_seconds() - own - (machine.usage(pid)["cpu_seconds"] if pid else 0)


def prime(binary, address, core, topic, configs):
    """Makes a lasting topic, and brings records to all of its partitions."""
    command = [binary, "bench", "load", "--bootstrap-server", address, "--core", core, *PRIMING, "--topic", topic, "--create-topic"]
    for config in configs:
        command += ["--topic-config", config]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, preexec_fn=brokers.child())
    if done.returncode != 0:
        raise LoadFailed(f"the load failed:\n  {' '.join(map(str, command))}\n{done.stderr}")


def load(binary, row, address, cores, seconds, warmup, pid=None, topic=None, configs=(), extra=(), kafka_address=None, lasts=False):
    """Runs the generator and returns its JSON. The topic `lasts`, or is made and deleted. `topic` None: the address is a bare loop's. `kafka_address`: the address is
    the native listener's, and this the Kafka listener's beside it. `cores`: a thread of the generator on each.
    """
    command = [binary, "bench", "load", "--bootstrap-server", address, "--output", "json",
               "--seconds", seconds, "--warmup-seconds", warmup, *row.options, *extra, "--core", ",".join(map(str, cores))]
    if pid is not None:
        command += ["--broker-pid", pid]
    if kafka_address is not None:
        command += ["--protocol", "native", "--kafka-server", kafka_address]
    if topic is None:
        command += ["--bare"]
    else:
        command += ["--topic", topic]
        if not lasts:
            command += ["--create-topic", "--delete-topic"]
            for config in configs:
                command += ["--topic-config", config]
    began, others = time.monotonic(), _others(pid)
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          preexec_fn=brokers.child(cores))
    others = (_others(pid) - others) / (time.monotonic() - began)
    if done.returncode != 0:
        raise LoadFailed(f"the load failed:\n  {' '.join(map(str, command))}\n{done.stderr}")
    run = json.loads(done.stdout)
    run["command"] = " ".join(["millrace", *map(str, command[1:])])
    run["others_cpu_share"] = others
    if others > OTHERS_SHARE_MAX:
        run["generator"]["limits"].append(f"something else took {others * 100:.0f} % of a core meanwhile")
    return run
