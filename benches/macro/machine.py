"""Processes of a run: cores, ports, CPU time and memory from /proc. None outlives the run."""

import os
import platform
import signal
import socket
import subprocess
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
ALL = sorted(os.sched_getaffinity(0))
# The proxy has one core for itself; load, upstream and this program have the others.
PROXY = {int(os.environ.get("PROXY_CORE", ALL[0]))}
LOAD = set(ALL) - PROXY or set(ALL)

_started = []


def describe():
    """The class of machine, without a name of it."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    virtual = ", virtual" if "hypervisor" in Path("/proc/cpuinfo").read_text(encoding="utf-8") else ""
    return f"{len(ALL)} cores of {model}{virtual}, Linux {platform.release().split('-')[0]}"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def spawn(command, cores, log, env=None, stdout=None):
    """Starts a process in a group of its own on the cores; what it says goes to the file `log`."""

    def prepare():
        os.sched_setaffinity(0, cores)

    with open(log, "ab") as out:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=stdout or out,
            stderr=out,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=prepare,
        )
    _started.append(process)
    return process


def stop(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    if process in _started:
        _started.remove(process)


def stop_all():
    for process in list(_started):
        stop(process)


def tree(pid):
    """The process and all below it that live."""
    found = [pid]
    for one in found:
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                found += map(int, Path(f"/proc/{one}/task/{task}/children").read_text(encoding="ascii").split())
        except OSError:
            continue
    return found


def ticks(stat):
    """Clock ticks in a line of /proc/PID/stat: user and system, of the process and of its children that have ended."""
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))


def cpu(pid):
    """Seconds of CPU of the process and all below it."""
    total = 0
    for one in tree(pid):
        try:
            total += ticks(Path(f"/proc/{one}/stat").read_text(encoding="utf-8"))
        except OSError:
            continue
    return total / TICK


def memory(pid):
    """Resident MiB of the process and all below it: what several of them share counts once, and so do the files that are mapped,
    whoever else on the machine runs the same."""
    own, files = 0, 0
    for one in tree(pid):
        try:
            parts = kibibytes(Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii"))
            mapped = kibibytes(Path(f"/proc/{one}/status").read_text(encoding="utf-8"))
        except OSError:
            continue
        own += parts.get("Pss_Anon", 0) + parts.get("Pss_Shmem", 0)
        files = max(files, mapped.get("RssFile", 0))
    return (own + files) / 1024


def kibibytes(text):
    """The fields of a file in /proc that are in kB."""
    fields = (line.split() for line in text.splitlines() if line.endswith(" kB"))
    return {words[0].rstrip(":"): int(words[1]) for words in fields}


def until(what, condition, patience, every=0.005, process=None):
    """Waits for the condition and returns the seconds that it took."""
    begin = time.monotonic()
    while not condition():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{what}: the process ended with {process.returncode}")
        if time.monotonic() - begin > patience:
            raise RuntimeError(f"{what}: not within {patience} s")
        time.sleep(every)
    return time.monotonic() - begin
