"""Sends each case to each proxy and prints what came back; fails where the first is not as written.

    differential.py REQUESTS RESPONSES NAME=PORT… [--write FILE]

With --write the table takes the place of what stands between the marks in FILE.
"""

import re
import socket
import sys
import time

from upstream import cases, unescape

# What no corpus can say: a pause, and an end of one side.
IN_TIME = [
    (
        "second request while the first is in flight",
        "200,200 GET /slow 0; GET /2 0",
        [b"GET /slow HTTP/1.1\r\nHost: up.example.com\r\n\r\n", 0.1, b"GET /2 HTTP/1.1\r\nHost: up.example.com\r\n\r\n"],
    ),
    ("half-close after the request", "x", [b"GET /slow HTTP/1.1\r\nHost: up.example.com\r\n\r\n", 0.1, None]),
    ("upstream refuses", "503", [b"GET /refused HTTP/1.1\r\nHost: up.example.com\r\n\r\n"]),
]
HOP = {b"x-secret", b"keep-alive", b"proxy-authenticate", b"upgrade", b"x-trailer"}


def exchange(port, steps, patience=0.8):
    """All that comes, and whether the connection is closed at the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        got, closed = b"", False
        try:
            for step in steps:
                if step is None:
                    client.shutdown(socket.SHUT_WR)
                elif isinstance(step, float):
                    time.sleep(step)
                else:
                    client.sendall(step)
            while more := client.recv(65536):
                got += more
                # What there is comes at once; then only the end can.
                client.settimeout(patience)
            closed = True
        except TimeoutError:
            pass
        except OSError:
            closed = True
    return got, closed


def request(port, steps):
    """`200,200x GET /1 0`: statuses, an `x` where the connection was closed, and what the upstream says that it saw."""
    got, closed = exchange(port, steps)
    statuses = b",".join(re.findall(rb"HTTP/1\.[01] (\d{3})", got)).decode()
    seen = b"; ".join(re.findall(rb"saw: ([^\n]*)\n", got)).decode("latin-1")
    return (statuses + ("x" if closed else "") + (f" {seen}" if seen else "")).strip()


def response(port, number):
    """`103,200 cut keep-alive`: statuses, whether the body ends before its framing does, and fields of the hop that were let through."""
    ask = b"GET /r/%d HTTP/1.1\r\nHost: up.example.com\r\nConnection: close\r\n\r\n" % number
    got, closed = exchange(port, [ask], patience=3)
    statuses = []
    while match := re.match(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n", got):
        statuses.append(match[1].decode())
        head, _, got = got.partition(b"\r\n\r\n")
        if not match[1].startswith(b"1"):
            break
    if not statuses:
        return "closed" if closed else "nothing"
    fields = [line.split(b":", 1) for line in head.split(b"\r\n")[1:]]
    values = {name.lower(): value.strip() for name, *value in fields for value in value}
    cut = False
    if values.get(b"transfer-encoding"):
        cut = not re.search(rb"(^|\r\n)0\r\n([^\r\n]+\r\n)*\r\n$", got)
    elif b"content-length" in values:
        cut = len(got) < int(values[b"content-length"].split(b",")[0])
    leaked = sorted(name for name in HOP if name in values or (name == b"x-trailer" and b"X-Trailer" in got))
    return " ".join([",".join(statuses), *(["cut"] if cut else []), *(name.decode() for name in leaked)])


def main():
    write = sys.argv[sys.argv.index("--write") + 1] if "--write" in sys.argv else None
    args = sys.argv[1 : sys.argv.index("--write") if write else None]
    requests, responses, *proxies = args
    ports = [(name, int(port)) for name, port in (p.split("=") for p in proxies)]
    rows = []
    for name, want, seen, raw in cases(requests):
        want = " ".join([want] + ([] if seen == "-" else [seen.replace(";", "; ")]))
        rows.append((name, want, [request(port, [unescape(raw)]) for _, port in ports]))
    for name, want, steps in IN_TIME:
        rows.append((name, want, [request(port, steps) for _, port in ports]))
    between = len(rows)
    for number, (name, want, _) in enumerate(cases(responses)):
        rows.append((name, want, [response(port, number) for _, port in ports]))
    wrong = [(name, want, got[0]) for name, want, got in rows if got[0] != want]

    def table(rows):
        head = ["case", *(name for name, _ in ports)]
        lines = [head, ["---"] * len(head)]
        # A bar would end the cell.
        lines += [[name, *(f"`{one or '-'}`".replace("|", "\\|") for one in got)] for name, _, got in rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    text = f"{table(rows[:between])}\n\n{table(rows[between:])}"
    print(text)
    if write and not wrong:
        with open(write, encoding="utf-8") as file:
            before, _, rest = file.read().partition("<!-- table -->\n")
        after = rest.partition("<!-- end of table -->")[2]
        with open(write, "w", encoding="utf-8") as file:
            file.write(f"{before}<!-- table -->\n{text}\n<!-- end of table -->{after}")
    for name, want, got in wrong:
        print(f"{name}: {got!r} where {want!r} is written", file=sys.stderr)
    print("differential: as expected" if not wrong else f"{len(wrong)} are not as written", file=sys.stderr)
    sys.exit(bool(wrong))


main()
