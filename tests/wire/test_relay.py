"""One stream through the whole gateway: bytes, headers, ends."""

from __future__ import annotations

import asyncio
import json

import pytest
from stage import DONE, ERROR, FINISH, Peer, Stage, delta

pytestmark = pytest.mark.anyio
WHOLE = [delta(), delta("Hel"), delta("lo"), FINISH, DONE]


async def whole(peer: Peer) -> None:
    peer.stream(WHOLE[0])
    for event in WHOLE[1:]:
        peer.chunk(event)
    peer.end()


async def test_bytes_pass_unchanged(stage: Stage) -> None:
    """What the upstream sent is what the client gets, role-only delta included."""
    upstream = await stage.upstream(whole)
    server = await stage.gateway(upstream)
    client = await stage.chat(server)
    assert await client.head() == 200
    assert await client.body() == b"".join(WHOLE)
    assert client.headers["content-type"] == "text/event-stream"
    assert client.headers["cache-control"] == "no-cache, no-transform"
    assert client.headers["x-accel-buffering"] == "no"
    assert client.headers["x-request-id"] == client.headers["request-id"]
    head = upstream.peers[0].head.decode().lower()
    assert "accept-encoding: identity" in head and "host: 127.0.0.1:" in head
    assert server.observer.statistics()["ended"] == 1


async def test_clocks_that_are_off(stage: Stage) -> None:
    """0 turns a clock off: it does not mean that everything is late at once."""
    off = {"connect": 0, "first_token": 0, "idle": 0, "answer": 0, "send": 0, "heartbeat": 0}
    server = await stage.gateway(await stage.upstream(whole), clocks=off)
    client = await stage.client(server)
    body = {"model": "m", "messages": [], "stream": True}
    client.post("/v1/chat/completions", body, "connection: close")
    assert await client.head() == 200
    assert await client.body() == b"".join(WHOLE)


async def test_one_connection_serves_many(stage: Stage) -> None:
    """A client's connection and an upstream's are both used again."""

    async def twice(peer: Peer) -> None:
        await whole(peer)
        await peer.request()
        await whole(peer)

    upstream = await stage.upstream(twice)
    server = await stage.gateway(upstream)
    client = await stage.chat(server)
    for _ in range(2):
        await client.head()
        assert await client.body() == b"".join(WHOLE)
        if _ == 0:
            client.post("/v1/chat/completions", {"model": "m", "messages": [], "stream": True})
    assert len(upstream.peers) == 1


async def test_answer_without_stream(stage: Stage) -> None:
    """A JSON answer passes with its length, and nothing is added."""
    answer = json.dumps(
        {"choices": [{"index": 0, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}
    ).encode()

    async def script(peer: Peer) -> None:
        peer.answer(200, answer)

    server = await stage.gateway(await stage.upstream(script))
    client = await stage.client(server)
    client.post("/v1/chat/completions", {"model": "m", "messages": []})
    assert await client.head() == 200
    assert client.headers["content-length"] == str(len(answer))
    assert await client.body() == answer


async def test_error_event_ends_the_stream(stage: Stage) -> None:
    """An upstream's error event passes, the body ends after it, and nothing that follows does."""

    async def script(peer: Peer) -> None:
        peer.stream(delta("Hel"))
        await got.wait()
        peer.chunk(ERROR + delta("lo") + DONE)
        await peer.closed()

    got = asyncio.Event()
    server = await stage.gateway(await stage.upstream(script))
    client = await stage.chat(server)
    await client.head()
    assert await client.piece() == delta("Hel")
    got.set()
    assert await client.body() == ERROR


@pytest.mark.parametrize("how", ["cleanly", "by FIN", "by RST"])
async def test_truncation_is_told(stage: Stage, how: str) -> None:
    """A stream that ends without its end gets an error event and no terminator."""

    async def script(peer: Peer) -> None:
        peer.stream(delta("Hel"))
        await peer.writer.drain()
        await sent.wait()
        if how == "cleanly":
            peer.end()
        elif how == "by FIN":
            await peer.close()
        else:
            peer.reset()

    sent = asyncio.Event()
    server = await stage.gateway(await stage.upstream(script))
    client = await stage.chat(server)
    await client.head()
    assert await client.piece() == delta("Hel")
    sent.set()
    last = await client.body()
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert error["code"] == ("upstream_reset" if how == "by RST" else "upstream_truncated")
    assert b"[DONE]" not in last


async def test_done_without_finish_is_truncated(stage: Stage) -> None:
    """`[DONE]` without any finish reason is replaced by the error event."""

    async def script(peer: Peer) -> None:
        peer.stream(delta("Hel"))
        await got.wait()
        peer.chunk(DONE)
        peer.end()

    got = asyncio.Event()
    server = await stage.gateway(await stage.upstream(script))
    client = await stage.chat(server)
    await client.head()
    assert await client.piece() == delta("Hel")
    got.set()
    body = await client.body()
    assert DONE not in body and b"upstream_truncated" in body


async def test_failover_is_invisible(stage: Stage) -> None:
    """A role-only delta and then an error: the client sees one whole stream, from the second upstream."""

    async def broken(peer: Peer) -> None:
        peer.stream(delta())
        peer.chunk(ERROR)
        await peer.closed()

    first, second = await stage.upstream(broken), await stage.upstream(whole)
    server = await stage.gateway(
        first, second, routes=[{"models": ["*"], "upstreams": ["up0", "up1"], "balance": "in_order"}]
    )
    client = await stage.chat(server)
    assert await client.head() == 200
    assert await client.body() == b"".join(WHOLE)
    assert len(first.peers) == len(second.peers) == 1


async def test_client_that_leaves_is_seen(stage: Stage) -> None:
    """When the client goes, the upstream's connection is closed at once and the books balance."""
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        peer.stream(delta("Hel"))
        await peer.closed()
        closed.set()

    server = await stage.gateway(await stage.upstream(script))
    client = await stage.chat(server)
    await client.head()
    await client.piece()
    client.reset()
    await asyncio.wait_for(closed.wait(), 1)
    books = server.gateway.upstreams.statistics()["up0"]
    assert books.active == books.pooled == 0 and books.opened == books.closed == 1
