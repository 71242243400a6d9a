"""A client of WebSockets: on each connection a message of 64 bytes is sent when the last one has come back.

    websocket.py PORT HOST PATH CONNECTIONS SECONDS

Prints messages, seconds, the 50th, 99th and 99.9th percentile in milliseconds, and connections that were lost.
"""

import selectors
import socket
import sys
import time

from load import PERCENTILES, percentile

PAYLOAD = bytes(64)
# A mask of zeros is a mask: what is sent and what comes back differ in the bit that says so.
MESSAGE = b"\x82" + bytes([0x80 | len(PAYLOAD)]) + bytes(4) + PAYLOAD
ECHO = b"\x82" + bytes([len(PAYLOAD)]) + PAYLOAD
# The key of RFC 6455, section 1.3, which is the one that the upstream knows the answer to.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def connect(port, host, path):
    """An upgraded connection; raises where the answer is another."""
    client = socket.create_connection(("127.0.0.1", port), timeout=5)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(
        f"GET {path}echo HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        if not byte:
            break
        head += byte
    if not head.startswith(b"HTTP/1.1 101") or ACCEPT not in head:
        raise RuntimeError(f"no WebSocket: {head!r}")
    return client


def echo(client):
    """One message there and back."""
    client.sendall(MESSAGE)
    got = b""
    while len(got) < len(ECHO):
        more = client.recv(len(ECHO) - len(got))
        if not more:
            break
        got += more
    return got == ECHO


def main(port, host, path, connections, seconds):
    selector, lost, took = selectors.DefaultSelector(), 0, []
    for _ in range(connections):
        client = connect(port, host, path)
        client.settimeout(0)
        selector.register(client, selectors.EVENT_READ, [time.monotonic(), b""])
        client.send(MESSAGE)
    begin = now = time.monotonic()
    while now - begin < seconds and len(selector.get_map()):
        for key, _ in selector.select(1):
            try:
                got = key.fileobj.recv(4096)
            except OSError:
                got = b""
            now = time.monotonic()
            state = key.data
            state[1] += got
            if not got or not ECHO.startswith(state[1]):
                lost += 1
                selector.unregister(key.fileobj)
            elif len(state[1]) == len(ECHO):
                took.append(now - state[0])
                state[:] = now, b""
                key.fileobj.send(MESSAGE)
        now = time.monotonic()
    took.sort()
    print(len(took), now - begin, *(percentile(took, share) * 1e3 for share in PERCENTILES), lost)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
