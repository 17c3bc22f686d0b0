"""What a stream is granted when it is asked to end: nothing, some time, all of it, or a last word."""

# Each complaint, where it was made, and the tests that hold it.
# streams are cut at once (sysid/sse-starlette#8, #124, polarsource/polar#3100)
#     cut_at_once
# streams are to run on (sysid/sse-starlette#73, #157)
#     cannot_be_let_run
# an event and some grace (sysid/sse-starlette#167)
#     no_time_for_last_words
# state is private (sysid/sse-starlette#167)
#     no_public_state
# a cut looks like success; a clean end is not to be had
#     cut_looks_like_success, no_farewell

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from signal import SIGTERM
from time import monotonic
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from complaints.client import PATIENCE, Client, quiet, running, served
from complaints.endings import two
from complaints.shutting import ASYNCIO, PROMPTLY, Server, streaming

from streamgate.sse import AppStatus, Ending, EventSourceResponse, StreamGroup

pytestmark = pytest.mark.anyio


def leave(group: StreamGroup) -> None:
    group.end()


@pytest.mark.parametrize("end", [leave, lambda _: setattr(AppStatus, "should_exit", True)], ids=["group", "switch"])
async def test_stream_is_cut_at_once_unless_told_otherwise(end: Callable[[StreamGroup], None]) -> None:
    """sysid/sse-starlette#8, #124, polarsource/polar#3100: without grace a shutdown waits for no stream."""
    group = StreamGroup()
    async with streaming(**({"drain": group} if end is leave else {})) as (client, run):
        began = monotonic()
        end(group)
        await run.over()
    assert monotonic() - began < PROMPTLY
    assert (run.raised, client.whole) == (None, False)


@ASYNCIO
async def test_stream_cannot_be_let_run() -> None:
    """sysid/sse-starlette#73, #157: without the automatic drain a shutdown touches no stream; the switch still does."""
    AppStatus.disable_automatic_graceful_drain()
    server = Server()
    async with streaming() as (_, run):
        AppStatus.handle_exit(server, SIGTERM, None)
        await server.shutdown()
        await quiet()
        assert not run.is_over
        assert not AppStatus.should_exit
        AppStatus.should_exit = True


@pytest.mark.parametrize("polite", [True, False])
async def test_no_time_for_last_words(polite: bool) -> None:
    """sysid/sse-starlette#167: content is told by shutdown_event, and has the grace period to end by itself."""
    group, leaving, told, client = StreamGroup(), anyio.Event(), [], Client()

    async def content() -> AsyncIterator[str]:
        yield "one"
        await leaving.wait()
        if polite:
            yield "bye"
        else:
            await anyio.sleep_forever()

    grace = PATIENCE if polite else 0.02
    response = EventSourceResponse(
        content(),
        drain=group,
        shutdown_event=leaving,
        shutdown_grace_period=grace,
        on_close=lambda account: told.append(account.ending),
    )
    async with running(response, client) as run:
        await client.offers(b"one")
        group.end()
    assert told == [Ending.COMPLETE if polite else Ending.SHUTDOWN]
    assert (run.raised, client.whole, b"bye" in client.body) == (None, polite, polite)


async def test_no_time_for_last_words_without_an_event() -> None:
    """sysid/sse-starlette#167: the grace period holds without an event too; content that ends within it is whole."""
    group, client, more = StreamGroup(), Client(), anyio.Event()

    async def content() -> AsyncIterator[str]:
        yield "one"
        await more.wait()
        yield "two"

    async with running(EventSourceResponse(content(), drain=group, shutdown_grace_period=PATIENCE), client):
        await client.offers(b"one")
        group.end()
        await quiet()
        more.set()
    assert client.whole
    assert client.body.endswith(b"data: two\r\n\r\n")


async def test_no_public_state_of_the_streams() -> None:
    """sysid/sse-starlette#167: who drains by hand can count the streams, end them, and let newcomers in again."""
    group = StreamGroup()
    assert (len(group), group.ended) == (0, False)
    async with streaming(drain=group), streaming(drain=group):
        assert len(group) == 2
        group.end()
        assert group.ended
    assert len(group) == 0
    group.reopen()
    client = Client()
    await served(EventSourceResponse(two(), drain=group), client)
    assert client.whole


async def test_cut_looks_like_success() -> None:
    """A stream that a shutdown cut has no final message, so that no client takes it for whole."""
    group = StreamGroup()
    async with streaming(drain=group) as (client, _):
        group.end()
    assert client.body == b"data: one\r\n\r\n"
    assert not client.whole


@pytest.mark.parametrize("farewell", ["bye", lambda: {"data": "bye"}], ids=["item", "callable"])
async def test_no_farewell_can_be_said(farewell: Any) -> None:
    """Where a clean end is wanted, a farewell is the last event, after the content was ended, and the body is whole."""
    group, closed = StreamGroup(), []

    async def content() -> AsyncIterator[str]:
        try:
            yield "one"
            await anyio.sleep_forever()
        finally:
            closed.append(len(client.offered))

    client = Client()
    async with running(EventSourceResponse(content(), drain=group, farewell=farewell), client) as run:
        await client.offers(b"one")
        await quiet()
        group.end()
    assert client.body == b"data: one\r\n\r\ndata: bye\r\n\r\n"
    assert (client.whole, run.raised, closed) == (True, None, [2])


async def test_no_farewell_can_hold_the_shutdown() -> None:
    """A farewell that nobody reads is given up."""
    group = StreamGroup()
    async with streaming(drain=group, farewell="bye", send_timeout=0.02) as (client, run):
        client.hold()
        group.end()
    assert (run.raised, client.whole) == (None, False)


async def test_no_farewell_can_follow_the_end() -> None:
    """A shutdown while the final message is being sent: nothing is said after it, and it is sent once."""
    group, client = StreamGroup(), Client()

    async def content() -> AsyncIterator[str]:
        yield "one"
        client.hold()

    async with running(EventSourceResponse(content(), drain=group, farewell="bye", send_timeout=1.0), client) as run:
        await client.offers_the_end()
        group.end()
        await quiet()
        client.read()
    assert run.raised is None
    assert [sent.get("more_body") for sent in client.offered] == [None, True, False]
