"""What server and client see when the network between them is cut, stalls, or loses everything without a word.

    python examples/network_interruption.py     # tells its story, in some seconds

A server and a client talk through a small TCP proxy, all on this machine; the proxy does the harm. The client expects
something every `PATIENCE` seconds: an event, or where there is none a ping. If nothing comes it leaves, and comes back
with `Last-Event-ID`. (An EventSource has no such clock: it waits for TCP to give up.) The server gives each send
`SEND_TIMEOUT` seconds: one that nobody takes would hold the stream, and all that its generator holds.
"""

# ruff: noqa: T201 - it prints what happens

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable

import anyio
import httpx
import uvicorn
from anyio.abc import SocketAttribute, SocketStream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from streamgate.sse import Account, EventSourceResponse, EventStreamParser, ServerSentEvent, last_event_id

PATIENCE, PING, SEND_TIMEOUT = 1.0, 0.2, 0.5  # seconds; in earnest rather 45, 15, 30

closed: asyncio.Queue[Account] = asyncio.Queue()  # the server's streams that ended


async def count(last: int) -> AsyncIterator[ServerSentEvent]:
    await anyio.sleep(0 if last else 2 * PATIENCE)  # the first number is long in coming
    for number in itertools.count(last + 1):
        yield ServerSentEvent("." * 8192, id=number)
        await anyio.sleep(0.01)


async def numbers(request: Request) -> EventSourceResponse:
    content = count(int(last_event_id(request) or 0))
    return EventSourceResponse(
        content, ping=PING, ping_mode="idle", send_timeout=SEND_TIMEOUT, on_close=closed.put_nowait
    )


class Proxy:
    """Passes bytes on between a client and the server, until it is told to do harm."""

    def __init__(self, host: str, port: int) -> None:
        self.server = host, port

    async def connected(self, client: SocketStream) -> None:
        with contextlib.suppress(OSError):  # the server was stopped
            async with client, await anyio.connect_tcp(*self.server) as server, anyio.create_task_group() as both:
                self._scope, self._stalled, self._lossy = both.cancel_scope, False, False
                both.start_soon(self._pump, client, server)
                both.start_soon(self._pump, server, client)

    async def _pump(self, source: SocketStream, sink: SocketStream) -> None:
        with contextlib.suppress(anyio.BrokenResourceError):
            async for chunk in source:
                if self._stalled:
                    break
                if not self._lossy:
                    await sink.send(chunk)
        if self._stalled or self._lossy:
            await anyio.sleep_forever()  # the end is not passed on, either
        self.cut()

    def cut(self) -> None:  # both sides are told at once
        self._scope.cancel()

    def stall(self) -> None:  # nothing more is taken from either side: what they send fills their buffers
        self._stalled = True

    def lose(self) -> None:  # everything is taken, and thrown away
        self._lossy = True


async def read(client: httpx.AsyncClient, seen: list[int], harm: Callable[[], None]) -> None:
    """Ten numbers from where we were, then the harm; ends when the client has noticed."""
    parser, goal, pings = EventStreamParser(), len(seen) + 10, 0
    headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
    print(f" client: connects {headers or ''}".rstrip())
    try:
        async with client.stream("GET", "/", headers=headers) as response:
            async for chunk in response.aiter_raw():
                pings += chunk.count(b": ping")
                seen += [int(str(event.id)) for event in parser.feed(chunk)]
                if len(seen) >= goal:
                    harm()
    except httpx.TransportError as error:
        whole = "none missing, none twice" if seen == list(range(1, len(seen) + 1)) else "NOT WHOLE"
        print(f" client: {pings} pings, then numbers, then {type(error).__name__}; has 1 to {len(seen)}, {whole}")


async def story(client: httpx.AsyncClient, proxy: Proxy, server: uvicorn.Server) -> None:
    seen: list[int] = []
    for what, harm in [("cut", proxy.cut), ("stalled", proxy.stall), ("a black hole", proxy.lose), ("cut", proxy.cut)]:
        print(f"network: fine, and after ten numbers {what}")
        await read(client, seen, harm)
        if harm == proxy.lose:
            print(f" server: {closed.qsize()} streams ended: all that it sends seems to arrive")
            proxy.cut()
        print(f" server: {(await closed.get()).ending}")
        proxy.cut()
    server.should_exit = True


async def main() -> None:
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=[Route("/", numbers)]), log_level="critical"))
    with anyio.fail_after(60), socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)  # else megabytes go before a send has to wait
        proxy = Proxy(*listener.getsockname())
        entrance = await anyio.create_tcp_listener(local_host="127.0.0.1")
        url = f"http://127.0.0.1:{entrance.extra(SocketAttribute.local_port)}"  # noqa: S610 - not Django's
        client = httpx.AsyncClient(base_url=url, timeout=PATIENCE)
        async with entrance, client, anyio.create_task_group() as tasks:
            tasks.start_soon(entrance.serve, proxy.connected)
            tasks.start_soon(story, client, proxy, server)
            await server.serve([listener])  # until the story is over, or somebody stops it
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
