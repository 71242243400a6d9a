"""Holds the micro-benchmarks to what they took before: python3 benches/baselines.py

Compared are multiples of benches/benches/yardstick.rs, measured in the same run, since a time alone says more of the machine than of the
code. The builds are those of the tests, which are there already; a release tells finer differences (make bench-micro). So this finds
what became several times slower, such as a lookup that looks at every host, and no more.

WRITE=1 writes baselines.json anew. CARGO and TEST_FLAGS are the Makefile's.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASELINES = ROOT / "benches/baselines.json"
# What comes to look at each host or route takes hundreds of times its baseline; noise and another kind of machine make two of it.
LIMIT = 5.0
# What is beyond its limit is measured so often again, and the least counts.
AGAIN = 3
# They measure by themselves, or for minutes in a build for tests.
LEFT_OUT = {"check", "scale"}
UNITS = {"ps": 1e-3, "ns": 1.0, "µs": 1e3, "us": 1e3, "ms": 1e6, "s": 1e9}
TIME = re.compile(r"time:\s+\[\S+ \S+ (?P<middle>\S+) (?P<unit>\S+) \S+ \S+\]")


def built():
    """Name and file of each benchmark's program."""
    command = [os.environ.get("CARGO", "cargo"), "test", *os.environ.get("TEST_FLAGS", "--workspace --locked --features gateway/testing").split()]
    command += ["--bench", "*", "--no-run", "--message-format=json"]
    told = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = (json.loads(line) for line in told.splitlines() if line.startswith("{"))
    artifacts = (m for m in messages if m.get("reason") == "compiler-artifact" and m.get("executable"))
    return {m["target"]["name"]: m["executable"] for m in artifacts if "bench" in m["target"]["kind"]}


def measured(program, only=None):
    """Nanoseconds of each benchmark of a program, or of the one."""
    command = [program, "--bench", "--quick", "--noplot"] + ([only, "--exact"] if only else [])
    told = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return dict(times(told))


def times(told):
    """Names and nanoseconds in what criterion prints: a name that is long stands on a line of its own."""
    name = ""
    for line in told.splitlines():
        found = TIME.search(line)
        before = (line[: found.start()] if found else line).strip()
        name = before or name
        if found:
            yield name, float(found["middle"]) * UNITS[found["unit"]]


def findings(ratios, baselines):
    """What is wrong: a name, and why."""
    for name, baseline in baselines.items():
        if name not in ratios:
            yield name, "was not measured: has it another name? WRITE=1 writes the baselines anew"
        elif ratios[name] > baseline * LIMIT:
            yield name, f"takes {ratios[name]:.3g} times the yardstick, {ratios[name] / baseline:.1f} times its baseline of {baseline:.3g}"
    for name in ratios.keys() - baselines.keys():
        yield name, "has no baseline: WRITE=1 writes the baselines anew"


def main():
    programs = {name: file for name, file in built().items() if name not in LEFT_OUT}
    yardstick = programs.pop("yardstick")
    unit = min(measured(yardstick)["yardstick"] for _ in range(3))
    where, ratios = {}, {}
    write = bool(os.environ.get("WRITE"))
    for program in list(programs.values()) * (AGAIN if write else 1):
        for name, time in measured(program).items():
            where[name], ratios[name] = program, min(time / unit, ratios.get(name, time / unit))
    if write:
        rounded = {name: float(f"{ratio:.3g}") for name, ratio in sorted(ratios.items())}
        BASELINES.write_text(json.dumps(rounded, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    baselines = json.loads(BASELINES.read_text(encoding="utf-8"))
    for _ in range(AGAIN):
        for name, _ in list(findings(ratios, baselines)):
            if name in ratios and name in baselines:
                unit = min(unit, measured(yardstick)["yardstick"])
                ratios[name] = min(ratios[name], measured(where[name], name)[name] / unit)
    wrong = list(findings(ratios, baselines))
    for name, why in wrong:
        print(f"{name}: {why}", file=sys.stderr)
    print(f"benchmarks: {len(ratios)} measured, {len(wrong)} beyond {LIMIT:g} times the baseline or not known")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
