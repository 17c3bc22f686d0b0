"""The client of the benchmark: keeps streams open through one port and reports what it saw, as one line of JSON.

    python benchmarks/load.py PORT MODEL --connections 100 --requests 1 --ramp 2 [--every 0.05]

`--every` starts a request on each connection at that interval (or at the end of the one before, if that is later), so
that the rate is set by the benchmark and not by the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from typing import cast

import httptools
import uvloop

STAMP = re.compile(rb'"content": ?"(\d{20})')


class Connection(asyncio.Protocol):
    """One connection: sends its requests one after another, reads each answer to its end."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.left = load.requests
        self.done = asyncio.get_running_loop().create_future()
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.due = time.monotonic()
        self.send()

    def send(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.left -= 1
        self.first = True
        self.ended = b""
        self.sent = time.monotonic_ns()
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.now = time.monotonic_ns()
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        load = self.load
        stamps = STAMP.findall(body)
        load.events += len(stamps)
        if stamps:
            load.relayed.append(self.now - int(stamps[-1]))
            if self.first:
                self.first = False
                load.opened(self.now - self.sent)
        self.ended = (self.ended + body)[-32:]

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() == 200 and b"data: [DONE]\n\n" in self.ended:
            self.load.whole += 1
        if not self.left:
            self.transport.close()
            return
        self.due = max(self.due + self.load.every, time.monotonic())
        asyncio.get_running_loop().call_later(max(0.0, self.due - time.monotonic()), self.send)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Load:
    """All connections, and what they saw."""

    def __init__(self, port: int, model: str, *, connections: int, requests: int, every: float) -> None:
        self.port = port
        self.connections = connections
        self.requests = requests
        self.every = every
        self.events = self.whole = 0
        self.relayed: list[int] = []
        self.first_tokens: list[int] = []
        body = json.dumps(
            {"model": model, "stream": True, "messages": [{"role": "user", "content": "Say it."}]}
        ).encode()
        self.request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"accept: text/event-stream\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )

    def opened(self, first_token: int) -> None:
        self.first_tokens.append(first_token)
        if len(self.first_tokens) == self.connections:
            print("open", flush=True)  # every connection streams: the moment to look at memory

    async def run(self, ramp: float) -> None:
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        streams = []
        for index in range(self.connections):
            await asyncio.sleep(max(0.0, began + ramp * index / self.connections - time.monotonic()))
            streams.append((await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.port))[1])
        await asyncio.gather(*(stream.done for stream in streams))

    def report(self, seconds: float) -> dict[str, object]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "seconds": round(seconds, 3),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
            "streams": self.connections * self.requests,
            "whole": self.whole,
            "events": self.events,
            "first_token_ms": percentiles(self.first_tokens),
            "relay_ms": percentiles(self.relayed),
        }


def percentiles(nanoseconds: Sequence[int]) -> dict[str, float]:
    if len(nanoseconds) < 2:
        return {}
    cuts = statistics.quantiles(nanoseconds, n=100, method="inclusive")
    return {"p50": round(cuts[49] / 1e6, 3), "p99": round(cuts[98] / 1e6, 3)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("model")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--requests", type=int, default=1)
    parser.add_argument("--ramp", type=float, default=0.0)
    parser.add_argument("--every", type=float, default=0.0)
    asked = parser.parse_args()
    load = Load(asked.port, asked.model, connections=asked.connections, requests=asked.requests, every=asked.every)
    began = time.monotonic()
    uvloop.run(load.run(asked.ramp))
    json.dump(load.report(time.monotonic() - began), sys.stdout)


if __name__ == "__main__":
    main()
