"""Medians, spreads and Markdown tables. Knows no broker."""

import statistics


def number(value):
    """A figure with as many digits as it deserves."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.3f}"


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def spread(values):
    """Median, and behind it the smallest and the largest."""
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    if len(values) == 1:
        return number(values[0])
    return f"{number(median(values))} ({number(min(values))}..{number(max(values))})"


def ratio(values, others):
    """The median of the first over the median of the second; None if there is none."""
    top, bottom = median(values), median(others)
    return top / bottom if top is not None and bottom else None


def table(head, rows):
    """A Markdown table whose columns line up in a terminal too."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def about(machine):
    """The machine as a list."""
    return "".join(f"- {key.replace('_', ' ')}: {value}\n" for key, value in machine.items())


def needs_broker(metric):
    """Whether a figure is of the broker's process."""
    return metric.startswith("CPU") or metric in ("peak MiB", "sleeps/request")


def bars(rows, runs, sides, metrics, stand_in=None):
    """The table of bars: each of a row's bars whose rival was measured. `runs[row][side]` are the generator's results;
    `stand_in` is the side that takes Kafka's place.
    """
    lines = []
    for row in rows:
        for bar in row.bars:
            against = stand_in if stand_in and bar.against == "kafka" else bar.against
            ours, theirs = runs.get(row.name, {}).get("millrace"), runs.get(row.name, {}).get(against)
            if against not in sides or not ours or not theirs:
                continue
            of = metrics[bar.metric]
            # A rival whose process is not known has no costs.
            ours, theirs = ([of(run) for run in side if run["broker"] or not needs_broker(bar.metric)] for side in (ours, theirs))
            found = ratio(ours, theirs)
            lines.append([row.title, bar.metric, spread(ours), against, spread(theirs), number(found),
                          bar.told(bar.must), bar.told(bar.reach), bar.verdict(found) if found else "-"])
    return table(["load", "figure", "Millrace", "against", "rival", "ratio", "must", "reach for", ""], lines)


def notes(runs):
    """What the generator said it could not do, each once."""
    said = {}
    for row, sides in runs.items():
        for side, results in sides.items():
            for result in results:
                for limit in result["generator"]["limits"]:
                    said.setdefault((row, side), []).append(limit)
    return "".join(f"- {row}, {side}: {limits[0]} ({len(limits)} of {len(runs[row][side])} runs)\n" for (row, side), limits in said.items())
