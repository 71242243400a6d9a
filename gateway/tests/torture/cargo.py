"""The test programs that cargo builds: which there are, what they can run, and what came of it."""

import collections
import json
import os
import pathlib
import re
import subprocess

from matrix import ROOT

FLAGS = ["--workspace", "--locked", "--features", "gateway/testing"]
# A test that cannot be done on a machine passes and says this on the terminal.
NOT_TRIED = re.compile(r"NOT TRIED: (\S+) \((.*)\)")
RESULT = re.compile(r"^test (\S+)(?: - should panic)? \.\.\. .*?(ok|FAILED|ignored)", re.MULTILINE)
MEASURED = re.compile(r"^measured: (.+)$", re.MULTILINE)

Program = collections.namedtuple("Program", "path folder")
# What came of one test: "ok", "failed" or "not done", and why.
Outcome = collections.namedtuple("Outcome", "state reason")


def build():
    """Builds all of them; a Program for each (package, target), where the library's target is None."""
    command = [os.environ.get("CARGO", "cargo"), "test", *FLAGS, "--no-run", "--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if built.returncode:
        raise SystemExit(built.returncode)
    return programs(built.stdout.splitlines())


def programs(lines):
    found = {}
    for line in lines:
        message = json.loads(line)
        if message.get("reason") != "compiler-artifact" or not message.get("executable") or not message["profile"]["test"]:
            continue
        folder = pathlib.Path(message["manifest_path"]).parent
        kind, target = message["target"]["kind"][0], message["target"]["name"]
        if kind in ("lib", "test"):
            found[(folder.name, None if kind == "lib" else target)] = Program(message["executable"], folder)
    return found


def listed(program):
    """The paths of all tests of a program."""
    said = subprocess.run([program.path, "--list", "--format", "terse"], cwd=program.folder, capture_output=True, text=True, check=True)
    return {line.removesuffix(": test") for line in said.stdout.splitlines() if line.endswith(": test")}


def run(program, paths, alone, limit):
    """Runs these tests in one process; an Outcome for each, and what they measured."""
    command = [program.path, "--exact", "--include-ignored", "--show-output"]
    command += ["--test-threads", "1"] * alone + sorted(paths)
    environment = dict(os.environ, CARGO_MANIFEST_DIR=str(program.folder))
    try:
        ran = subprocess.run(command, cwd=program.folder, env=environment, capture_output=True, text=True, errors="replace", timeout=limit)
        out, err, late = ran.stdout, ran.stderr, ""
    except subprocess.TimeoutExpired as expired:
        out, err = ((text or b"").decode(errors="replace") for text in (expired.stdout, expired.stderr))
        late = f"not ended after {limit} s"
    outcomes = read(out, err, paths, late)
    said = "" if all(one.state != "failed" for one in outcomes.values()) else out + err
    return outcomes, MEASURED.findall(out), said


def read(out, err, paths, late=""):
    skipped = dict(NOT_TRIED.findall(out + err))
    results = dict(RESULT.findall(out))
    outcomes = {}
    for path in paths:
        if path in skipped:
            outcomes[path] = Outcome("not done", skipped[path])
        elif results.get(path) == "ok":
            outcomes[path] = Outcome("ok", "")
        else:
            outcomes[path] = Outcome("failed", "" if path in results else late or "its program ended before it")
    return outcomes
