"""Puts what was measured into words: a table for each scenario, the verdicts on the targets, and the page of results."""

import targets

# Figure, head of its column, digits.
COLUMNS = (
    ("cpu_us", "CPU µs/request", 1),
    ("gb_per_cpu_s", "GB per CPU-second", 2),
    ("cpu_us_before", "CPU µs/request before", 1),
    ("rps", "requests/s", 0),
    ("p50", "p50 ms", 2),
    ("p99_before", "p99 ms before", 2),
    ("p99", "p99 ms", 2),
    ("p99_ratio", "p99, during : before", 2),
    ("p999", "p99.9 ms", 2),
    ("requests", "requests", 0),
    ("failed", "failed", 0),
    ("live_ms", "live after ms", 0),
    ("live_ms_worst", "worst ms", 0),
    ("change_cpu_ms", "CPU ms a change", 1),
    ("idle_cpu_ms_s", "CPU ms a second", 1),
    ("memory_mib", "memory MiB", 0),
    ("start_s", "first 200 after s", 2),
)


def number(value, digits):
    return f"{value:,.{digits}f}" if value is not None else "–"


def table(rows):
    """Lines of a Markdown table; a column that nobody has is left out."""
    columns = [column for column in COLUMNS if any(column[0] in row for row in rows)]
    variants = any(row["variant"] for row in rows)
    envoy = {row["variant"]: row["cpu_us"] for row in rows if row["peer"] == "Envoy" and "cpu_us" in row}
    head = ["", *([""] if variants else []), *(title for _, title, _ in columns), *(["CPU : Envoy"] if envoy else [])]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * (2 if variants else 1) + "--:|" * (len(columns) + bool(envoy))]
    for row in rows:
        cells = [f"**{row['peer']}**" if row["peer"] == targets.OURS else row["peer"], *([row["variant"]] if variants else [])]
        cells += [number(row.get(key), digits) for key, _, digits in columns]
        if envoy:
            cells.append(number(row["cpu_us"] / envoy[row["variant"]] if row["variant"] in envoy else None, 2))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def judged(verdicts):
    """Lines of a table: each target, what was measured, whether it is met."""
    lines = ["| target | Limen | held against | ratio | |", "|---|--:|--:|--:|---|"]
    for verdict in verdicts:
        target = verdict.target
        word = "met" if verdict.met else "not met (stretch)" if target.stretch else "**NOT met**"
        digits = 0 if target.figure in ("failed", "memory_mib", "live_ms") else 2
        lines.append(
            f"| {target.text} | {number(verdict.measured, digits)} | {number(verdict.against, digits)} | {number(verdict.ratio, 2)} | {word} |"
        )
    return lines


def page(results, notes):
    """The whole page, from what is kept as JSON."""
    lines = ["# Limen and what people run today, on the same work", ""]
    lines += ["Made by `make bench`; do not edit. Each scenario is one run: its peers were loaded one after the other, round after round, the proxy on"]
    lines += ["one core, load and upstream on the rest. Figures are medians of the rounds; only ratios within one scenario mean anything on"]
    lines += ["another machine. Memory counts a page that processes share once. Charts: `cpu.svg`; all figures: `results.json`.", ""]
    lines += [f"Machine: {results['machine']}.", "", "| | version | how it is set |", "|---|---|---|"]
    lines += [f"| {peer} | {version} | {notes.get(peer, '')} |" for peer, version in results["versions"].items()]
    verdicts = targets.judge(results["scenarios"])
    if verdicts:
        lines += ["", "## Targets", "", *judged(verdicts)]
    for name, scenario in results["scenarios"].items():
        lines += ["", f"## {scenario['title']}", ""]
        what = f"{scenario['rounds']} rounds of {scenario['seconds']:g} s" if scenario["rounds"] else "one run"
        note = f"; {scenario['note']}" if scenario.get("note") else ""
        lines += [f"`make bench SCENARIO={name}`, {scenario['date']}, {what}{note}.", "", *table(scenario["rows"])]
        for peer, why in scenario["skipped"].items():
            lines += ["", f"{peer} is not in it: {why}."]
    return "\n".join(lines) + "\n"
