"""Medians, spreads, verdicts and Markdown tables. Knows no broker."""

import statistics

HEAD = ["load", "figure", "of", "median", "against", "its median", "ratio", "must", "reach for", ""]


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


def values(metric, of, results):
    """A metric of some runs; a broker whose process is not known has no costs."""
    return [of(run) for run in results if run["broker"] or not needs_broker(metric)]


def bar_line(title, side, bar, ours, against, theirs, found):
    return [title, bar.metric, side, spread(ours), against, spread(theirs), number(found), bar.told(bar.must), bar.told(bar.reach),
            bar.verdict(found)]


def bars(rows, runs, metrics, stand_in=None):
    """Lines of the table of bars: each of a row's bars whose two sides were measured. `runs[row][side]` are the generator's
    results; `stand_in` is the side that takes Kafka's place.
    """
    lines = []
    for row in rows:
        for bar in row.bars:
            against = stand_in if stand_in and bar.against == "kafka" else bar.against
            of = metrics[bar.metric]
            ours, theirs = (values(bar.metric, of, runs.get(row.name, {}).get(side, [])) for side in (bar.of, against))
            found = ratio(ours, theirs)
            if found is not None:
                lines.append(bar_line(row.title, bar.of, bar, ours, against, theirs, found))
    return lines


def figures(rows, runs, metrics, order):
    """Every figure of every row, a line for each side."""
    lines = []
    for row in rows:
        sides = runs.get(row.name, {})
        for side in sorted(sides, key=order.index):
            cells = [spread(values(name, of, sides[side])) for name, of in metrics.items()]
            lines.append([row.name, side, len(sides[side]), *cells])
    return table(["load", "side", "runs", *metrics], lines)


def notes(runs):
    """What the generator said it could not do, one of each load and side, and in how many runs it said something."""
    lines = []
    for row, sides in runs.items():
        for side, results in sides.items():
            said = [result["generator"]["limits"][0] for result in results if result["generator"]["limits"]]
            if said:
                lines.append(f"- {row}, {side}: {said[0]} ({len(said)} of {len(results)} runs said something)\n")
    return "".join(lines)


def verdicts(lines):
    """How many bars are met, in a sentence; `lines` end with their verdicts."""
    missed = sum(line[-1] == "NOT MET" for line in lines)
    return f"{len(lines) - missed} of {len(lines)} bars met" + (f", {missed} NOT MET.\n" if missed else ".\n")
