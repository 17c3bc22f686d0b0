"""Heartbeats are never part of anything: the events are the same with and without them, however events were split."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stage import DONE, FINISH, Peer, Stage, delta

from streamgate.sse.parser import EventStreamParser

EVENTS = (
    delta("plain"),
    delta("carriage").replace(b"\n", b"\r\n"),
    b"id: 7\n" + delta("with an id"),
    b": a comment inside\n" + delta("after it"),
    delta("d\u00e9j\u00e0 vu"),
    b"event: message\r\n" + delta("named").replace(b"\n", b"\r\n"),
    b"retry: 100\n\n",
    delta("bare").replace(b"\n", b"\r"),
)


def parsed(stream: bytes) -> list[tuple[object, ...]]:
    parser = EventStreamParser()
    return [(event.event, event.data, event.id) for event in parser.feed(stream)]


async def relayed(pieces: list[bytes], silences: list[int], *, heartbeat: float, silence: float, early: bool) -> bytes:
    """The bytes a client got when the upstream wrote `pieces`, silent before some of them."""

    async def script(peer: Peer) -> None:
        never = asyncio.get_running_loop().create_future()
        peer.stream()
        for number, piece in enumerate(pieces):
            if number in silences:
                await asyncio.wait([never], timeout=silence)
            peer.chunk(piece)
            await peer.writer.drain()
            await asyncio.wait([never], timeout=0.001)
        peer.end()

    async with contextlib.AsyncExitStack() as stack:
        stage = Stage(stack)
        upstream = await stage.upstream(script)
        clocks = {"heartbeat": heartbeat, "early_commit": 0 if early else 10}
        server = await stage.gateway(upstream, clocks=clocks)
        client = await stage.chat(server)
        client.patience += silence
        await client.head()
        return await client.body()


@st.composite
def split_streams(draw: st.DrawFn) -> tuple[list[bytes], list[int]]:
    events = [*draw(st.lists(st.sampled_from(EVENTS), min_size=1, max_size=4)), FINISH, DONE]
    stream = (b"\xef\xbb\xbf" if draw(st.booleans()) else b"") + b"".join(events)
    cuts = sorted(draw(st.sets(st.integers(1, len(stream) - 1), min_size=2, max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    return pieces, draw(st.lists(st.integers(0, len(pieces) - 1), min_size=1, max_size=2))


def check(pieces: list[bytes], silences: list[int], *, heartbeat: float, silence: float, early: bool) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        body = runner.run(relayed(pieces, silences, heartbeat=heartbeat, silence=silence, early=early))
    if early and 0 in silences:
        assert b": ping\n" in body
    assert parsed(body) == parsed(b"".join(pieces))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(split_streams(), st.booleans())
def test_same_events(stream: tuple[list[bytes], list[int]], early: bool) -> None:
    """Silent for ten heartbeats before the first token (early_commit 0) or anywhere in the stream."""
    check(*stream, heartbeat=0.03, silence=0.3, early=early)


@pytest.mark.soak
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(split_streams(), st.booleans())
def test_same_events_at_full_length(stream: tuple[list[bytes], list[int]], early: bool) -> None:
    """The same with a heartbeat of 1 s and 10 s of silence."""
    check(*stream, heartbeat=1, silence=10, early=early)
