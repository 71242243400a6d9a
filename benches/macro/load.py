"""Runs a load tool against a port and reads what it prints: one `Load` from each of wrk, h2load and the WebSocket client."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import machine

HERE = Path(__file__).parent
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
PERCENTILES = (50, 99, 99.9)
# One message of gRPC, with its length before it.
MESSAGE = b"\0\0\0\0\x07\n\x05world"


@dataclass
class Load:
    """What came of a run: milliseconds, and requests that were answered as they should or not."""

    requests: int
    seconds: float
    p50: float
    p99: float
    p999: float
    failed: int

    @property
    def rps(self):
        return self.requests / self.seconds if self.seconds else 0.0


def percentile(values, share):
    """The value below which `share` percent of the sorted values are, by nearest rank."""
    if not values:
        return 0.0
    rank = -(-len(values) * share // 100)
    return values[max(0, min(len(values) - 1, int(rank) - 1))]


def number(text, pattern, default=None):
    found = re.search(pattern, text)
    if found is None:
        if default is None:
            raise RuntimeError(f"no {pattern!r} in the output of the load tool:\n{text}")
        return default
    return float(found.group(1))


def parse_wrk(text):
    """The output of wrk with `percentiles.lua`."""
    seconds = re.search(r"requests in ([\d.]+)(us|ms|s|m)\b", text)
    if seconds is None:
        raise RuntimeError(f"wrk did not finish:\n{text}")
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    failed = sum(map(int, errors.groups())) if errors else 0
    unwanted = int(number(text, r"Non-2xx or 3xx responses: (\d+)", 0))
    latency = {name: number(text, rf"p{name} ([\d.]+) us") / 1e3 for name in ("50", "99", "99.9")}
    return Load(
        requests=int(number(text, r"(\d+) requests in")) - unwanted,
        seconds=float(seconds.group(1)) * UNITS[seconds.group(2)] / 1e3,
        p50=latency["50"],
        p99=latency["99"],
        p999=latency["99.9"],
        failed=failed + unwanted,
    )


def parse_h2load(text, log):
    """The output of h2load, and its log of requests: begin, status and microseconds of each."""
    finished = re.search(r"finished in ([\d.]+)(us|ms|s|m)\b", text)
    if finished is None:
        raise RuntimeError(f"h2load did not finish:\n{text}")
    good = int(number(text, r"status codes: (\d+) 2xx"))
    counts = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", text)
    # Those still under way at the end of the time are counted as failed by neither side.
    failed = int(counts.group(1)) if counts else 0
    failed += sum(int(number(text, rf"(\d+) {kind}xx", 0)) for kind in "345")
    took = sorted(int(line.split("\t")[2]) for line in log.splitlines() if line.count("\t") == 2)
    p50, p99, p999 = (percentile(took, share) / 1e3 for share in PERCENTILES)
    return Load(good, float(finished.group(1)) * UNITS[finished.group(2)] / 1e3, p50, p99, p999, failed)


def _run(command, cores, patience):
    prepared = ["taskset", "-c", ",".join(map(str, sorted(cores))), *map(str, command)]
    done = subprocess.run(prepared, capture_output=True, text=True, timeout=patience, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def wrk(port, work, seconds, connections=32, path=None, headers=()):
    """Keep-alive requests, as many as are answered, by one thread."""
    host, prefix = work.asked
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", HERE / "percentiles.lua", "-H", f"Host: {host}"]
    for header in headers:
        command += ["-H", header]
    command.append(f"{work.scheme}://127.0.0.1:{port}{prefix}{path or 'items?page=2'}")
    return parse_wrk(_run(command, machine.LOAD, seconds + 60))


def h2load(port, work, seconds, scratch, connections=4, streams=32):
    """HTTP/2, `streams` at a time on each connection; gRPC calls of one message where the work is that."""
    host, prefix = work.asked
    log = Path(scratch) / "h2load.log"
    log.unlink(missing_ok=True)
    command = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", f"--log-file={log}", "-H", f":authority: {host}"]
    if work.grpc:
        message = Path(scratch) / "message"
        message.write_bytes(MESSAGE)
        command += ["-d", message, "-H", "content-type: application/grpc", "-H", "te: trailers"]
    command.append(f"{work.scheme}://127.0.0.1:{port}{prefix}{'echo.Echo/Say' if work.grpc else 'items?page=2'}")
    output = _run(command, machine.LOAD, seconds + 60)
    return parse_h2load(output, log.read_text(encoding="ascii"))


def websocket(port, work, seconds, connections=32):
    """Messages of 64 bytes, each sent when the last one is back."""
    host, prefix = work.asked
    output = _run([sys.executable, HERE / "websocket.py", port, host, prefix, connections, seconds], machine.LOAD, seconds + 60)
    requests, took, *latency, failed = output.split()
    return Load(int(requests), float(took), *map(float, latency), int(failed))
