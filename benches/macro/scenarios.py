"""What is measured: for each scenario the work, and the load that is put on it."""

from dataclasses import dataclass, field

from work import Work


@dataclass(frozen=True)
class Scenario:
    """`works` are variants that are measured by turns in one run, so that one may be held against another."""

    name: str
    title: str
    works: dict = field(default_factory=lambda: {"": Work()})
    # wrk, h2load, websocket; start, change, idle measure more than a load.
    load: str = "wrk"
    connections: int = 32
    path: str | None = None
    headers: tuple = ()
    # Bytes of a body, where it is throughput that is asked for.
    size: int = 0
    # None: all. Those left out are named with the reason.
    only: tuple | None = None


SERVERS = ("Limen", "Envoy", "nginx", "HAProxy")


def many(**more):
    return {f"{n:,} hosts": Work(hosts=n, **more) for n in (1, 1000, 10000)}


ALL = (
    Scenario("h1", "HTTP/1 keep-alive, small body, bare features", {"": Work(telemetry=False)}),
    Scenario("telemetry", "HTTP/1 keep-alive with access log, request id, forwarded headers (Envoy: as Istio sets it)"),
    Scenario("tls", "TLS 1.3 keep-alive, with telemetry", {"": Work(tls=True)}),
    Scenario("handshake", "TLS 1.3, a full handshake for each request", {"": Work(tls=True)}, headers=("Connection: close",)),
    Scenario("h2", "HTTP/2 over TLS, 4 connections of 32 streams", {"": Work(tls=True, h2=True)}, "h2load", 4),
    Scenario("grpc", "gRPC, HTTP/2 on both sides without TLS, 4 connections of 32 calls", {"": Work(h2=True, grpc=True)}, "h2load", 4),
    Scenario("body64k", "bodies of 64 KiB", connections=16, path="bytes/65536", size=1 << 16),
    Scenario("body1m", "bodies of 1 MiB", connections=16, path="bytes/1048576", size=1 << 20),
    Scenario("hosts", "1, 1,000 and 10,000 hosts with 5 routes and a cluster each; the last one is asked for", many(), only=SERVERS),
    Scenario(
        "prefixes",
        "one host with 5 and with 1,000 prefixes; the last one is asked for",
        {"5 prefixes": Work(), "1,000 prefixes": Work(prefixes=1000)},
        only=SERVERS,
    ),
    Scenario(
        "reload",
        "1,000 hosts under load, one of them changed each second",
        {"": Work(hosts=1000, changing=True)},
        "reload",
        only=SERVERS,
    ),
    Scenario(
        "change",
        "10,000 hosts at rest, one of them changed",
        {"": Work(hosts=10000, changing=True)},
        "change",
        only=SERVERS,
    ),
    Scenario("idle", "10,000 hosts at rest", {"": Work(hosts=10000)}, "idle", only=SERVERS),
    Scenario("websocket", "WebSocket, 32 connections, a message of 64 bytes there and back", {"": Work(websocket=True)}, "websocket"),
    Scenario("tcp", "a TCP port, with HTTP/1 keep-alive inside", {"": Work(tcp=True)}),
)


def chosen(names):
    """The scenarios by their names, all where none is given; raises ValueError for a name that there is not."""
    known = {scenario.name: scenario for scenario in ALL}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else list(ALL)
