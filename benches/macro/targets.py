"""What Limen is to reach, as ratios within one run of one scenario, and whether it does. The comparison is never changed to meet one."""

from dataclasses import dataclass

OURS = "Limen"


@dataclass(frozen=True)
class Target:
    """`figure` of Limen in a scenario, held against `factor` times that of a peer or of a variant, or against `limit`."""

    text: str
    scenario: str
    figure: str
    variant: str = ""
    peer: str | None = None
    # The variant of Limen itself that it is held against.
    base: str | None = None
    factor: float = 1.0
    # With this the target is not a must.
    stretch: bool = False
    limit: float | None = None


ALL = (
    Target("CPU a request ≤ 0.65 × Envoy in Istio's configuration", "telemetry", "cpu_us", peer="Envoy", factor=0.65),
    Target("CPU a request ≤ 0.55 × Envoy in Istio's configuration", "telemetry", "cpu_us", peer="Envoy", factor=0.55, stretch=True),
    Target("CPU a request ≤ 1.2 × bare Pingora", "telemetry", "cpu_us", peer="bare Pingora", factor=1.2),
    Target("CPU a request ≤ 1.3 × nginx with log and forwarded headers", "telemetry", "cpu_us", peer="nginx", factor=1.3),
    Target("CPU a request ≤ 1.0 × nginx with log and forwarded headers", "telemetry", "cpu_us", peer="nginx", stretch=True),
    Target("TLS keep-alive: CPU ≤ 0.7 × Envoy", "tls", "cpu_us", peer="Envoy", factor=0.7),
    Target("full handshakes: CPU ≤ 1.05 × Envoy", "handshake", "cpu_us", peer="Envoy", factor=1.05),
    Target("HTTP/2: CPU ≤ 0.6 × Envoy", "h2", "cpu_us", peer="Envoy", factor=0.6),
    Target("10,000 hosts: memory ≤ 0.2 × Envoy", "hosts", "memory_mib", "10,000 hosts", "Envoy", factor=0.2),
    Target("10,000 hosts: CPU a request ≤ 1.1 × that with one", "hosts", "cpu_us", "10,000 hosts", base="1 hosts", factor=1.1),
    Target("1,000 prefixes: CPU a request ≤ 1.1 × that with five", "prefixes", "cpu_us", "1,000 prefixes", base="5 prefixes", factor=1.1),
    Target("10,000 hosts: start to the first 200 ≤ 0.5 s", "hosts", "start_s", "10,000 hosts", limit=0.5),
    # Writing is given 100 ms to end before what was written is read.
    Target("one of 10,000 hosts changed: live ≤ 50 ms after 100 ms of debounce", "change", "live_ms", limit=150.0),
    Target("one of 10,000 hosts changed: ≤ 30 ms of CPU", "change", "change_cpu_ms", limit=30.0),
    Target("reload under load: no failed request", "reload", "failed", limit=0.0),
    Target("reload under load: p99 ≤ 1.2 × that before", "reload", "p99_ratio", limit=1.2),
)


@dataclass(frozen=True)
class Verdict:
    """A target, what was measured and what it was held against; `ratio` is of the two."""

    target: Target
    measured: float
    against: float
    met: bool

    @property
    def ratio(self):
        return self.measured / self.against if self.against else None


def judge(scenarios):
    """Verdicts on the targets that a run says something about. `scenarios` maps names to what `report` keeps of each."""
    found = []
    for target in ALL:
        rows = {(row["peer"], row["variant"]): row for row in scenarios.get(target.scenario, {}).get("rows", [])}
        ours = rows.get((OURS, target.variant))
        if ours is None or target.figure not in ours:
            continue
        measured = ours[target.figure]
        if target.limit is not None:
            found.append(Verdict(target, measured, target.limit, measured <= target.limit))
            continue
        theirs = rows.get((target.peer or OURS, target.base if target.base is not None else target.variant))
        if theirs is None:
            continue
        against = theirs[target.figure]
        found.append(Verdict(target, measured, against, measured <= target.factor * against))
    return found
