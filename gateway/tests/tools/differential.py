"""Sends each case to each proxy and prints what came back; fails where the first is not as the file says.

    differential.py CASES limen=PORT [NAME=PORT…]
    differential.py upstream PORT        serves what the other proxies forward to: 200 to whatever comes
"""

import re
import socket
import sys
import threading


def unescape(text):
    named = {"r": b"\r", "n": b"\n", "t": b"\t"}
    out, at = b"", 0
    while at < len(text):
        if text[at] != "\\":
            out, at = out + text[at].encode(), at + 1
        elif text[at + 1] == "x":
            out, at = out + bytes([int(text[at + 2 : at + 4], 16)]), at + 4
        else:
            out, at = out + named.get(text[at + 1], text[at + 1].encode()), at + 2
    return out


def answers(port, request):
    """Statuses in order, and an `x` where the connection was closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        got, closed = b"", False
        try:
            client.sendall(request)
            while more := client.recv(65536):
                got += more
                # What there is comes at once; then only the end can.
                client.settimeout(0.6)
            closed = True
        except TimeoutError:
            pass
        except OSError:
            closed = True
    statuses = re.findall(rb"HTTP/1\.[01] (\d{3})", got)
    return ",".join(s.decode() for s in statuses) + ("x" if closed else "")


def upstream(port):
    """Reads as little as it can, so that what a proxy lets through is answered well."""

    def serve(client):
        got = b""
        try:
            while more := client.recv(65536):
                got += more
                while b"\r\n\r\n" in got:
                    head, got = got.split(b"\r\n\r\n", 1)
                    length = re.search(rb"(?i)content-length:\s*(\d+)", head)
                    if length:
                        while len(got) < int(length[1]):
                            got += client.recv(65536)
                        got = got[int(length[1]) :]
                    elif b"chunked" in head.lower():
                        while b"0\r\n\r\n" not in got:
                            got += client.recv(65536)
                        got = got.split(b"0\r\n\r\n", 1)[1]
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except OSError:
            pass

    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def main():
    if sys.argv[1] == "upstream":
        upstream(int(sys.argv[2]))
    path, *proxies = sys.argv[1:]
    ports = [(name, int(port)) for name, port in (p.split("=") for p in proxies)]
    wrong = 0
    print(f"{'case':34}" + "".join(f"{name:>12}" for name, _ in ports) + f"{'as written':>14}")
    for line in open(path, encoding="utf-8"):
        if not line.strip() or line.startswith("#"):
            continue
        name, want, _, raw = line.rstrip("\n").split("\t")
        got = [answers(port, unescape(raw)) for _, port in ports]
        same = got[0] == want
        wrong += not same
        print(f"{name:34}" + "".join(f"{g or '-':>12}" for g in got) + f"{want:>14}" + ("" if same else "  WRONG"))
    print("differential: as expected" if not wrong else f"{wrong} are not as written")
    sys.exit(bool(wrong))


main()
