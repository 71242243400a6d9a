"""Asks each peer, before anything is measured, for what the load will ask, and for what it must refuse: who answers sooner because it
does less is not compared."""

import re
import socket
import ssl
import time
from pathlib import Path

import machine
import tools
import websocket
from load import MESSAGE
from work import BODY


class Wrong(Exception):
    """An answer that is not the one that was asked for."""


def ask(port, work, host, path):
    """One request by HTTP/1 on a new connection: status, head in lower case, body, and the version of TLS."""
    tls = ""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        stream = plain
        if work.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            stream = context.wrap_socket(plain, server_hostname=host)
            tls = stream.version()
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: check\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while more := stream.recv(1 << 16):
            parts.append(more)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        raise Wrong(f"no answer: {head[:80]!r}")
    return int(head.split()[1]), head.decode("latin-1").lower(), body, tls


def answers(running, work):
    """Whether the request of the load is answered with 200; a refused connection is a no."""
    host, prefix = work.asked
    try:
        if work.h2 and not work.tls:
            return h2(running.port, work, host, prefix + "x", running.folder)[0] == 200
        return ask(running.port, work, host, prefix + "x")[0] == 200
    except (OSError, Wrong, IndexError, ValueError):
        return False


def h2(port, work, host, path, scratch):
    """One request by HTTP/2, a gRPC call where the work is that: status, and all that was received, trailers too."""
    command = ["nghttp", "-nv", "-t", "10", "-H", f":authority: {host}"]
    if work.grpc:
        message = Path(scratch) / "message"
        message.write_bytes(MESSAGE)
        command += ["-d", message, "-H", "content-type: application/grpc", "-H", "te: trailers"]
    output, why = tools.quiet([*command, f"{work.scheme}://127.0.0.1:{port}{path}"])
    found = re.search(r":status: (\d+)", output or "")
    if found is None:
        raise Wrong(f"no answer by HTTP/2: {why}")
    return int(found.group(1)), output


def check(running, work, peer):
    """Raises Wrong where the peer does not do the work."""
    port, (host, prefix) = running.port, work.asked
    if work.h2:
        status, text = h2(port, work, host, prefix + "items", running.folder)
        expect(status == 200, f"HTTP/2 is answered with {status}")
        if work.grpc:
            expect("grpc-status: 0" in text, "a call ends without its status")
            return
    status, _, body, tls = ask(port, work, host, prefix + "items?page=2")
    expect(status == 200 and unchunked(body) == BODY, f"{status} {body[:60]!r} for {host}{prefix}")
    expect(not work.tls or tls == "TLSv1.3", f"{tls} in place of TLS 1.3")
    if work.tcp or peer.name == "bare Pingora":
        return
    for n in {0, work.hosts // 2}:
        expect(ask(port, work, work.host(n), work.path(0) + "x")[0] == 200, f"host {n} is not served")
    expect(ask(port, work, "other.example.com", prefix)[0] == 404, "a host that nobody named is served")
    expect(ask(port, work, host, "/other")[0] == 404, "a path that nobody named is served")
    if work.telemetry:
        seen = ask(port, work, host, prefix + "headers")[2].decode("latin-1").lower()
        for name in ("x-forwarded-for", "x-forwarded-proto", *(() if peer.name == "Traefik" else ("x-request-id",))):
            expect(f"\n{name}: " in seen, f"the upstream sees no {name}")
        # Several buffer their log, none for longer than this.
        for _ in range(40):
            if logged(running.log, prefix):
                break
            if peer.name == "Traefik":
                ask(port, work, host, prefix + "items?page=2")
            time.sleep(0.1)
        expect(logged(running.log, prefix), "the access log has no line of the request")
    if work.websocket:
        with websocket.connect(port, host, prefix) as client:
            expect(websocket.echo(client), "a WebSocket does not echo")


def logged(log, prefix):
    return log.exists() and prefix.encode() in log.read_bytes()


def unchunked(body):
    """The body of a single chunk; upstream's own length is passed on by all, but a proxy may send it so."""
    if body.endswith(b"0\r\n\r\n"):
        return body.partition(b"\r\n")[2][: -len(b"\r\n0\r\n\r\n")]
    return body


def expect(true, otherwise):
    if not true:
        raise Wrong(otherwise)


def ready(running, work, patience=90):
    """Seconds from now to the first right answer."""
    return machine.until("the first answer", lambda: answers(running, work), patience, process=running.process)
