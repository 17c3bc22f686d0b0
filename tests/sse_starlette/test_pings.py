"""Pings, beside sse-starlette's.

Intervals are short and the counts are what is waited for: how many came is not compared where more than the wanted ones
may have come.

| rule | test |
| --- | --- |
| the default is 15 s; the first after one interval | test_first_ping_comes_after_an_interval |
| then every interval, whether or not data flowed | test_every_interval, test_every_interval_beside_items |
| default comment with the time in UTC and the response's sep | test_default_comment |
| a factory is called for each ping; its result goes through ensure_bytes | test_factory, test_factory_is_called_for_each |
| a factory's error tears down with the bare error | test_factory_that_raises, test_factory_with_what_cannot_be_sent |
| 0 disables | test_zero_sends_none |
| what is set before the call counts; subclasses' default | test_interval_set_before_the_call, test_default_of_a_subclass |
| send_timeout holds for a ping; content is cancelled | test_ping_that_is_not_taken |
| a ping that cannot be sent: the bare error | test_ping_that_cannot_be_sent |
| nothing before the head, nothing after the final message | test_no_ping_after_the_end |
"""  # noqa: E501

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

pytestmark = [pytest.mark.anyio, pytest.mark.leaves_tasks]  # sse-starlette's shutdown watcher outlives its stream

OFTEN = 0.02  # s
PING = b": ping\r\n\r\n"  # the conftest takes the time out of it


def first(count: int) -> Any:
    """Compare stories without what pings came beyond the first `count`."""

    def told(peer):
        return only(peer.story, count)

    return told


def only(story: list[Any], count: int) -> list[Any]:
    pings = [index for index, entry in enumerate(story) if entry == PING]
    return [entry for index, entry in enumerate(story) if index not in pings[count:]]


async def test_first_ping_comes_after_an_interval(both):
    """An item that is there at once goes before the first ping."""

    async def scene(peer):
        async def content():
            yield "x"
            await peer.seen(PING)
            yield "y"

        await peer.call(peer.library.EventSourceResponse(content(), ping=OFTEN))

    story = await both(scene, told=first(1))
    assert only(story, 1) == ["start", b"data: x\r\n\r\n", PING, b"data: y\r\n\r\n", "end", "returned"]


async def test_every_interval(both):
    """A silent stream gets one after the other."""

    async def scene(peer):
        async def content():
            await peer.seen(PING, times=3)
            yield "x"

        await peer.call(peer.library.EventSourceResponse(content(), ping=OFTEN))

    story = await both(scene, told=first(3))
    assert only(story, 3) == ["start", PING, PING, PING, b"data: x\r\n\r\n", "end", "returned"]


async def test_every_interval_beside_items(both):
    """Items do not put a ping off."""

    async def scene(peer):
        async def content():
            while peer.story.count(PING) < 3:
                await checkpoint()
                yield "x"

        await peer.call(peer.library.EventSourceResponse(content(), ping=OFTEN))

    def told(peer):
        return [entry for entry in only(peer.story, 3) if entry != b"data: x\r\n\r\n"]

    story = await both(scene, told=told)
    assert b"data: x\r\n\r\n" in story
    assert [entry for entry in only(story, 3) if entry != b"data: x\r\n\r\n"] == [
        *("start", PING, PING, PING, "end", "returned")
    ]


@pytest.mark.parametrize("sep", ["\r\n", "\n", "\r"])
async def test_default_comment(both, sep):
    """`: ping - ` and the time in UTC, with the response's line end."""

    async def scene(peer):
        async def content():
            await peer.seen(b": ping" + 2 * sep.encode())
            yield b""

        await peer.call(peer.library.EventSourceResponse(content(), ping=OFTEN, sep=sep))

    def told(peer):
        return peer.messages[1]

    story = await both(scene, told=told)
    assert story[1] == b": ping" + 2 * sep.encode()


MADE = {
    "event": (lambda library: library.ServerSentEvent("p", event="ping"), b"event: ping\r\ndata: p\r\n\r\n"),
    "event with sep": (lambda library: library.ServerSentEvent("p", sep="\r"), b"data: p\r\r"),
    "dict": (lambda _: {"comment": "p"}, b": p\n\n"),
    "text": (lambda _: "p", b"data: p\n\n"),
    "bytes": (lambda _: b": p\n", b": p\n"),
    "empty": (lambda _: b"", b""),
    "None": (lambda _: None, b"data: None\n\n"),
}


@pytest.mark.parametrize("kind", MADE)
async def test_factory(both, kind):
    """What a factory makes may be anything an item may be; an event keeps its own line end."""
    make, sent = MADE[kind]

    async def scene(peer):
        async def content():
            await peer.seen(sent)
            yield b"x"

        response = peer.library.EventSourceResponse(
            content(), ping=OFTEN, sep="\n", ping_message_factory=lambda: make(peer.library)
        )
        await peer.call(response)

    def told(peer):
        return peer.messages[:2], peer.messages[-2:], peer.story[-1]

    story = await both(scene, told=told)
    assert story[:2] == ["start", sent]
    assert story[-3:] == [b"x", "end", "returned"]


async def test_factory_is_called_for_each(both):
    """Each ping is made when it is due."""

    async def scene(peer):
        made = []

        def make():
            made.append(len(made))
            return b": %d\n\n" % made[-1]

        async def content():
            await peer.seen(b": 2\n\n")
            yield b"x"

        await peer.call(peer.library.EventSourceResponse(content(), ping=OFTEN, ping_message_factory=make))

    def told(peer):
        return peer.messages[:4]

    story = await both(scene, told=told)
    assert story[:4] == ["start", b": 0\n\n", b": 1\n\n", b": 2\n\n"]


