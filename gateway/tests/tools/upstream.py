"""An upstream for proxies to be compared by: reads as little as it can, so that what a proxy lets through is answered well.

    upstream.py PORT [RESPONSES]

Answers 200 with `saw: METHOD TARGET LENGTH`, the length being that of the body; `/large` with 8 MiB; `/slow` after half a second.
`/r/N` is answered with the bytes of the Nth case of RESPONSES (see differential-responses.txt).
"""

import asyncio
import re
import sys


def unescape(text):
    """Escapes as in gateway/tests/live/corpus."""
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


def cases(path):
    """Name, other columns, in order."""
    with open(path, encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file]
    return [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]


async def body(head, reader):
    """Its length, by whichever framing the head has."""
    length = re.search(rb"(?i)\ncontent-length:\s*(\d+)", head)
    if re.search(rb"(?i)\ntransfer-encoding:.*chunked", head):
        total = 0
        while size := int((await reader.readline()).split(b";")[0] or b"0", 16):
            await reader.readexactly(size + 2)
            total += size
        await reader.readline()
        return total
    if length:
        await reader.readexactly(int(length[1]))
        return int(length[1])
    return 0


async def serve(reader, writer, responses):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target = head.split(b" ")[:2]
            seen = b"saw: %s %s %d\n" % (method, target, await body(head, reader))
            if case := re.fullmatch(rb"/r/(\d+)", target):
                raw = responses[int(case[1])][-1]
                end = re.search(r"<(close|hang)>$", raw)
                writer.write(unescape(raw[: end.start()] if end else raw))
                await writer.drain()
                if end and end[1] == "close":
                    return
                if end:
                    await asyncio.sleep(10)
                continue
            if target == b"/slow":
                await asyncio.sleep(0.5)
            if target == b"/large":
                seen = b"x" * (8 << 20)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(seen))
            if method != b"HEAD":
                writer.write(seen)
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError):
        pass
    finally:
        writer.close()


async def main():
    responses = cases(sys.argv[2]) if len(sys.argv) > 2 else []
    server = await asyncio.start_server(
        lambda r, w: serve(r, w, responses), "127.0.0.1", int(sys.argv[1]), backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
