"""The parts of the harness that only compute: what load tools print, tables, ratios, the picture, and the configurations in JSON.

    python3 -m unittest discover -s benches/macro
"""

import json
import tempfile
import unittest
import xml.dom.minidom
from pathlib import Path

import chart
import checks
import load
import machine
import peers
import report
import rounds
import scenarios
import targets
from peers.envoy import discovered, routes
from peers.limen import host
from work import Work

WRK = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.80ms    4.86ms  43.24ms   94.41%
    Req/Sec     7.94k     2.21k   10.26k    70.00%
  7897 requests in 1.10s, 1.14MB read
  Socket errors: connect 1, read 2, write 0, timeout 4
  Non-2xx or 3xx responses: 97
Requests/sec:   7875.33
Transfer/sec:      1.13MB
p50 1050 us
p99 20500 us
p99.9 43240 us
"""
H2LOAD = """finished in 1.05s, 28571.43 req/s, 3.02MB/s
requests: 30000 total, 30128 started, 30000 done, 29990 succeeded, 10 failed, 0 errored, 0 timeout
status codes: 29990 2xx, 0 3xx, 3 4xx, 7 5xx
traffic: 3.17MB (3324000) total
"""


class Loads(unittest.TestCase):
    def test_wrk(self):
        got = load.parse_wrk(WRK)
        self.assertEqual((got.requests, got.failed), (7800, 104))
        self.assertEqual((got.p50, got.p99, got.p999), (1.05, 20.5, 43.24))
        self.assertAlmostEqual(got.rps, 7800 / 1.1)

    def test_wrk_without_errors(self):
        text = "".join(line for line in WRK.splitlines(True) if "errors" not in line and "Non-2xx" not in line)
        self.assertEqual((load.parse_wrk(text).requests, load.parse_wrk(text).failed), (7897, 0))

    def test_a_load_that_did_not_run_is_an_error(self):
        with self.assertRaises(RuntimeError):
            load.parse_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")
        with self.assertRaises(RuntimeError):
            load.parse_h2load("", "")

    def test_h2load(self):
        got = load.parse_h2load(H2LOAD, "".join(f"1\t200\t{took}\n" for took in range(1000, 0, -1)))
        self.assertEqual((got.requests, got.failed), (29990, 20))
        self.assertEqual((got.p50, got.p99, got.p999), (0.5, 0.99, 0.999))

    def test_percentiles_are_values_that_were_measured(self):
        self.assertEqual([load.percentile([1, 2, 3, 4], share) for share in (0, 50, 75, 99.9)], [1, 2, 3, 4])
        self.assertEqual(load.percentile([], 99), 0)


class Machine(unittest.TestCase):
    def test_ticks_count_children_that_ended_and_a_name_with_spaces(self):
        self.assertEqual(machine.ticks("7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1"), 127)

    def test_what_a_process_maps(self):
        self.assertEqual(machine.kibibytes("Rss:  12 kB\nPss_Anon:\t 3 kB\nVmFlags: rd\n"), {"Rss": 12, "Pss_Anon": 3})

    def test_the_body_of_one_chunk(self):
        self.assertEqual(checks.unchunked(b"5\r\nhello\r\n0\r\n\r\n"), b"hello")
        self.assertEqual(checks.unchunked(b"hello"), b"hello")


def row(peer, variant="", **figures):
    return {"peer": peer, "variant": variant, **figures}


class Verdicts(unittest.TestCase):
    def test_a_ratio_is_of_one_run(self):
        run = {"telemetry": {"rows": [row("Limen", cpu_us=6.0), row("Envoy", cpu_us=10.0)]}}
        met = {verdict.target.factor: (verdict.met, verdict.ratio) for verdict in targets.judge(run)}
        self.assertEqual(met, {0.65: (True, 0.6), 0.55: (False, 0.6)})

    def test_a_variant_is_held_against_another(self):
        rows = [row("Limen", "1 hosts", cpu_us=10.0), row("Limen", "10,000 hosts", cpu_us=11.5)]
        (verdict,) = targets.judge({"hosts": {"rows": rows}})
        self.assertEqual((verdict.met, verdict.ratio), (False, 1.15))

    def test_limits_hold_at_the_limit(self):
        verdicts = targets.judge({"reload": {"rows": [row("Limen", failed=0, p99_ratio=1.3)]}})
        self.assertEqual([verdict.met for verdict in verdicts], [True, False])

    def test_nothing_is_said_of_what_was_not_measured(self):
        self.assertEqual(targets.judge({"telemetry": {"rows": [row("Envoy", cpu_us=1.0)]}}), [])

    def test_every_target_names_a_scenario_and_a_variant_of_it(self):
        known = {scenario.name: scenario.works for scenario in scenarios.ALL}
        for target in targets.ALL:
            self.assertIn(target.variant, known[target.scenario], target)
            self.assertIn(target.base or "", {*known[target.scenario], ""}, target)

    def test_medians(self):
        got = rounds.summary([{"cpu_us": 3.0, "failed": 1}, {"cpu_us": 1.0, "failed": 1}, {"cpu_us": 2.0, "failed": 0}])
        self.assertEqual(got, {"cpu_us": 2.0, "failed": 2, "cpu_us_range": [1.0, 3.0]})


class Pages(unittest.TestCase):
    rows = [row("Limen", cpu_us=6.04, memory_mib=30.0), row("Envoy", cpu_us=10.0, memory_mib=60.0)]
    scenario = {"title": "a <b>", "date": "2026-01-02", "rounds": 5, "seconds": 3, "rows": rows, "skipped": {"Caddy": "not here"}}

    def test_a_table_has_the_columns_that_somebody_has(self):
        head, line, ours, theirs = report.table(self.rows)
        self.assertEqual(head, "|  | CPU µs/request | memory MiB | CPU : Envoy |")
        self.assertEqual(line, "|---|--:|--:|--:|")
        self.assertEqual((ours, theirs), ("| **Limen** | 6.0 | 30 | 0.60 |", "| Envoy | 10.0 | 60 | 1.00 |"))

    def test_the_page_says_what_is_met_and_who_is_not_there(self):
        results = {"machine": "m", "versions": {"Limen": "1"}, "scenarios": {"telemetry": self.scenario}}
        page = report.page(results, {})
        self.assertIn("| 6.04 | 10.00 | 0.60 | met |", page)
        self.assertIn("not met (stretch)", page)
        self.assertIn("Caddy is not in it: not here.", page)

    def test_the_chart_is_a_picture(self):
        xml.dom.minidom.parseString(chart.svg({"telemetry": self.scenario}))


class Configurations(unittest.TestCase):
    def test_scenarios_are_chosen_by_name(self):
        self.assertEqual([one.name for one in scenarios.chosen(["tls", "h1"])], ["tls", "h1"])
        self.assertEqual(scenarios.chosen([]), list(scenarios.ALL))
        with self.assertRaises(ValueError):
            scenarios.chosen(["none"])

    def test_a_change_is_of_one_host(self):
        work = Work(hosts=3, changing=True)
        resource = json.loads(discovered(routes(work, {1: 7})))["resources"][0]
        seen = [one["routes"][0]["response_headers_to_add"][0]["header"]["value"] for one in resource["virtual_hosts"]]
        self.assertEqual(seen, ["0", "7", "0"])
        self.assertIn("x-gen: '7'", host(work, 1, 80, 81, 7))

    def test_every_peer_says_of_every_work_whether_it_does_it(self):
        for kind in peers.ALL:
            peer = kind(Path("x"), Path("c"), Path("k"))
            for scenario in scenarios.ALL:
                for work in scenario.works.values():
                    self.assertIn(type(peer.unable(work)), (str, type(None)))

    def test_nginx_has_a_block_for_each_host(self):
        nginx = next(kind for kind in peers.ALL if kind.name == "nginx")(Path("x"), Path("c"), Path("k"))
        with tempfile.TemporaryDirectory() as folder:
            text = nginx.config(Work(hosts=2, tls=True), Path(folder), 80, 81, None)
        self.assertEqual((text.count("server_name h"), text.count("listen 127.0.0.1:80 ssl")), (2, 3))


if __name__ == "__main__":
    unittest.main()
