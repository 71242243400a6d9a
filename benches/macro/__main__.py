"""The macro benchmarks: `make bench`, or `python3 benches/macro --help`.

Wires the rest in the order of a run: tools, peers, scenarios, results. Exits with 1 where a scenario could not be measured, 2 where a tool is
missing.
"""

import argparse
import datetime
import json
import signal
import sys
import tempfile
from pathlib import Path

import chart
import machine
import peers
import report
import rounds
import scenarios
import targets
import tools


def arguments():
    names = ", ".join(scenario.name for scenario in scenarios.ALL)
    parser = argparse.ArgumentParser(
        prog="benches/macro",
        description="Measures Limen and its peers on the same work.",
        epilog="LIMEN and EXAMPLES name a binary and a folder of examples in place of the release build; PROXY_CORE the proxy's core.",
    )
    parser.add_argument("--scenario", default="", help=f"which, with commas between; all without. There are {names}")
    parser.add_argument("--peers", default="", help="which, with commas between; all without")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of load in each round")
    parser.add_argument("--note", default="", help="what a reader of the results should know of this run")
    parser.add_argument("--out", type=Path, default=tools.ROOT / "benches/results")
    return parser.parse_args()


def words(text):
    return [word.strip() for word in text.split(",") if word.strip()]


def say(line):
    print(line, flush=True)


def find_peers(wanted, certificate, key, limen, examples):
    """Each peer, or why it is not there; and the versions of those that are."""
    found, versions = {}, {}
    known = {kind.name.lower(): kind for kind in peers.ALL}
    unknown = [name for name in wanted if name.lower() not in known]
    if unknown:
        raise tools.Missing(f"no peer {', '.join(unknown)}; there are {', '.join(kind.name for kind in peers.ALL)}")
    for kind in peers.ALL:
        if wanted and kind.name.lower() not in map(str.lower, wanted):
            found[kind.name] = (None, "left out of this run")
            continue
        binary, version, why = tools.find(kind.name, limen, examples)
        found[kind.name] = (kind(binary, certificate, key) if binary else None, why)
        if binary:
            versions[kind.name] = version
            say(f"{kind.name} {version}")
        else:
            say(f"{kind.name} SKIPPED: {why}")
    return found, versions


def kept(path):
    """The results of earlier runs: a scenario that is measured again takes the place of its last."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"scenarios": {}, "versions": {}}


def write(out, results):
    out.mkdir(parents=True, exist_ok=True)
    order = [scenario.name for scenario in scenarios.ALL]
    results["scenarios"] = {name: results["scenarios"][name] for name in order if name in results["scenarios"]}
    notes = {kind.name: kind.note for kind in peers.ALL}
    (out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "README.md").write_text(report.page(results, notes), encoding="utf-8")
    (out / "cpu.svg").write_text(chart.svg(results["scenarios"]), encoding="utf-8")


def main():
    asked = arguments()
    chosen = scenarios.chosen(words(asked.scenario))
    tools.need_load_tools()
    limen, examples = tools.built()
    results = kept(asked.out / "results.json")
    failed = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        certificate, key = tools.certificate(Path(folder))
        found, versions = find_peers(words(asked.peers), certificate, key, limen, examples)
        settings = rounds.Settings(asked.rounds, asked.seconds, examples / "upstream", certificate, key)
        results["machine"] = machine.describe()
        results["versions"] |= versions
        for scenario in chosen:
            say(f"\n{scenario.name}: {scenario.title}")
            try:
                rows, skipped = rounds.measure(scenario, found, settings, say)
            except (OSError, RuntimeError) as error:
                failed.append(scenario.name)
                say(f"  NOT MEASURED: {error}")
                continue
            date = datetime.datetime.now(datetime.UTC).date().isoformat()
            steady = scenario.load not in ("change", "idle")
            results["scenarios"][scenario.name] = {
                "title": scenario.title,
                "date": date,
                "rounds": asked.rounds if steady else 0,
                "seconds": asked.seconds,
                "rows": rows,
                "skipped": skipped,
                "note": asked.note,
            }
            say("\n".join(report.table(rows)))
            for peer, why in skipped.items():
                say(f"{peer} is not in it: {why}")
            write(asked.out, results)
    new = {name: results["scenarios"][name] for name in (one.name for one in chosen) if name in results["scenarios"]}
    if verdicts := targets.judge(new):
        say("\n" + "\n".join(report.judged(verdicts)))
    say(f"\nwritten to {asked.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    # As an exception, so that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except (tools.Missing, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        machine.stop_all()
