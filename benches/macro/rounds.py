"""Measures one scenario: all its peers are started and checked, then loaded one after the other, round after round."""

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import changes
import checks
import load
import machine


@dataclass(frozen=True)
class Settings:
    """Of the whole run."""

    rounds: int
    seconds: float
    upstream: Path
    certificate: Path
    key: Path


def measure(scenario, peers, settings, say):
    """Rows of figures by peer and variant, and reasons for what is not there."""
    rows, skipped = [], {}
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        try:
            up = machine.free_port()
            machine.spawn([settings.upstream, f"127.0.0.1:{up}"], machine.LOAD, Path(scratch) / "upstream.out")
            started = list(begin(scenario, peers, settings, up, Path(scratch), skipped, say))
            if more := MORE.get(scenario.load):
                figures = more(started, settings, say)
            else:
                figures = by_turns(scenario, started, settings, scratch, skipped, say)
            for (peer, variant, _, running, seconds), samples in zip(started, figures, strict=True):
                if not samples:
                    continue
                row = {"peer": peer.name, "variant": variant, **summary(samples)}
                row["memory_mib"] = machine.memory(running.pid)
                row["start_s"] = seconds
                rows.append(row)
        finally:
            machine.stop_all()
    return rows, skipped


def begin(scenario, peers, settings, up, scratch, skipped, say):
    """Starts and checks each peer with each variant of the work; one that cannot do it is skipped with the reason."""
    for name, (peer, why) in peers.items():
        if scenario.only and name not in scenario.only:
            skipped[name] = "left out: its configuration for this is not in the harness"
            continue
        if peer is None:
            skipped[name] = why
            continue
        for variant, work in scenario.works.items():
            if why := peer.unable(work):
                skipped[name] = why
                continue
            folder = Path(tempfile.mkdtemp(dir=scratch))
            running = None
            try:
                running = peer.start(work, folder, machine.free_port(), up)
                seconds = checks.ready(running, work)
                checks.check(running, work, peer)
            except (OSError, RuntimeError, checks.Wrong) as error:
                skipped[name] = f"does not do the work{': ' + variant if variant else ''}: {error}"
                say(f"  {name} {variant} SKIPPED: {error}")
                said = folder / f"{name}.out"
                if said.exists():
                    say("    " + said.read_text(encoding="utf-8", errors="replace")[-600:].strip())
                if running is not None:
                    machine.stop(running.process)
                continue
            say(f"  {name} {variant}: ready after {seconds:.2f} s, {machine.memory(running.pid):.0f} MiB")
            yield peer, variant, work, running, seconds


def by_turns(scenario, started, settings, scratch, skipped, say):
    """The samples of each that was started. The first round only warms up, and leaves out who does not bear the load."""
    figures, out = [[] for _ in started], set()
    for turn in range(settings.rounds + 1):
        for at, (peer, variant, work, running, _) in enumerate(started):
            if at in out:
                continue
            try:
                sample = loaded(scenario, work, running, settings.seconds if turn else 1, scratch)
            except RuntimeError as error:
                if turn:
                    raise RuntimeError(f"{peer.name} {variant}: {error}") from error
                skipped[peer.name] = f"does not bear the load{': ' + variant if variant else ''}: {error}"
                out.add(at)
                say(f"  {peer.name} {variant} SKIPPED: {error}")
                continue
            if turn:
                figures[at].append(sample)
                say(f"  round {turn}: {peer.name} {variant} {sample['cpu_us']:.1f} us/request, {sample['rps']:.0f}/s")
    return figures


def each(measure_one):
    """One after the other, for what takes longer than a round."""

    def all_of(started, settings, say):
        figures = []
        for peer, variant, work, running, _ in started:
            figures.append(measure_one(peer, work, running, settings))
            say(f"  {peer.name} {variant}: {figures[-1][-1]}")
        return figures

    return all_of


def loaded(scenario, work, running, seconds, scratch):
    """One run of the load: CPU a request, throughput, latency."""
    if running.log and running.log.exists() and running.log.stat().st_size > 1 << 30:
        # Appended to, so that it goes on at the beginning.
        with open(running.log, "r+b") as log:
            log.truncate()
    before = machine.cpu(running.pid)
    if scenario.load == "h2load":
        got = load.h2load(running.port, work, seconds, scratch, scenario.connections)
    elif scenario.load == "websocket":
        got = load.websocket(running.port, work, seconds, scenario.connections)
    else:
        got = load.wrk(running.port, work, seconds, scenario.connections, scenario.path, scenario.headers)
    spent = machine.cpu(running.pid) - before
    if not got.requests:
        raise RuntimeError("no request of the load was answered")
    sample = {"cpu_us": spent / got.requests * 1e6, "rps": got.rps, "p50": got.p50, "p99": got.p99, "p999": got.p999, "failed": got.failed}
    if scenario.size and spent:
        sample["gb_per_cpu_s"] = got.requests * scenario.size / spent / 1e9
    return sample


def summary(samples):
    """The median of each figure over the rounds, and how far the CPU time lay apart; what is counted is added up."""
    row = {}
    for key in samples[0]:
        values = [sample[key] for sample in samples]
        row[key] = sum(values) if key in ("failed", "requests") else statistics.median(values)
    if len(samples) > 1 and "cpu_us" in row:
        row["cpu_us_range"] = [min(sample["cpu_us"] for sample in samples), max(sample["cpu_us"] for sample in samples)]
    return row


MORE = {"reload": each(changes.under_load), "change": each(changes.at_rest), "idle": each(changes.idle)}
