#!/usr/bin/env python3
"""What carrying bytes in the kernel saves (decision 14): CPU time of the gateway for one GiB over a TCP route, spliced and copied.

    [LIMEN_BIN=target/release/limen] benches/load/splice.py [ROUNDS]

The copied one goes through a tunnel that the upstream itself opens (DestinationRule `tunnel`): the same sockets and the same bytes, and
the one thing that keeps them out of the kernel's pipe. Rounds alternate; medians are printed, and each way: from the upstream, to it.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

SIZE = 1 << 30
BLOCK = bytes(256 << 10)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def upstream():
    """Opens a tunnel where one is asked for; then `d`: sends so much; `u`: takes so much and says when it has."""

    def serve(client):
        with client:
            head = client.recv(1)
            if head == b"C":
                while not head.endswith(b"\r\n\r\n"):
                    head += client.recv(1)
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                head = client.recv(1)
            if head == b"d":
                for _ in range(SIZE // len(BLOCK)):
                    client.sendall(BLOCK)
            elif head:
                drain(client)
                client.sendall(b"x")

    server = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return server.getsockname()[1]


def drain(stream):
    left, buffer = SIZE, bytearray(1 << 20)
    while left:
        count = stream.recv_into(buffer, min(left, len(buffer)))
        assert count, "cut off"
        left -= count


def config(up, spliced, copied):
    server = "  - {port: {number: %d, name: tcp-%s, protocol: TCP}, hosts: ['*']}\n"
    text = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: default}\nspec:\n  selector: {istio: ingressgateway}\n  servers:\n"
    text += server % (spliced, "a") + server % (copied, "b")
    text += f"""---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: vs, namespace: default}}
spec:
  hosts: ['*']
  gateways: [gw]
  tcp:
  - match: [{{port: {spliced}}}]
    route: [{{destination: {{host: spliced.example, port: {{number: 80}}}}}}]
  - match: [{{port: {copied}}}]
    route: [{{destination: {{host: copied.example, port: {{number: 80}}}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: copied, namespace: default}}
spec: {{host: copied.example, trafficPolicy: {{tunnel: {{targetHost: far.example, targetPort: 80}}}}}}
"""
    for name in ("spliced", "copied"):
        text += f"""---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [{name}.example]
  resolution: STATIC
  ports: [{{number: 80, name: tcp, protocol: TCP}}]
  endpoints: [{{address: 127.0.0.1, ports: {{tcp: {up}}}}}]
"""
    return text


def cpu(pid):
    """User and system seconds so far."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def carry(pid, port, way):
    before, begin = cpu(pid), time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(way)
        if way == b"d":
            drain(client)
        else:
            for _ in range(SIZE // len(BLOCK)):
                client.sendall(BLOCK)
            assert client.recv(1) == b"x"
    wall, after = time.monotonic() - begin, cpu(pid)
    return after[0] - before[0], after[1] - before[1], wall


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    spliced, copied, admin, status, metrics = (free_port() for _ in range(5))
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/all.yaml", "w", encoding="utf-8") as file:
            file.write(config(upstream(), spliced, copied))
        binary = os.environ.get("LIMEN_BIN", "target/release/limen")
        flags = ["--bind", "127.0.0.1", "--threads", "1", "--access-log", "off", "--config", folder]
        for flag, port in (("--admin", admin), ("--status-addr", status), ("--metrics-addr", metrics)):
            flags += [flag, f"127.0.0.1:{port}"]
        with subprocess.Popen([binary, "run", *flags], stderr=subprocess.DEVNULL) as gateway:
            try:
                deadline = time.monotonic() + 20
                while True:
                    try:
                        socket.create_connection(("127.0.0.1", copied)).close()
                        break
                    except OSError:
                        assert time.monotonic() < deadline and gateway.poll() is None, "the gateway does not start"
                        time.sleep(0.1)
                seen = {}
                for _ in range(rounds):
                    for name, port in (("spliced", spliced), ("copied", copied)):
                        for way in (b"d", b"u"):
                            seen.setdefault((way, name), []).append(carry(gateway.pid, port, way))
            finally:
                gateway.kill()
    for way, what in ((b"d", "from the upstream"), (b"u", "to the upstream")):
        totals = {}
        for name in ("spliced", "copied"):
            runs = seen[way, name]
            user, system, wall = (statistics.median(column) for column in zip(*runs))
            totals[name] = statistics.median(user + system for user, system, _ in runs)
            print(f"{what:18} {name:8} {user:6.2f} s user {system:6.2f} s system {wall:6.2f} s in all, a GiB")
        print(f"{what:18} CPU time saved: {1 - totals['spliced'] / totals['copied']:.0%}")


main()
