"""Rows and outcomes as lines for a terminal, and as the page that is kept."""

import datetime
import os
import platform

from matrix import NAMES, ROWS


def verdict(row, outcomes):
    """(word, why): passed, FAILED, not done, or skipped where only others were asked for."""
    ran = [(test, outcomes[test]) for test in row.tests if test in outcomes]
    failed = [f"{test} {one.reason}".strip() for test, one in ran if one.state == "failed"]
    if failed:
        return "FAILED", "; ".join(failed)
    if len(ran) < len(row.tests):
        return "skipped", "SCOPE=quick leaves it out"
    undone = [one.reason for _, one in ran if one.state == "not done"]
    if undone or row.lacks:
        return "not done", "; ".join(dict.fromkeys(undone + [row.lacks] * bool(row.lacks)))
    return "passed", ""


def line(row, word, why):
    return f"{row.id:<4} {word:<9} {row.title}" + (f": {why}" if why else "")


def total(verdicts):
    """`faults 60/67, security 43/45`, of rows and their words."""
    parts = []
    for letter, count in ROWS.items():
        passed = sum(word == "passed" for row, (word, _) in verdicts if row.id.startswith(letter))
        parts.append(f"{NAMES[letter]} {passed}/{count}")
    return ", ".join(parts)


def machine():
    cores = len(os.sched_getaffinity(0))
    return f"{cores} core{'s' * (cores != 1)}, {platform.machine()}, Linux {platform.release().split('-')[0]}"


def page(verdicts, measured, tests, seconds, scope):
    """The scoreboard."""
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    out = [
        "# Scoreboard",
        "",
        "Written by `make torture`: every fault and attack that we know of, and the tests that show what becomes of it. A row passes when all of its",
        "tests do and nothing of it is left out; what is not done says why. [What is promised](promises.md), [against whom](threat-model.md).",
        "",
        f"**{total(verdicts)}** on {date}, {tests} tests in {seconds / 60:.0f} minutes, a debug build on {machine()}"
        + (" (SCOPE=quick)" if scope == "quick" else "") + ".",
        "",
    ]
    if measured:
        out += ["What was measured on the way:", "", *[f"- {text}" for text in measured], ""]
    for letter in ROWS:
        out += [f"## {NAMES[letter].capitalize()}", "", "| | what | result | tests |", "|---|---|---|---|"]
        for row, (word, why) in verdicts:
            if row.id.startswith(letter):
                names = "<br>".join(f"`{test}`" for test in row.tests)
                why = f": {why}" if why else ""
                out.append(f"| {row.id} | {cell(row.title)} | {word}{cell(why)} | {names} |")
        out.append("")
    return "\n".join(out)


def cell(text):
    return text.replace("|", "\\|").replace("\n", " ")
