"""Pages with charts: the generator's results in the form that `millrace bench report` reads, one page for each load.

Knows both forms of a result; draws nothing itself.
"""

import json
import pathlib
import shutil
import statistics
import subprocess
import tempfile

DURABILITY = {
    "millrace": "acknowledges after the flush (flush.messages=1, its default)",
    "native": "acknowledges after the flush (flush.messages=1, its default); native protocol",
    "native-unix": "acknowledges after the flush (flush.messages=1, its default); native protocol over a Unix socket",
    "one": "acknowledges after the flush (flush.messages=1, its default); one data core",
    "two": "acknowledges after the flush (flush.messages=1, its default); two data cores",
    "bare": "answers after write and fdatasync",
    "kafka": "acknowledges before anything is flushed (its default)",
    "kafka-flush": "acknowledges after the flush (flush.messages=1)",
    "rival": "not known here",
}


def _latency(since, told):
    return {
        "kind": "publish", "since": since, "unit_ns": 1000, "count": told["count"], "mean_us": told["mean"],
        "percentiles_us": {name: told[name] for name in ("p50", "p90", "p99", "p99_9", "p99_99", "max")},
        "histogram": told["histogram"],
    }


def _run(row, side, run, piece):
    window, broker = run["window_seconds"], run["broker"]
    per_request = run["value_bytes"] // max(run["requests"], 1)
    records = run["records"] // max(run["requests"], 1)
    latencies = [_latency("intended", run["latency_from_intended_us"])]
    if run["workload"]["rate"]:
        latencies.append(_latency("sent", run["latency_from_actual_us"]))
    return {
        "format": "millrace-bench-1", "name": side, "tool": "bench load",
        "started_ms": run["started_ms"], "elapsed_s": window,
        "commands": {"generator": run["command"], "script": piece["command"]},
        "machine": {key: str(value) for key, value in piece["machine"].items()},
        "versions": {"generator": run["version"], "commit": piece["machine"]["commit"]},
        "durability": {side: DURABILITY[side]},
        "workload": {"load": row.title, **{key: str(value) for key, value in run["workload"].items() if value is not None}},
        "totals": {
            "records_sent": run["records"], "records_acknowledged": run["records"], "bytes_acknowledged": run["value_bytes"],
            "records_per_s": run["records_per_second"], "mib_per_s": run["value_bytes"] / 2**20 / window,
            "requests_per_s": run["requests_per_second"], "client_cpu_s": run["generator"]["cpu_share"] * window,
            **({"broker_cpu_s": broker["cpu_seconds"], "broker_memory_peak_bytes": broker["resident_bytes_max"]} if broker else {}),
        },
        "latencies": latencies,
        "seconds": [{
            "at_s": at + 1, "length_s": 1, "sent": one["requests"] * records, "acknowledged": one["requests"] * records,
            "acknowledged_bytes": one["requests"] * per_request,
            "publish_us": {"p50": one["p50_us"], "p99": one["p99_us"], "max": one["max_us"]},
        } for at, one in enumerate(run["seconds"])],
        "remarks": run["generator"]["limits"],
    }


def write(binary, rows, kept, order):
    """A page for each measured load, which compares the run of each side that was nearest to its median."""
    for row in rows:
        sides = kept.runs.get(row.name, {})
        if not sides:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            scratch, paths = pathlib.Path(scratch), []
            for side in sorted(sides, key=order.index):
                middle = statistics.median_low(run["requests_per_second"] for run in sides[side])
                run = next(run for run in sides[side] if run["requests_per_second"] == middle)
                path = scratch / f"{side}.json"
                path.write_text(json.dumps(_run(row, side, run, kept.pieces[run["piece"]])))
                paths.append(str(path))
            done = subprocess.run([str(binary), "bench", "report", *paths, "--output", str(scratch / "report")],
                                  capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(f"no page for {row.name}: {done.stderr}")
            shutil.copy(scratch / "report" / "report.html", kept.directory / f"{row.name}.html")
