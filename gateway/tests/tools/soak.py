"""The traffic, the changes and the faults of `soak`, and the verdict on what the process held. Not a test by itself."""

import argparse
import http.client
import os
import pathlib
import random
import socket
import ssl
import struct
import sys
import threading
import time

MIB = 1 << 20


def look(pid):
    """Resident MiB, descriptors, threads."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    field = lambda name: int(next(line for line in status.splitlines() if line.startswith(name)).split()[1])
    return field("VmRSS:") / 1024, len(os.listdir(f"/proc/{pid}/fd")), field("Threads:")


def slope(samples):
    """Least squares: what a second adds."""
    times, values = [at for at, _ in samples], [value for _, value in samples]
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in times)
    return sum((at - middle) * (value - mean) for at, value in samples) / spread if spread else 0.0


class Soak:
    def __init__(self, given):
        self.given, self.ended, self.lock = given, threading.Event(), threading.Lock()
        self.good, self.bad, self.faults, self.changes = 0, [], 0, 0

    def each(self, pause, work):
        """Does it again and again until the end; what it raises is noted, and ends it."""
        def run():
            while not self.ended.wait(pause):
                try:
                    work()
                except Exception as error:  # noqa: BLE001: whatever it is, it is the verdict
                    if not self.ended.is_set():
                        self.bad.append(f"{work.__name__}: {error!r}")
                        return
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def plain(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.given.plain, timeout=20)
        for _ in range(50):
            self.expect(connection, "GET", "/soak")
            self.expect(connection, "POST", "/soak", b"x" * random.randrange(20_000))
        connection.close()

    def secure(self):
        context = ssl.create_default_context(cafile=self.given.ca)
        raw = socket.create_connection(("127.0.0.1", self.given.secure), timeout=20)
        with context.wrap_socket(raw, server_hostname="edge.example") as stream:
            stream.sendall(b"GET /tls HTTP/1.1\r\nHost: edge.example\r\nConnection: close\r\n\r\n")
            answer = b""
            while part := stream.recv(65536):
                answer += part
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ValueError(answer[:80])
        self.count()

    def expect(self, connection, method, path, body=None):
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise ValueError(f"{method} {path}: {answer.status}")
        self.count()

    def count(self):
        with self.lock:
            self.good += 1

    def change(self):
        """One more VirtualService, another each time; every fifth is broken."""
        self.changes += 1
        number = self.changes % 40
        timeout = "never" if self.changes % 5 == 0 else f"{number + 1}s"
        text = (f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: soak, namespace: default}}\n"
                f"spec: {{hosts: [soak{number}.example], gateways: [gw], http: [{{timeout: {timeout}, route: "
                f"[{{destination: {{host: up.example, port: {{number: 80}}}}}}]}}]}}\n")
        folder = pathlib.Path(self.given.config)
        (folder / ".soak.new").write_text(text)
        (folder / ".soak.new").rename(folder / "soak.yaml")

    def fault(self):
        """A client or an upstream that misbehaves."""
        self.faults += 1
        kind = random.randrange(6)
        with socket.create_connection(("127.0.0.1", self.given.plain), timeout=20) as stream:
            if kind == 0:  # leaves by reset within an upload
                stream.sendall(b"POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc")
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif kind == 1:  # half a head, and silence
                stream.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
                stream.recv(100)
            elif kind == 2:  # noise
                stream.sendall(random.randbytes(random.randrange(1, 3000)))
            elif kind == 3:  # an upstream that is not there
                stream.sendall(b"GET /dead HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                stream.recv(4096)
            elif kind == 4:  # two readings
                stream.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
                stream.recv(4096)
            else:  # HTTP/2, and gone
                stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x08\x06\0\0\0\0\0calmdown")
                stream.recv(4096)

    def tolerant(self):
        """A fault whose end is whatever it is: a reset is an answer too."""
        try:
            self.fault()
        except OSError:
            pass

    def run(self):
        for _ in range(3):
            self.each(0.01, self.plain)
        self.each(0.05, self.secure)
        self.each(0.5, self.change)
        self.each(0.05, self.tolerant)
        begin, seconds, samples = time.monotonic(), self.given.minutes * 60, []
        while (now := time.monotonic() - begin) < seconds and not self.bad:
            if now > seconds / 5:
                samples.append((now, *look(self.given.pid)))
            time.sleep(min(1.0, seconds / 200))
        self.ended.set()
        return samples


def verdict(samples, minutes):
    """What is wrong with what the process held, and what it was."""
    memory = [(at, resident) for at, resident, _, _ in samples]
    an_hour = slope(memory) * 3600
    grown = an_hour * minutes * 0.8 / 60
    half = len(samples) // 2
    most = lambda part, index: max(sample[index] for sample in part)
    wrong = []
    if an_hour > 1 and grown > 4:
        wrong.append(f"memory grew by {grown:.1f} MiB, {an_hour:.1f} an hour")
    for index, name, slack in ((2, "descriptors", 10), (3, "threads", 2)):
        before, after = most(samples[:half], index), most(samples[half:], index)
        if after > before * 1.2 + slack:
            wrong.append(f"{name}: {before} at the most in the first half, {after} in the second")
    said = (f"{memory[0][1]:.0f} MiB after a fifth of the time, {memory[-1][1]:.0f} at the end ({grown:+.1f} by the trend), "
            f"at most {most(samples, 2)} descriptors and {most(samples, 3)} threads")
    return wrong, said


def main():
    arguments = argparse.ArgumentParser()
    for name in ("pid", "plain", "secure"):
        arguments.add_argument(f"--{name}", type=int, required=True)
    arguments.add_argument("--minutes", type=float, required=True)
    for name in ("config", "ca"):
        arguments.add_argument(f"--{name}", required=True)
    soak = Soak(arguments.parse_args())
    samples = soak.run()
    if soak.bad or len(samples) < 4:
        sys.exit(f"soak: {soak.bad or 'no samples'}")
    wrong, said = verdict(samples, soak.given.minutes)
    print(f"measured: soak of {soak.given.minutes:g} minutes: {soak.good} requests, {soak.changes} changes, {soak.faults} faults; {said}")
    sys.exit("soak: " + "; ".join(wrong) if wrong else None)


if __name__ == "__main__":
    main()
