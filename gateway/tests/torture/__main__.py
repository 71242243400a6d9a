"""Breaks everything that matrix.toml knows of, and says what survived: a line for each row, and a total.

python3 gateway/tests/torture            all rows; SCOPE=quick: those that `make test` runs too; ONLY=F1,S3: these
python3 gateway/tests/torture check      only that every test that a row names exists
WRITE=1                                  writes gateway/docs/scoreboard.md too

Ends with 1 when a test fails. A row that is not done is no failure, and not passed either.
"""

import os
import subprocess
import sys
import time

import cargo
import matrix
import report

SCOREBOARD = matrix.ROOT / "gateway" / "docs" / "scoreboard.md"
# Seconds: of one program of tests, and of one script.
LIMIT = {"quick": 900, "long": 3600}
# By which a script says that it lacks something here.
UNDONE = 77
# What good clients may wait in scripts: their own limits are for a release build with a machine to itself.
WAIT = {"LIMIT": "0.4"}


def run_tool(test):
    script, arguments = matrix.tool(test)
    try:
        ran = subprocess.run([script, *arguments], cwd=matrix.ROOT, env=WAIT | os.environ, capture_output=True, text=True, errors="replace", timeout=LIMIT["long"])
    except subprocess.TimeoutExpired:
        return cargo.Outcome("failed", "not ended in time"), [], ""
    said = ran.stdout + ran.stderr
    last = (said.strip().splitlines() or [""])[-1]
    if ran.returncode == UNDONE:
        return cargo.Outcome("not done", last), [], ""
    measured = cargo.MEASURED.findall(said)
    return (cargo.Outcome("failed", last), measured, said) if ran.returncode else (cargo.Outcome("ok", ""), measured, "")


def run(rows, programs):
    """Every test once, however many rows name it: those of quick rows together, those of long ones one by one."""
    outcomes, measured = {}, []

    def done(part):
        print(f"  {part}", file=sys.stderr, flush=True)

    for kind in matrix.KINDS:
        wanted = {test for row in rows if row.kind == kind for test in row.tests} - set(outcomes)
        by_program = {}
        for test in sorted(wanted):
            if matrix.is_tool(test):
                continue
            package, target, path = matrix.split(test)
            by_program.setdefault((package, target), {})[path] = test
        for key, tests in by_program.items():
            begin = time.monotonic()
            found, numbers, said = cargo.run(programs[key], set(tests), kind == "long", LIMIT[kind])
            outcomes.update((tests[path], outcome) for path, outcome in found.items())
            measured += numbers
            sys.stderr.write(said)
            done(f"{'/'.join(filter(None, key))}, {kind}: {len(tests)} tests, {time.monotonic() - begin:.0f} s")
        for test in sorted(wanted):
            if matrix.is_tool(test):
                begin = time.monotonic()
                outcomes[test], numbers, said = run_tool(test)
                measured += numbers
                sys.stderr.write(said)
                done(f"{test}: {time.monotonic() - begin:.0f} s")
    return outcomes, measured


def main(arguments):
    try:
        rows = matrix.load(matrix.FILE.read_text())
    except ValueError as wrong:
        raise SystemExit(f"matrix.toml:\n{wrong}")
    programs = cargo.build()
    wrong = matrix.missing(rows, {key: cargo.listed(program) for key, program in programs.items()})
    if wrong:
        raise SystemExit("matrix.toml:\n" + "\n".join(wrong))
    if arguments == ["check"]:
        print(f"torture: {len(rows)} rows, every test that they name exists")
        return 0
    if arguments:
        raise SystemExit(__doc__)
    scope, only = os.environ.get("SCOPE", ""), set(filter(None, os.environ.get("ONLY", "").split(",")))
    if scope not in ("", "quick", "all"):
        raise SystemExit(f"SCOPE={scope} is none of quick and all")
    chosen = [row for row in rows if (scope != "quick" or row.kind == "quick") and (not only or row.id in only)]
    begin = time.monotonic()
    outcomes, measured = run(chosen, programs)
    verdicts = [(row, report.verdict(row, outcomes)) for row in rows if not only or row.id in only]
    for row, (word, why) in verdicts:
        print(report.line(row, word, why))
    print(report.total(verdicts))
    if os.environ.get("WRITE"):
        SCOREBOARD.write_text(report.page(verdicts, measured, len(outcomes), time.monotonic() - begin, scope))
    return 1 if any(word == "FAILED" for _, (word, _) in verdicts) else 0


sys.exit(main(sys.argv[1:]))
