"""Gigabytes written and read back by librdkafka, through Millrace's own client tools: at once, and with cold caches.

Knows the tools' output; leaves starting and stopping to the field, and brokers to themselves.
"""

import os
import pathlib
import subprocess
import sys
import time

from . import brokers, field, machine, report, workloads

NAME = "read"
PARTITIONS = 8
RECORD_BYTES = 1024
KINDS = ("just written", "cold")
# What is read with warm caches, and from the disk: each against Kafka's same; and the stricter reading of the bar beside it.
PAIRS = [("just written", "just written"), ("cold", "cold"), ("cold", "just written")]
BARS = {"MB/s": workloads.Bar("MB/s", "kafka", 1, 1.5, True), "CPU s/GB": workloads.Bar("CPU s/GB", "kafka", 1.2, 0.8, False)}
KEYS = {"MB/s": "mb_per_second", "CPU s/GB": "broker_cpu_seconds_per_gb"}


def _tool(asked, binary, side, *arguments):
    """Runs one of Millrace's own client tools on the load's core; returns its output and its CPU seconds."""
    command = [str(part) for part in (binary, *arguments)]
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=brokers.child({asked.load_core}))
    after = os.times()
    if done.returncode != 0:
        raise SystemExit(f"failed on {side}: {' '.join(command)}\n{done.stdout[-2000:]}{done.stderr}")
    return done.stdout, after.children_user + after.children_system - before.children_user - before.children_system


def _fill(asked, binary, side, server, topic):
    """Writes the records that are read back."""
    count = int(asked.size * 1e9 / RECORD_BYTES)
    configs = [part for config in field.CONFIGS for part in ("--config", config)]
    _tool(asked, binary, side, "topics", "--bootstrap-server", server.address, "--create", "--topic", topic,
          "--partitions", PARTITIONS, *configs)
    _tool(asked, binary, side, "producer-perf-test", "--bootstrap-server", server.address, "--topic", topic, "--num-records", count,
          "--record-size", RECORD_BYTES, "--throughput", -1, "--command-property", "acks=all",
          "--command-property", "batch.size=262144", "--command-property", "linger.ms=5")
    return count


def _read_back(asked, binary, side, server, topic, count):
    """Reads them, and says at what rate and cost."""
    before = machine.usage(server.pid) if server.pid else None
    begin = time.monotonic()
    output, client_cpu = _tool(asked, binary, side, "consumer-perf-test", "--bootstrap-server", server.address, "--topic", topic,
                               "--num-records", count, "--group", f"{topic}-{time.monotonic_ns()}", "--timeout", 60000)
    wall = time.monotonic() - begin
    after = machine.usage(server.pid) if server.pid else None
    lines = output.strip().splitlines()
    told = dict(zip((part.strip() for part in lines[0].split(",")), (part.strip() for part in lines[-1].split(","))))
    if int(told["data.consumed.in.nMsg"]) < count:
        raise SystemExit(f"{side}: {told['data.consumed.in.nMsg']} of {count} records came back:\n{output}")
    read = float(told["data.consumed.in.MB"]) * 2**20
    fetch_seconds = float(told["fetch.time.ms"]) / 1000
    return {
        "bytes": read,
        "mb_per_second": read / 1e6 / fetch_seconds,
        "records_per_second": float(told["data.consumed.in.nMsg"]) / fetch_seconds,
        "broker_cpu_seconds_per_gb": (after["cpu_seconds"] - before["cpu_seconds"]) / (read / 1e9) if before else None,
        "broker_resident_bytes_max": after["resident_bytes_max"] if after else None,
        "client_cpu_share": client_cpu / wall,
        "output": output,
    }


def _drop_caches():
    """Empties the page cache, which takes root."""
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    except OSError as error:
        print(f"the page cache cannot be emptied ({error}): no cold reads", file=sys.stderr)
        return False


def measure(asked, binary, brokers_of, side):
    """Fill, read at once, read cold. Millrace, whose cache is its own, is started anew before the cold read."""
    server = brokers_of.alone(side)
    topic = f"read-{time.monotonic_ns()}"
    count = _fill(asked, binary, side, server, topic)
    found = {"just written": _read_back(asked, binary, side, server, topic, count)}
    if not isinstance(server, field.Rival):
        anew = isinstance(server, brokers.Millrace)
        if anew:
            server.stop()
        dropped = _drop_caches()
        if anew:
            server.start()
        if dropped:
            found["cold"] = _read_back(asked, binary, side, server, topic, count)
    _tool(asked, binary, side, "topics", "--bootstrap-server", server.address, "--delete", "--topic", topic)
    # The files go a moment after the topic: the next one needs the room.
    time.sleep(2)
    for kind, one in found.items():
        print(f"read back, {kind}, {side}: {report.number(one['mb_per_second'])} MB/s, "
              f"{report.number(one['broker_cpu_seconds_per_gb'])} CPU s/GB", flush=True)
    return found


def bars(results, rival):
    """Lines for the table of bars."""
    lines = []
    for ours, theirs in PAIRS:
        for metric, bar in BARS.items():
            of = [[one[kind][KEYS[metric]] for one in results.get(side, []) if kind in one]
                  for side, kind in (("millrace", ours), (rival, theirs))]
            found = report.ratio(*of)
            if found is None:
                continue
            title = f"gigabytes read back by librdkafka, {ours}"
            against = rival if ours == theirs else f"{rival}, {theirs}"
            lines.append(report.bar_line(title, "millrace", bar, of[0], against, of[1], found))
    return lines


def figures(results):
    lines = []
    for kind in KINDS:
        for name, key in [*KEYS.items(), ("client's CPU share", "client_cpu_share")]:
            cells = [report.spread([one[kind][key] for one in found if kind in one]) for found in results.values()]
            lines.append([kind, name, *cells])
    return report.table(["read back", "figure", *results], lines)
