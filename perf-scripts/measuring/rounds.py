"""Interleaved repeats of rows over sides, and the report of all that is kept.

Knows the order of a run; leaves each measurement to the field, and figures to the report.
"""

from . import pages, reading, report, workloads


def measure(brokers_of, results, names, sides, repeats):
    """Every row on every side that it has, so often; who comes first changes from repeat to repeat. A run that fails is told, kept
    with the results, and left out of the figures. Whether none failed.
    """
    whole = True
    rows = [workloads.row_of(name) for name in names]
    for turn in range(repeats):
        for row in rows:
            # A rival is measured where Kafka would be.
            mine = [side for side in sides if side in row.sides or (side == "rival" and "kafka" in row.sides)]
            for side in mine if turn % 2 == 0 else reversed(mine):
                try:
                    run = brokers_of.measure(side, row)
                except workloads.LoadFailed as failure:
                    whole = False
                    results.add_failure(row.name, side, str(failure))
                    print(f"{row.name}, {side}: {failure}", flush=True)
                    continue
                results.add(row.name, side, run)
                cpu = run["broker"] and run["broker"]["cpu_seconds_per_million_requests"]
                print(f"{row.name}, {side}: {report.number(run['requests_per_second'])} requests/s, "
                      f"{report.number(run['mb_per_second'])} MB/s, p50 {run['latency_from_intended_us']['p50']} us, "
                      f"p99 {run['latency_from_intended_us']['p99']} us, p99.9 {run['latency_from_intended_us']['p99_9']} us, "
                      f"{report.number(cpu)} CPU us/request", flush=True)
    return whole


def _memory(results, rival):
    """The most memory that a side ever had, over all that was measured on it."""
    most = {}
    for row, sides in results.runs.items():
        for side, runs in sides.items():
            # The native protocol has its listener in the same broker; two cores are another broker.
            name = {"native": "millrace", "native-unix": "millrace", "kafka-flush": "kafka"}.get(side, side)
            for run in runs:
                if run["broker"] and row != workloads.CORES.name:
                    most[name] = max(most.get(name, 0), run["broker"]["resident_bytes_max"])
    for side, found in results.other.get(reading.NAME, {}).items():
        for one in found:
            for kind in one.values():
                if kind["broker_resident_bytes_max"]:
                    most[side] = max(most.get(side, 0), kind["broker_resident_bytes_max"])
    if not {"millrace", rival} <= set(most):
        return []
    bar = workloads.Bar("peak MiB", rival, 0.25, 0.125, False)
    ours, theirs = most["millrace"] / 2**20, most[rival] / 2**20
    return [report.bar_line("everything above", "millrace", bar, [ours], rival, [theirs], ours / theirs)]


def _about(results):
    """What was run on what: the pieces, and where they differ."""
    newest = results.pieces[-1]
    text = report.about(newest["machine"])
    text += "\nCommands, in their order:\n\n" + "".join(f"    {piece['command']}\n" for piece in results.pieces)
    commits = sorted({piece["machine"]["commit"] for piece in results.pieces})
    if len(commits) > 1:
        text += f"\nThe pieces are of several commits: {', '.join(commits)}.\n"
    settings = newest["settings"]
    return text + (
        f"\nRuns of {settings['seconds']:g} s after {settings['warmup_seconds']:g} s of warm-up; medians, in brackets the smallest and the "
        f"largest. Brokers on core {settings['broker_core']}, the load on core {settings['load_core']}, the same generator for all; acks=all. "
        "`millrace`, `native` and `native-unix` (its native protocol, over TCP and over its Unix socket, with --idle-poll) flush before they answer, and so do `bare` (the bare loop) and `kafka-flush` "
        "(flush.messages=1); `kafka` answers before anything is flushed. `two`: two data cores, which share theirs with the load; `one`: "
        "one. MB and GB are powers of ten, of record values. Latencies count from the intended time.\n")


def report_all(results, binary, title, rival, behind=""):
    """Writes and prints the report of everything that is kept."""
    rows = [row for row in [*workloads.ROWS, workloads.CORES] if row.name in results.runs]
    text = f"# {title}\n\n{_about(results)}"
    read = results.other.get(reading.NAME)
    lines = report.bars(rows, results.runs, workloads.METRICS, "rival" if rival == "rival" else None)
    if rival:
        lines += (reading.bars(read, rival) if read else []) + _memory(results, rival)
    if lines:
        text += f"\n## Bars\n\n{report.table(report.HEAD, lines)}\n{report.verdicts(lines)}"
    if results.failures:
        text += "\n## Runs that failed, and are in no figure\n\n" + "".join(
            f"- {one['row']}, {one['side']}: {one['told'].strip().splitlines()[-1]}\n" for one in results.failures)
    if rows:
        text += "\n## All figures\n\n" + report.figures(rows, results.runs, workloads.METRICS, workloads.SIDES)
        notes = report.notes(results.runs)
        if notes:
            text += "\n## What the generator says of itself\n\n" + notes
    if read:
        text += (f"\n## Read back by librdkafka: {results.pieces[-1]['settings']['size_gb']:g} GB in {reading.PARTITIONS} partitions, "
                 f"records of {reading.RECORD_BYTES} B\n\n{reading.figures(read)}")
    text += behind
    results.save()
    results.write("report.md", text)
    pages.write(binary, rows, results, workloads.SIDES)
    print(f"\n{text}\nkept in {results.directory}")