async def torn_down(peer, make):
    async def content():
        try:
            peer.note("waiting")
            await anyio.sleep_forever()
            yield "x"
        except anyio.get_cancelled_exc_class():
            peer.note("content cancelled")
            raise

    async def closed(message):
        peer.note("close handler")

    background = peer.background()
    response = peer.library.EventSourceResponse(
        content(),
        ping=OFTEN,
        ping_message_factory=make,
        background=background,
        client_close_handler_callable=closed,
    )
    await peer.call(response)


async def test_factory_that_raises(both):
    """What a factory raises is raised as it was; the content is cancelled, no background task runs."""

    async def scene(peer):
        def make():
            raise RuntimeError("no ping today")

        await torn_down(peer, make)

    assert await both(scene) == ["start", "waiting", "content cancelled", "raised RuntimeError: no ping today"]


@pytest.mark.parametrize(
    ("made", "raised"),
    [
        ({"unknown": 1}, "unknown"),
        ({"retry": "1"}, "retry argument must be int"),
    ],
)
async def test_factory_with_what_cannot_be_sent(both, made, raised):
    """What is no event is a TypeError, as for an item."""

    async def scene(peer):
        await torn_down(peer, lambda: made)

    def told(peer):
        return peer.messages, peer.story[:-1], peer.story[-1].split(":")[0]

    story = await both(scene, told=told)
    assert story[:3] == ["start", "waiting", "content cancelled"]
    assert story[3].startswith("raised TypeError: ")
    assert raised in story[3]


async def until_others_ping(library, times: int = 2) -> None:
    """Wait until a neighbour with `ping=OFTEN` has had that many."""
    pings = 0
    done = anyio.Event()

    async def send(message):
        nonlocal pings
        pings += message.get("body", b"").startswith(b": ping")
        if pings == times:
            done.set()

    async def content():
        await done.wait()
        yield "x"

    await library.EventSourceResponse(content(), ping=OFTEN)(
        {"type": "http", "method": "GET", "headers": []}, anyio.sleep_forever, send
    )


@pytest.mark.parametrize("how", ["parameter", "attribute", "class"])
async def test_zero_sends_none(both, how):
    """With 0 there is none, while a neighbour gets two."""

    async def scene(peer):
        class Silent(peer.library.EventSourceResponse):
            DEFAULT_PING_INTERVAL = 0

        async def content():
            yield "x"
            await until_others_ping(peer.library)
            yield "y"

        kind = Silent if how == "class" else peer.library.EventSourceResponse
        response = kind(content(), ping=0 if how == "parameter" else None)
        if how == "attribute":
            response.ping_interval = 0
        await peer.call(response)

    assert await both(scene) == ["start", b"data: x\r\n\r\n", b"data: y\r\n\r\n", "end", "returned"]


async def test_interval_set_before_the_call(both):
    """An interval that is assigned after construction is the one that counts."""

    async def scene(peer):
        async def content():
            await peer.seen(PING)
            yield "x"

        response = peer.library.EventSourceResponse(content())
        assert response.ping_interval == 15
        response.ping_interval = OFTEN
        await peer.call(response)

    story = await both(scene, told=first(1))
    assert only(story, 1) == ["start", PING, b"data: x\r\n\r\n", "end", "returned"]


async def test_default_of_a_subclass(both):
    """A subclass may have another `DEFAULT_PING_INTERVAL`."""

    async def scene(peer):
        class Often(peer.library.EventSourceResponse):
            DEFAULT_PING_INTERVAL = OFTEN

        async def content():
            await peer.seen(PING)
            yield "x"

        await peer.call(Often(content()))

    story = await both(scene, told=first(1))
    assert only(story, 1) == ["start", PING, b"data: x\r\n\r\n", "end", "returned"]


async def test_ping_that_is_not_taken(both):
    """A ping that takes longer than `send_timeout` is a SendTimeoutError; the content is cancelled where it awaits."""

    async def scene(peer):
        peer.at(PING, anyio.sleep_forever)

        async def content():
            try:
                await anyio.sleep_forever()
                yield "x"
            except anyio.get_cancelled_exc_class():
                peer.note("content cancelled")
                raise

        background = peer.background()
        await peer.call(
            peer.library.EventSourceResponse(content(), ping=OFTEN, send_timeout=0.02, background=background)
        )

    assert await both(scene) == ["start", PING, "content cancelled", "raised SendTimeoutError"]


async def test_ping_that_cannot_be_sent(both):
    """What `send` raises for a ping is raised as it was."""

    async def scene(peer):
        def fail():
            raise RuntimeError("no socket")

        peer.at(PING, fail)

        async def content():
            try:
                await anyio.sleep_forever()
                yield "x"
            except anyio.get_cancelled_exc_class():
                peer.note("content cancelled")
                raise

        background = peer.background()
        await peer.call(peer.library.EventSourceResponse(content(), ping=OFTEN, background=background))

    assert await both(scene) == ["start", PING, "content cancelled", "raised RuntimeError: no socket"]


async def test_no_ping_after_the_end(both):
    """While the final message is waited for, and after it, none is sent."""

    async def scene(peer):
        async def content():  # no thread: that may take longer than an interval to begin
            yield "x"

        peer.at("end", lambda: until_others_ping(peer.library))
        await peer.call(peer.library.EventSourceResponse(content(), ping=OFTEN))
        await until_others_ping(peer.library)

    assert await both(scene) == ["start", b"data: x\r\n\r\n", "end", "returned"]
