"""That criterion's words are read, and that what became slow, or has no baseline, is named."""

import unittest

import baselines

TOLD = """
record/one outcome      time:   [42.391 ns 42.486 ns 42.864 ns]
                        change: [-1.2% +0.1% +1.9%] (p = 0.86 > 0.05)
1,000 VirtualServices/compile from nothing
                        time:   [5.4921 ms 5.5129 ms 5.5958 ms]
Benchmarking log line/text
log line/text           time:   [1.1001 \u00b5s 1.2002 \u00b5s 1.3003 \u00b5s]
"""


class Baselines(unittest.TestCase):
    def test_times_are_read_with_their_names_and_units(self):
        want = {"record/one outcome": 42.486, "1,000 VirtualServices/compile from nothing": 5512900.0, "log line/text": 1200.2}
        for name, time in baselines.times(TOLD):
            self.assertAlmostEqual(time, want.pop(name), places=3)
        self.assertEqual(want, {})

    def test_what_is_slower_by_far_or_unknown_is_a_finding(self):
        known = {"a": 1.0, "b": 1.0, "gone": 1.0}
        found = dict(baselines.findings({"a": 4.9, "b": 5.1, "new": 1.0}, known))
        self.assertEqual(set(found), {"b", "gone", "new"})
        self.assertIn("5.1 times its baseline", found["b"])


if __name__ == "__main__":
    unittest.main()
