"""The loads of the speed table with their bars, and the generator that drives them.

Knows `millrace bench load` and its JSON; knows no broker.
"""

import json
import subprocess

from . import brokers


class Bar:
    """One figure against a rival's: `higher` is better for rates, lower for times and costs."""

    def __init__(self, metric, against, must, reach, higher):
        self.metric = metric
        self.against = against
        self.must = must
        self.reach = reach
        self.higher = higher

    def verdict(self, ratio):
        met = (lambda bar: ratio >= bar) if self.higher else (lambda bar: ratio <= bar)
        return "reached" if met(self.reach) else "met" if met(self.must) else "NOT MET"

    def told(self, bar):
        return f"{'>=' if self.higher else '<='} {bar:g}"


class Row:
    """A load of the table."""

    def __init__(self, name, title, options, bars):
        self.name = name
        self.title = title
        self.options = options
        self.bars = bars


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

ROWS = [
    Row("small", "64 connections x 1 KiB, one in flight each",
        ["--connections", 64, "--record-size", 1024],
        [Bar("requests/s", "bare", 0.6, 1.0, True), Bar("requests/s", "kafka", 1.5, 3, True),
         Bar("requests/s", "kafka-flush", 25, 50, True), Bar("CPU s/M requests", "kafka", 0.4, 0.15, False),
         Bar("peak MiB", "kafka", 0.25, 0.125, False)]),
    Row("large", "8 connections x 16 KiB, five in flight",
        ["--connections", 8, "--record-size", 16384, "--in-flight", 5],
        [Bar("MB/s", "bare", 0.7, 1.3, True), Bar("MB/s", "kafka", 1.7, 3, True),
         Bar("CPU s/GB", "kafka", 0.25, 0.12, False), Bar("peak MiB", "kafka", 0.25, 0.125, False)]),
    Row("single", "one connection, 1 KiB, one in flight",
        ["--connections", 1, "--record-size", 1024],
        [Bar("p50 us", "bare", 1.3, 1.1, False), Bar("p99 us", "bare", 1.6, 1.2, False),
         Bar("peak MiB", "kafka", 0.25, 0.125, False)]),
    Row("partitions", "1,000 partitions x 100 B, ten connections",
        ["--connections", 10, "--record-size", 100, "--partitions", 1000],
        [Bar("requests/s", "bare", 0.6, 0.9, True), Bar("requests/s", "kafka-flush", 30, 60, True),
         Bar("peak MiB", "kafka", 0.25, 0.125, False)]),
    Row("gathered", "the same, 100 partitions a request",
        ["--connections", 10, "--record-size", 100, "--partitions", 1000, "--partitions-per-request", 100],
        [Bar("requests/s", "bare", 0.5, 0.8, True), Bar("peak MiB", "kafka", 0.25, 0.125, False)]),
    Row("open", "20,000 x 1 KiB a second, open loop, 64 connections",
        ["--connections", 64, "--record-size", 1024, "--rate", 20000],
        [Bar("p99 us", "bare", 2, 1.3, False), Bar("p99.9 us", "kafka", 0.2, 0.1, False),
         Bar("peak MiB", "kafka", 0.25, 0.125, False)]),
]


def chosen(names):
    """The rows of these names, separated by commas; all without."""
    if not names:
        return ROWS
    known = {row.name: row for row in ROWS}
    wanted = names.split(",")
    for name in wanted:
        if name not in known:
            raise SystemExit(f"no row {name}; there are {', '.join(known)}")
    return [known[name] for name in wanted]


def load(binary, row, address, core, seconds, warmup, pid=None, topic=None, configs=(), extra=()):
    """Runs the generator and returns its JSON. `topic` None: the address is a bare loop's."""
    command = [binary, "bench", "load", "--bootstrap-server", address, "--core", core, "--output", "json",
               "--seconds", seconds, "--warmup-seconds", warmup, *row.options, *extra]
    if pid is not None:
        command += ["--broker-pid", pid]
    if topic is None:
        command += ["--bare"]
    else:
        command += ["--topic", topic, "--create-topic", "--delete-topic"]
        for config in configs:
            command += ["--topic-config", config]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, preexec_fn=brokers.child())
    if done.returncode != 0:
        raise SystemExit(f"the load failed:\n  {' '.join(map(str, command))}\n{done.stderr}")
    run = json.loads(done.stdout)
    run["command"] = " ".join(map(str, command))
    return run
