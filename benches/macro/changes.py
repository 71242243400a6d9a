"""Scenarios in which something else than a request is measured: a change under load, a change at rest, nothing at all."""

import statistics
import threading
import time

import checks
import load
import machine


def generation(running, work, n):
    """The generation that host `n` is served by, or nothing while it answers otherwise."""
    try:
        head = checks.ask(running.port, work, work.host(n), work.path(0) + "x")[1]
    except (OSError, checks.Wrong):
        return None
    return head.partition("\r\nx-gen: ")[2].split("\r\n")[0] if "\r\nx-gen: " in head else None


def under_load(peer, work, running, settings):
    """Load without changes, then as much with one each second; one sample a round."""
    samples = []
    count = 0
    for turn in range(max(1, min(settings.rounds, 3))):
        seconds = max(4, int(settings.seconds * 2))
        if turn == 0:
            load.wrk(running.port, work, 1)
        quiet, quiet_cpu = costed(running, lambda: load.wrk(running.port, work, seconds))
        stop, failures = threading.Event(), []

        def change_each_second():
            nonlocal count
            while not stop.wait(1):
                count += 1
                try:
                    peer.change(running, work, (count * 7) % work.hosts, count)
                except (OSError, RuntimeError) as error:
                    failures.append(str(error))

        thread = threading.Thread(target=change_each_second)
        thread.start()
        try:
            busy, busy_cpu = costed(running, lambda: load.wrk(running.port, work, seconds))
        finally:
            stop.set()
            thread.join()
        if failures:
            raise RuntimeError(failures[0])
        last = count
        machine.until("the last change", lambda: generation(running, work, (last * 7) % work.hosts) == str(last), 30, 0.05)
        samples.append(
            {
                "failed": busy.failed,
                "requests": busy.requests,
                "rps": busy.rps,
                "p99_before": quiet.p99,
                "p99": busy.p99,
                "p999_before": quiet.p999,
                "p999": busy.p999,
                "p99_ratio": busy.p99 / quiet.p99,
                "cpu_us_before": quiet_cpu / quiet.requests * 1e6,
                "cpu_us": busy_cpu / busy.requests * 1e6,
            }
        )
    return samples


def costed(running, call):
    before = machine.cpu(running.pid)
    got = call()
    return got, machine.cpu(running.pid) - before


def at_rest(peer, work, running, _settings):
    """How soon one change is served, asked for every 2 ms; and, without asking, the CPU of one."""
    live, count = [], 1000
    time.sleep(1.5)
    for _ in range(5):
        count += 1
        n = (count * 7919) % work.hosts
        begin = time.monotonic()
        peer.change(running, work, n, count)
        wanted = str(count)
        machine.until("the change", lambda n=n, wanted=wanted: generation(running, work, n) == wanted, 60, 0.002)
        live.append((time.monotonic() - begin) * 1e3)
        time.sleep(0.5)
    # Asked for seldom, so that the asking costs next to nothing, and less what rest costs.
    changes, begin, before = 10, time.monotonic(), machine.cpu(running.pid)
    for _ in range(changes):
        count += 1
        n, wanted = (count * 7919) % work.hosts, str(count)
        peer.change(running, work, n, count)
        time.sleep(0.6)
        machine.until("the change", lambda n=n, wanted=wanted: generation(running, work, n) == wanted, 60, 0.1)
    spent, took = machine.cpu(running.pid) - before, time.monotonic() - begin
    time.sleep(1)
    rest = machine.cpu(running.pid)
    time.sleep(5)
    spent -= (machine.cpu(running.pid) - rest) / 5 * took
    return [{"live_ms": statistics.median(live), "live_ms_worst": max(live), "change_cpu_ms": spent / changes * 1e3}]


def idle(_peer, _work, running, settings):
    """CPU of a second in which nothing is asked."""
    time.sleep(2)
    seconds = max(5, settings.seconds)
    before = machine.cpu(running.pid)
    time.sleep(seconds)
    return [{"idle_cpu_ms_s": (machine.cpu(running.pid) - before) / seconds * 1e3}]
