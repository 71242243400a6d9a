"""What the runner promises itself, without building anything."""

import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import cargo
import matrix
import report


def text(**changes):
    """A matrix with every row there is, of which some are changed."""
    rows = []
    for letter, count in matrix.ROWS.items():
        for number in range(1, count + 1):
            name = f"{letter}{number}"
            rows.append(changes.get(name, f'[[row]]\nid = "{name}"\ntitle = "t"\ntests = ["gateway::a::b"]\n'))
    return "\n".join(rows)


class Matrix(unittest.TestCase):
    def test_what_is_whole_is_read(self):
        rows = matrix.load(text())
        self.assertEqual(len(rows), 112)
        self.assertEqual(rows[0], matrix.Row("F1", "t", "quick", ("gateway::a::b",)))

    def test_what_is_wrong_is_named(self):
        head = '[[row]]\nid = "F2"\ntitle = "t"\n'
        for row, wants in [
            (head, "F2: neither a test nor a reason"),
            (head + 'kind = "slow"\nlacks = "x"\n', "F2: kind 'slow'"),
            (head + 'tests = ["some test"]\n', "F2: 'some test' names no test"),
            (head + 'lack = "x"\n', "F2: unknown fields ['lack']"),
            ("", "F2: is missing"),
            (head.replace("F2", "F1") + 'lacks = "x"\n', "F1: is out of order, there twice"),
        ]:
            with self.assertRaises(ValueError) as raised:
                matrix.load(text(F2=row))
            self.assertIn(wants, str(raised.exception))

    def test_a_test_that_nobody_has_is_missing(self):
        row = matrix.Row("F1", "t", "quick", ("gateway::a", "gateway/live::a", "tool slowhttptest 5", "tool none"))
        known = {("gateway", None): {"a"}, ("gateway", "live"): {"b"}}
        self.assertEqual(matrix.missing([row], known), ["F1: there is no test gateway/live::a", "F1: there is no test tool none"])

    def test_the_real_one_is_whole(self):
        matrix.load(matrix.FILE.read_text())


class Cargo(unittest.TestCase):
    def test_programs_are_found_by_package_and_target(self):
        def artifact(kind, name, test=True, executable="/t/x"):
            return json.dumps({
                "reason": "compiler-artifact", "manifest_path": "/w/gateway/Cargo.toml", "executable": executable,
                "profile": {"test": test}, "target": {"kind": [kind], "name": name},
            })

        lines = [artifact("lib", "gateway"), artifact("test", "live"), artifact("bin", "limen"), artifact("test", "x", False)]
        self.assertEqual(set(cargo.programs(lines)), {("gateway", None), ("gateway", "live")})

    def test_outcomes_are_read_from_what_was_said(self):
        out = "test a::one ... ok\ntest a::two ... FAILED\ntest a::three ... ok\n"
        err = "\n*** NOT TRIED: a::three (no namespaces)\n"
        got = cargo.read(out, err, ["a::one", "a::two", "a::three", "a::four"], "too late")
        self.assertEqual(got["a::one"].state, "ok")
        self.assertEqual(got["a::two"].state, "failed")
        self.assertEqual(got["a::three"], cargo.Outcome("not done", "no namespaces"))
        self.assertEqual(got["a::four"], cargo.Outcome("failed", "too late"))

    def test_numbers_are_gathered(self):
        self.assertEqual(cargo.MEASURED.findall("---- a stdout ----\nmeasured: 3 of 3\nx measured: 4\n"), ["3 of 3"])


class Report(unittest.TestCase):
    def test_a_row_is_as_good_as_its_worst_test(self):
        ok, bad, undone = cargo.Outcome("ok", ""), cargo.Outcome("failed", "why"), cargo.Outcome("not done", "no faketime")
        row = matrix.Row("F1", "t", "quick", ("a", "b"))
        for outcomes, wants in [
            ({"a": ok, "b": ok}, ("passed", "")),
            ({"a": undone, "b": bad}, ("FAILED", "b why")),
            ({"a": ok, "b": undone}, ("not done", "no faketime")),
            ({"a": ok}, ("skipped", "SCOPE=quick leaves it out")),
        ]:
            self.assertEqual(report.verdict(row, outcomes), wants)
        lacking = matrix.Row("F1", "t", "quick", ("a",), "half of it")
        self.assertEqual(report.verdict(lacking, {"a": ok}), ("not done", "half of it"))

    def test_the_total_counts_what_passed(self):
        rows = [(matrix.Row("F1", "t", "quick"), ("passed", "")), (matrix.Row("S1", "t", "quick"), ("not done", "x"))]
        self.assertEqual(report.total(rows), "faults 1/67, security 0/45")
        self.assertIn("| F1 | t | passed | ", report.page(rows, ["n"], 3, 61, ""))


if __name__ == "__main__":
    unittest.main()
