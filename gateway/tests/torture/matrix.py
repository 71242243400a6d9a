"""The rows: what may go wrong, and the tests that show what then happens. Read from matrix.toml, and held to its form.

A test is named `PACKAGE::path` (of the library), `PACKAGE/TARGET::path` (of an integration test), or `tool NAME ARGUMENT…` (a script of
gateway/tests/tools).
"""

import dataclasses
import pathlib
import re
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TOOLS = HERE.parent / "tools"
FILE = HERE / "matrix.toml"
# How many rows of each letter there are.
ROWS = {"F": 67, "S": 45}
NAMES = {"F": "faults", "S": "security"}
KINDS = ("quick", "long")
FIELDS = {"id", "title", "kind", "tests", "lacks"}
CARGO = re.compile(r"(?P<package>[a-z-]+)(?:/(?P<target>[a-z_]+))?::(?P<path>[a-z0-9_:]+)")


@dataclasses.dataclass(frozen=True)
class Row:
    """One row; what it `lacks` keeps it from passing, whatever its tests say."""

    id: str
    title: str
    kind: str
    tests: tuple = ()
    lacks: str = ""


def load(text):
    """The rows of a file, or ValueError with all that is wrong with it."""
    rows, wrong = [], []
    for entry in tomllib.loads(text).get("row", []):
        name = entry.get("id", "?")
        unknown = set(entry) - FIELDS
        if unknown or not entry.get("id") or not entry.get("title"):
            wrong.append(f"{name}: unknown fields {sorted(unknown)}" if unknown else f"{name}: no id or no title")
            continue
        row = Row(entry["id"], entry["title"], entry.get("kind", "quick"), tuple(entry.get("tests", ())), entry.get("lacks", ""))
        if row.kind not in KINDS:
            wrong.append(f"{name}: kind {row.kind!r} is none of {', '.join(KINDS)}")
        if not row.tests and not row.lacks:
            wrong.append(f"{name}: neither a test nor a reason why there is none")
        wrong += [f"{name}: {test!r} names no test" for test in row.tests if not is_tool(test) and not CARGO.fullmatch(test)]
        rows.append(row)
    wanted = [f"{letter}{number}" for letter, count in ROWS.items() for number in range(1, count + 1)]
    if [row.id for row in rows] != wanted:
        wrong += [f"{name}: is missing" for name in wanted if name not in {row.id for row in rows}]
        wrong += [f"{row.id}: is out of order, there twice, or no row" for row, name in zip(rows, wanted) if row.id != name][:1]
    if wrong:
        raise ValueError("\n".join(wrong))
    return rows


def is_tool(test):
    return test.startswith("tool ")


def tool(test):
    """A script and its arguments."""
    _, name, *arguments = test.split()
    return TOOLS / name, arguments


def split(test):
    """Package, target (None for the library), and path within."""
    found = CARGO.fullmatch(test)
    return found["package"], found["target"], found["path"]


def missing(rows, known):
    """Tests that rows name and nobody has; `known` says the tests of each (package, target)."""
    wrong = []
    for row in rows:
        for test in row.tests:
            if is_tool(test):
                there = tool(test)[0].is_file()
            else:
                package, target, path = split(test)
                there = path in known.get((package, target), ())
            if not there:
                wrong.append(f"{row.id}: there is no test {test}")
    return wrong
