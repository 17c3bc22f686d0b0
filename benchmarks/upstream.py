"""The upstream of the benchmark: `bench-n200-t20` streams 200 events, 20 ms apart; each tells when it was written.

python benchmarks/upstream.py PORT
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import cast

import uvloop

MODEL = re.compile(rb'"model":\s*"bench-n(\d+)-t(\d+)"')
LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LATE = 0.5  # events this many gaps late are written at once, with their successors: the pace is the schedule's


def chunk(text: str) -> bytes:
    frame = f"data: {text}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(frame), frame)


def event(delta: dict[str, str], finish: str | None) -> str:
    return json.dumps(
        {
            "id": "chatcmpl-benchmark-0123456789",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "bench",
            "system_fingerprint": "fp_0123456789",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        }
    )


# The stamp is a fixed 20 digits, so that an event is one %-format and always 250 bytes or so.
DELTA = chunk(event({"content": "@" * 20 + " token"}, None)).replace(b"@" * 20, b"%020d")
LAST = chunk(event({}, "stop")) + chunk("[DONE]") + b"0\r\n\r\n"


class Stream:
    """One answer being written."""

    def __init__(self, transport: asyncio.Transport, count: int, gap: float) -> None:
        self.transport = transport
        self.left = count
        self.gap = gap
        self.due = time.monotonic()
        self.loop = asyncio.get_running_loop()
        transport.write(HEAD)
        self.step()

    def step(self) -> None:
        if self.transport.is_closing():
            return
        while self.left:
            self.transport.write(DELTA % time.monotonic_ns())
            self.left -= 1
            if self.gap:
                self.due += self.gap
                self.loop.call_later(max(0.0, self.due - time.monotonic()), self.step)
                return
        self.transport.write(LAST)


class Server(asyncio.Protocol):
    """Reads a request with a content-length, writes the answer, keeps the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.pending = b""

    def data_received(self, data: bytes) -> None:
        self.pending += data
        head, found, body = self.pending.partition(b"\r\n\r\n")
        if not found:
            return
        length = LENGTH.search(head)
        if length is not None and len(body) < int(length[1]):
            return
        self.pending = b""
        asked = MODEL.search(body)
        if asked is None:
            self.transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        Stream(self.transport, int(asked[1]), int(asked[2]) / 1000)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
