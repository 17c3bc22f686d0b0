"""Every way a stream can end, provoked once: one count, one log line, the same word; and what the client was told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
from stage import DONE, ERROR, FINISH, Peer, Stage, delta

from streamgate.dialects.openai_choices import Choices
from streamgate.record import Outcome
from streamgate.server import Server

pytestmark = pytest.mark.anyio

Story = Callable[[Stage], Awaitable[Server]]


async def completed(stage: Stage) -> Server:
    async def script(peer: Peer) -> None:
        peer.stream(delta("a"), FINISH, DONE)
        peer.end()

    server = await stage.gateway(await stage.upstream(script))
    client = await stage.chat(server)
    await client.head()
    assert (await client.body()).endswith(DONE)
    return server


async def completed_without_done(stage: Stage) -> Server:
    async def script(peer: Peer) -> None:
        peer.stream(delta("a"), FINISH)
        peer.end()

    server = await stage.gateway(await stage.upstream(script))
    client = await stage.chat(server)
    await client.head()
    assert await client.body() == delta("a") + FINISH, "nothing is added"
    return server


async def left_after_the_end(stage: Stage) -> Server:
    """`[DONE]` was read, the terminating chunk was not there yet: what SDKs do."""

    async def script(peer: Peer) -> None:
        peer.stream(delta("a"), FINISH, DONE)
        await peer.closed()

    server = await stage.gateway(await stage.upstream(script))
    client = await stage.chat(server)
    await client.head()
    await client.piece()
    client.close()
    return server


async def relayed_4xx(stage: Stage) -> Server:
    said = b'{"error":{"message":"no such thing","type":"invalid_request_error","param":null,"code":"nope"}}'

    async def script(peer: Peer) -> None:
        peer.answer(404, said, b"x-ratelimit-limit-requests: 5", b"set-cookie: a=b")

    server = await stage.gateway(await stage.upstream(script))
    client = await stage.chat(server)
    assert await client.head() == 404
    assert await client.body() == said
    assert client.headers["x-ratelimit-limit-requests"] == "5"
    assert "set-cookie" not in client.headers
    return server


async def client_closed(stage: Stage) -> Server:
    return await leaving_after(stage, delta("a"))


async def client_gave_up(stage: Stage) -> Server:
    return await leaving_after(stage, b"")


async def gave_up_stalled(stage: Stage) -> Server:
    return await leaving_after(stage, delta("a"), stall=0.05)


async def leaving_after(stage: Stage, first: bytes, stall: float = 10) -> Server:
    async def script(peer: Peer) -> None:
        peer.stream(first or delta())
        await peer.closed()

    upstream = await stage.upstream(script)
    server = await stage.gateway(upstream, clocks={"stall": stall, "early_commit": 0, "heartbeat": 0.1})
    client = await stage.chat(server)
    await client.head()
    while first and first not in await client.piece():
        pass
    while stall < 1 and b"ping" not in await client.piece():
        pass
    client.reset()
    return server


async def slow_client(stage: Stage) -> Server:
    async def script(peer: Peer) -> None:
        peer.stream(delta("a"))
        while not peer.writer.is_closing():
            peer.chunk(delta("x" * 1000) * 60)
            await peer.writer.drain()

    server = await stage.gateway(await stage.upstream(script), clocks={"send": 0.5})
    client = await stage.client(server, receive_buffer=4096)
    client.reader._limit = 1024  # stop taking bytes off the socket
    client.post("/v1/chat/completions", {"model": "m", "messages": [], "stream": True})
    client.writer.transport.pause_reading()
    return server


async def upstream_error(stage: Stage) -> Server:
    async def script(peer: Peer) -> None:
        peer.stream(delta("a"))
        await got.wait()
        peer.chunk(ERROR)
        await peer.closed()

    got = asyncio.Event()
    server = await stage.gateway(await stage.upstream(script))
    client = await stage.chat(server)
    await client.head()
    await client.piece()
    got.set()
    assert await client.body() == ERROR
    return server


async def finish_reason_error(stage: Stage) -> Server:
    aborted = delta(delta={}, finish_reason="abort")

    async def script(peer: Peer) -> None:
        peer.stream(delta("a"))
        await got.wait()
        peer.chunk(aborted, DONE)
        peer.end()

    got = asyncio.Event()
    server = await stage.gateway(await stage.upstream(script))
    client = await stage.chat(server)
    await client.head()
    await client.piece()
    got.set()
    assert await client.body() == aborted + DONE, "relayed as it came"
    return server


async def truncated(stage: Stage) -> Server:
    async def script(peer: Peer) -> None:
        peer.stream(delta("a"))
        await got.wait()
        peer.end()

    got = asyncio.Event()
    server = await stage.gateway(await stage.upstream(script))
    client = await stage.chat(server)
    await client.head()
    await client.piece()
    got.set()
    assert code(await client.body()) == "upstream_truncated"
    return server


async def timeout_first_token(stage: Stage) -> Server:
    async def script(peer: Peer) -> None:
        peer.stream(delta())
        await peer.closed()

    server = await stage.gateway(await stage.upstream(script), clocks={"first_token": 0.1}, retry={"attempts": 0})
    client = await stage.chat(server)
    assert await client.head() == 504
    assert json.loads(await client.body())["error"]["code"] == "first_token_timeout"
    return server


async def timeout_idle(stage: Stage) -> Server:
    server = await stage.gateway(await stage.upstream(pinging), clocks={"idle": 0.2})
    client = await stage.chat(server)
    await client.head()
    assert await client.piece() == delta("a")
    assert code(await client.body()) == "idle_timeout"
    return server


async def pinging(peer: Peer) -> None:
    """A token, then only comments and role-only deltas: no progress."""
    peer.stream(delta("a"))
    silence = asyncio.get_running_loop().create_future()
    while not peer.writer.is_closing():
        peer.chunk(b": still here\n\n")
        await asyncio.wait([silence], timeout=0.02)


async def deadline(stage: Stage) -> Server:
    async def script(peer: Peer) -> None:
        peer.stream(delta("a"))
        await peer.closed()

    server = await stage.gateway(await stage.upstream(script), clocks={"total": 0.2})
    client = await stage.chat(server)
    await client.head()
    await client.piece()
    assert code(await client.body()) == "deadline"
    return server


async def deadline_of_an_answer(stage: Stage) -> Server:
    async def script(peer: Peer) -> None:
        await peer.closed()

    server = await stage.gateway(await stage.upstream(script), clocks={"answer": 0.2})
    client = await stage.client(server)
    client.post("/v1/chat/completions", {"model": "m", "messages": []})
    assert await client.head() == 504
    assert json.loads(await client.body())["error"]["code"] == "deadline"
    return server


async def drained(stage: Stage) -> Server:
    async def script(peer: Peer) -> None:
        peer.stream(delta("a"))
        await peer.closed()

    server = await stage.gateway(await stage.upstream(script), drain={"timeout": 0.1})
    client = await stage.chat(server)
    await client.head()
    await client.piece()
    server.begin_drain()
    assert await server.drained() == 3
    assert code(await client.body()) == "gateway_draining"
    return server


async def internal_error(stage: Stage) -> Server:
    """A bug of ours, planted where frames are read."""

    def broken(self: Choices, frame: bytes, seen: object) -> int:
        raise ZeroDivisionError

    async def script(peer: Peer) -> None:
        peer.stream(delta("a"))
        await got.wait()
        peer.chunk(delta("b"))
        await peer.closed()

    got = asyncio.Event()
    server = await stage.gateway(await stage.upstream(script))
    client = await stage.chat(server)
    await client.head()
    await client.piece()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Choices, "scan", broken)
        got.set()
        assert code(await client.body()) == "internal_error"
    return server


STORIES: dict[str, tuple[Story, Outcome]] = {
    "completed": (completed, Outcome.COMPLETED),
    "completed without [DONE]": (completed_without_done, Outcome.COMPLETED),
    "left after the end": (left_after_the_end, Outcome.COMPLETED),
    "a relayed 4xx": (relayed_4xx, Outcome.COMPLETED),
    "client_closed": (client_closed, Outcome.CLIENT_CLOSED),
    "client_gave_up": (client_gave_up, Outcome.CLIENT_GAVE_UP),
    "gave up a stalled stream": (gave_up_stalled, Outcome.CLIENT_GAVE_UP),
    "slow_client": (slow_client, Outcome.SLOW_CLIENT),
    "upstream_error": (upstream_error, Outcome.UPSTREAM_ERROR),
    "finish_reason abort": (finish_reason_error, Outcome.UPSTREAM_ERROR),
    "truncated": (truncated, Outcome.TRUNCATED),
    "timeout_first_token": (timeout_first_token, Outcome.TIMEOUT_FIRST_TOKEN),
    "timeout_idle": (timeout_idle, Outcome.TIMEOUT_IDLE),
    "deadline": (deadline, Outcome.DEADLINE),
    "deadline of an answer": (deadline_of_an_answer, Outcome.DEADLINE),
    "drained": (drained, Outcome.DRAINED),
    "internal_error": (internal_error, Outcome.INTERNAL_ERROR),
}


def code(event: bytes) -> str:
    """The code of an error event that is the last thing a client reads."""
    lines = event.strip().split(b"\n")
    return str(json.loads(lines[-1].removeprefix(b"data: "))["error"]["code"])


@pytest.mark.parametrize("story", STORIES)
async def test_outcome(stage: Stage, story: str, until: Callable[..., Awaitable[None]]) -> None:
    """One stream, one outcome: counted once, logged once, by the same word; and the books balance."""
    play, outcome = STORIES[story]
    with structlog.testing.capture_logs() as lines:
        server = await play(stage)
        await until(lambda: server.observer.statistics()["ended"] == 1)
    assert {key[-1]: count for key, count in server.observer.tally.ended.cells.items()} == {outcome.value: 1}
    assert sum(server.observer.tally.started.cells.values()) == 1
    finished = [fields_of(line) for line in lines if line["event"] == "stream_finished"]
    assert [line["outcome"] for line in finished] == [outcome.value]
    assert server.gateway.gate.ledger.taken == len(server.drain) == 0
    for books in server.gateway.upstreams.statistics().values():
        assert books.active == 0 and books.opened == books.closed + books.pooled + books.settling


def fields_of(line: Any) -> Any:
    return line.get("fields", line)


def test_every_outcome_has_a_story() -> None:
    """Those without one are made by parts that do not exist yet."""
    told = {outcome for _, outcome in STORIES.values()}
    assert set(Outcome) - told == {Outcome.KILLED, Outcome.PLUGIN_ABORT}
