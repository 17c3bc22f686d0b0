"""`streamgate demo`: an upstream, the gateway and one client in one process; the stream, then what was measured."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from streamgate.control.config import Config, load
from streamgate.demo.server import start
from streamgate.observe import logs

MODEL = "demo-n40-t40-d250"  # two seconds of tokens, after a quarter of one
DEADLINE = 15.0  # s, for everything: a demo that hangs has failed
# The outcome is counted when the stream has ended on the gateway's side too, a moment after the client's.
SCRAPES, BETWEEN_SCRAPES = 50, 0.02

SHOWN = (
    "streamgate_streams_total",
    "streamgate_time_to_first_token_seconds_sum",
    "streamgate_inter_chunk_seconds_count",
    "streamgate_inter_chunk_seconds_sum",
    "streamgate_chunks_total",
    "streamgate_bytes_total",
)


class Gateway(Protocol):
    """A gateway that listens."""

    @property
    def url(self) -> str: ...
    @property
    def admin_url(self) -> str: ...


Running = Callable[[Config], AbstractAsyncContextManager[Gateway]]
Write = Callable[[str], object]


@dataclass(slots=True)
class Seen:
    """What the client saw of the stream. Times in monotonic seconds."""

    asked: float
    times: list[float] = field(default_factory=list)  # of tokens
    events: int = 0
    done: bool = False

    def report(self) -> str:
        if not self.times:
            return "client:  no token came\n"
        gaps = [after - before for before, after in zip(self.times, self.times[1:], strict=False)] or [0.0]
        first = (self.times[0] - self.asked) * 1000
        mean, longest = sum(gaps) / len(gaps) * 1000, max(gaps) * 1000
        return (
            f"client:  first token after {first:.0f} ms, {self.events} events with data, "
            f"gaps {mean:.1f} ms on average, {longest:.1f} ms at most\n"
        )


def run(running: Running) -> int:
    """Show it on standard output; the exit code: 0 when the stream arrived whole and was counted so."""
    output = logs.configure(format="console", level="warning")
    try:
        return asyncio.run(show(running, _print))
    finally:
        output.close()


def _print(text: str) -> None:
    print(text, end="", flush=True)


async def show(running: Running, write: Write) -> int:
    """The same with another place to write to."""
    try:
        async with asyncio.timeout(DEADLINE), await start() as upstream:
            flags = {"upstream": [upstream.url], "listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}
            async with running(load(None, {}, flags)) as gateway:
                write(f"upstream: {upstream.url} (scripted)\ngateway:  {gateway.url}\nmodel:    {MODEL}\n\n")
                seen = await stream_chat(gateway.url, write)
                write(f"\n\n{seen.report()}")
                return await _measured(gateway.admin_url, seen, write)
    except (TimeoutError, OSError, EOFError) as error:
        print(f"streamgate: the demo failed: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1


async def stream_chat(url: str, write: Write) -> Seen:
    """Stream one chat and write its tokens as they come."""
    message = {"role": "user", "content": "What does a river remember?"}
    asked = {"model": MODEL, "stream": True, "stream_options": {"include_usage": True}, "messages": [message]}
    seen = Seen(time.monotonic())
    async with aclosing(_body(url, "POST", "/v1/chat/completions", json.dumps(asked).encode())) as body:
        async for line in _lines(body):
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                seen.done = True
                break
            seen.events += 1
            for choice in json.loads(line.removeprefix("data: ")).get("choices", ()):
                text = choice["delta"].get("content")
                if text:
                    seen.times.append(time.monotonic())
                    write(text)
    return seen


async def _measured(admin_url: str, seen: Seen, write: Write) -> int:
    """Write what the gateway counted."""
    lines: list[str] = []
    for _ in range(SCRAPES):
        async with aclosing(_body(admin_url, "GET", "/metrics")) as body:
            text = b"".join([chunk async for chunk in body]).decode()
        lines = [line for line in text.splitlines() if line.startswith(SHOWN) and not line.endswith(" 0")]
        if any(line.startswith("streamgate_streams_total") for line in lines):
            break
        await asyncio.sleep(BETWEEN_SCRAPES)
    write("".join(f"gateway: {line}\n" for line in lines))
    completed = any('outcome="completed"' in line for line in lines)
    return 0 if seen.done and completed else 1


async def _lines(body: AsyncIterator[bytes]) -> AsyncIterator[str]:
    rest = b""
    async for chunk in body:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode()


async def _body(url: str, method: str, path: str, content: bytes = b"") -> AsyncGenerator[bytes, None]:
    """One HTTP request; the body of its answer, as it comes. Raises EOFError when it is cut."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        head = f"{method} {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(content)}\r\nconnection: close\r\n\r\n".encode() + content)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" not in answer:
            yield await reader.read(-1)
            return
        while size := int(await reader.readline() or b"0", 16):
            yield (await reader.readexactly(size + 2))[:-2]
    finally:
        writer.close()
