"""The client of the benchmark: holds many streams, throws away what they bring, and counts it. Its CPU is nobody's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

PATIENCE = 60.0  # s for all streams to open
LAST = b"\r\n0\r\n\r\n"  # the end of a chunked body
PING = b": ping"


class Crowd:
    """The streams of one load, and what they brought."""

    def __init__(self, path: str, streams: int) -> None:
        self.request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
        self.streams = streams
        self.buffer = bytearray(262_144)  # one for all: nobody reads what is in it for longer than a call
        self.readers: list[Reader] = []
        self.open = asyncio.Event()
        self.opened = 0
        self.received = 0  # bytes
        self.answers = 0  # bodies that ended
        self.pings = 0
        self.fault = ""

    def begun(self) -> None:
        self.opened += 1
        if self.opened == self.streams:
            self.open.set()

    def failed(self, why: str) -> None:
        self.fault = self.fault or why
        self.open.set()

    def check(self) -> None:
        if self.fault:
            raise SystemExit(f"{self.request.split()[1].decode()}: {self.fault}")


class Reader(asyncio.BufferedProtocol):
    """One stream: only counts its bytes, once it is open."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.open = self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def ask(self) -> None:
        self.transport.write(self.crowd.request)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.crowd.buffer

    def buffer_updated(self, count: int) -> None:
        self.crowd.received += count
        if not self.open and self.crowd.buffer.startswith(b"HTTP/1.1"):
            if not self.crowd.buffer.startswith(b"HTTP/1.1 200"):
                self.crowd.failed(self.crowd.buffer[:20].decode())
            self.open = True
            self.crowd.begun()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over:
            self.crowd.failed("a stream was lost")

    def leave(self) -> None:
        self.over = True
        self.transport.abort()


class Listener(Reader):
    """A silent stream: counts its pings too."""

    def buffer_updated(self, count: int) -> None:
        self.crowd.pings += self.crowd.buffer.count(PING, 0, count)
        super().buffer_updated(count)


class Asker(Reader):
    """Asks again as soon as it has its answer, on the same connection."""

    tail = b""

    def buffer_updated(self, count: int) -> None:
        super().buffer_updated(count)
        self.tail = (self.tail + self.crowd.buffer[max(0, count - len(LAST)) : count])[-len(LAST) :]
        if self.tail == LAST:
            self.tail = b""
            self.crowd.answers += 1
            if not self.over:
                self.ask()


@asynccontextmanager
async def held(
    port: int, path: str, streams: int, *, ramp: float = 0.0, reader: type[Reader] = Reader
) -> AsyncIterator[Crowd]:
    """So many streams, all open, the first asked for `ramp` seconds before the last; cut at the end."""
    crowd = Crowd(path, streams)
    loop = asyncio.get_running_loop()
    try:
        for _ in range(streams):
            _, protocol = await loop.create_connection(lambda: reader(crowd), "127.0.0.1", port)
            crowd.readers.append(protocol)
        began = time.monotonic()
        for index, each in enumerate(crowd.readers):
            await asyncio.sleep(max(0.0, began + ramp * index / streams - time.monotonic()))
            each.ask()
        async with asyncio.timeout(PATIENCE):
            await crowd.open.wait()
        crowd.check()
        yield crowd
        crowd.check()
    finally:
        for each in crowd.readers:
            each.leave()


async def number_at(port: int, path: str) -> int:
    """The number that a server answers with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return int(answer.rpartition(b"\r\n\r\n")[2])
