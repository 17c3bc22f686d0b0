"""When the client goes, the upstream's connection is closed at once: in every phase, by FIN and by RST."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from stage import Client, Peer, Scripted, Stage, delta

from streamgate.server import Server

pytestmark = pytest.mark.anyio

LEAVE = {"fin": Client.close, "rst": Client.reset}
CHAT = {"model": "m", "messages": []}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def silent(peer: Peer) -> None:
    await seen_closed(peer)


async def headers_only(peer: Peer) -> None:
    peer.send(HEAD)
    await seen_closed(peer)


async def role_only(peer: Peer) -> None:
    peer.stream(delta())
    await seen_closed(peer)


async def talking(peer: Peer) -> None:
    peer.stream(delta("a"))
    await seen_closed(peer)


async def half_an_answer(peer: Peer) -> None:
    peer.send(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"choices')
    await seen_closed(peer)


async def seen_closed(peer: Peer) -> None:
    await peer.closed()
    peer.closed_at.set_result(time.perf_counter())


# What the upstream does, whether the client asks for a stream, whether it has read the first piece before it leaves.
PHASES: dict[str, tuple[Callable[[Peer], Awaitable[None]], bool, bool]] = {
    "before headers": (silent, True, False),
    "after headers": (headers_only, True, False),
    "before the first token": (role_only, True, False),
    "mid-stream": (talking, True, True),
    "without stream, before headers": (silent, False, False),
    "without stream, mid-answer": (half_an_answer, False, False),
}


async def one_abort(stage: Stage, server: Server, upstream: Scripted, phase: str, how: str) -> float:
    """Leave once; how long until the upstream saw the close, in seconds."""
    _, stream, reads = PHASES[phase]
    client = await stage.client(server)
    client.post("/v1/chat/completions", CHAT | {"stream": stream})
    peer = await asyncio.wait_for(upstream.arrived.get(), 5)
    if reads:
        await client.head()
        await client.piece()
    left = time.perf_counter()
    LEAVE[how](client)
    return await asyncio.wait_for(peer.closed_at, 5) - left


async def balanced(server: Server, until: Callable[..., Awaitable[None]]) -> None:
    """started = sum of outcomes + active, opened = closed + pooled, nothing queued or held."""
    await until(lambda: server.observer.statistics()["live"] == 0)
    counts = server.observer.statistics()
    assert counts["started"] == counts["ended"]
    assert server.gateway.gate.ledger.taken == 0
    assert len(server.drain) == 0
    for books in server.gateway.upstreams.statistics().values():
        assert books.active == 0
        assert books.opened == books.closed + books.pooled + books.settling


@pytest.mark.parametrize("how", LEAVE)
@pytest.mark.parametrize("phase", PHASES)
async def test_upstream_sees_the_close(
    stage: Stage, phase: str, how: str, until: Callable[..., Awaitable[None]]
) -> None:
    """Within 50 ms at the 99th percentile of 20 tries (the full 200 in the soak suite)."""
    upstream = await stage.upstream(PHASES[phase][0])
    server = await stage.gateway(upstream)
    lags = sorted([await one_abort(stage, server, upstream, phase, how) for _ in range(20)])
    assert lags[int(len(lags) * 0.99) - 1] < 0.05, lags
    await balanced(server, until)
    outcomes = {key[-1]: n for key, n in server.observer.tally.ended.cells.items()}
    assert outcomes == {("client_closed" if PHASES[phase][2] else "client_gave_up"): 20}


async def test_leaving_the_queue(stage: Stage, until: Callable[..., Awaitable[None]]) -> None:
    """A client that leaves while queued never becomes a stream, and its place is free at once."""
    upstream = await stage.upstream(talking)
    server = await stage.gateway(upstream, limits={"concurrent": 1, "queue": 1})
    first = await stage.chat(server)
    await first.head()
    waiting = await stage.chat(server)
    await until(lambda: server.gateway.gate.ledger.waiting == 1)
    waiting.reset()
    await until(lambda: server.gateway.gate.ledger.waiting == 0)
    assert server.observer.tally.rejected.cells == {("/v1/chat/completions", "client_left"): 1}
    first.close()
    await balanced(server, until)


async def test_leaving_while_connecting(stage: Stage, until: Callable[..., Awaitable[None]]) -> None:
    """A client that leaves while the upstream's connection is being made ends the dialling."""
    import socket

    deaf = socket.socket()
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(0)
    fill = [socket.socket() for _ in range(4)]
    for each in fill:
        each.setblocking(False)
        each.connect_ex(deaf.getsockname())
    try:
        server = await stage.gateway(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        client = await stage.chat(server)
        await until(lambda: server.gateway.targets.active()["up0"] == 1)
        client.reset()
        await until(lambda: server.gateway.targets.active()["up0"] == 0, 1)
        await balanced(server, until)
    finally:
        for each in [deaf, *fill]:
            each.close()
