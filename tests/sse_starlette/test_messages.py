"""The ASGI messages of a response, one by one, beside sse-starlette's.

| rule | test |
| --- | --- |
| the head is sent at once, before an item exists | test_head_goes_out_before_the_first_item |
| one body message per item, a final empty one | test_one_message_per_item, test_empty_content |
| every kind of item | test_every_kind_of_item |
| the next item is asked for when the previous send returned | test_pull_not_push, test_no_read_ahead |
| asynchronous iterables as they are | test_async_iterables, test_body_iterator_is_assignable |
| everything else in worker threads, lazily | test_sync_iterables, test_sync_content_stays_off_the_loop, test_what_cannot_be_iterated |
| memory channel and data_sender_callable | test_memory_channel, test_sender_that_finishes, test_sender_that_raises, test_sender_is_ended_with_the_content |
| HEAD: head, empty final body, background, nothing else | test_head_request, test_head_request_is_under_send_timeout |
| websocket: the same messages as a denial | test_websocket_denial, test_websocket_denial_says_so_in_every_message |
| status, headers, cookies, background: effective until sent | test_response_attributes, test_background_error_is_raised |
| subclasses | test_subclass_wraps_the_call, test_subclass_with_names_of_old |
"""  # noqa: E501

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.background import BackgroundTask

pytestmark = [pytest.mark.anyio, pytest.mark.leaves_tasks]  # sse-starlette's shutdown watcher outlives its stream


def numbers(count: int) -> list[bytes]:
    return [b"data: %d\r\n\r\n" % number for number in range(count)]


async def test_head_goes_out_before_the_first_item(both):
    """`http.response.start` is sent before the content is asked for anything."""

    async def scene(peer):
        async def content():
            peer.note("asked")
            await peer.seen("start")
            yield "x"

        await peer.call(peer.library.EventSourceResponse(content()))

    assert await both(scene) == ["start", "asked", b"data: x\r\n\r\n", "end", "returned"]


async def test_one_message_per_item(both):
    """Each item is one body message, an empty one too, and a final empty one ends the body."""

    async def scene(peer):
        async def content():
            for item in ("a", b"", b": raw\n\n", {"data": "b"}, "", {}):
                yield item

        await peer.call(peer.library.EventSourceResponse(content()))

    pieces = [b"data: a\r\n\r\n", b"", b": raw\n\n", b"data: b\r\n\r\n", b"data: \r\n\r\n", b"\r\n"]
    assert await both(scene) == ["start", *pieces, "end", "returned"]


@pytest.mark.parametrize("sep", [None, "\r\n", "\n", "\r"])
async def test_every_kind_of_item(both, sep):
    """Events keep their own line end, dicts, text and all else take the response's, bytes are as they are."""

    async def scene(peer):
        event = peer.library.ServerSentEvent

        async def content():
            for item in (
                *(1, 2.5, None, True, [1], (), "t\nu", b"\xff\n", memoryview(b"m"), {"data": {"a": 1}}),
                {"data": "d", "event": "e", "id": "i", "retry": 5, "comment": "c", "sep": "\n"},
                event("x", event="e"),
                event("x", sep="\n"),
                peer.library.JSONServerSentEvent({"é": 1}, id="7"),
            ):
                yield item

        await peer.call(peer.library.EventSourceResponse(content(), sep=sep))

    story = await both(scene)
    end = (sep or "\r\n").encode()
    assert story[1] == b"data: 1" + 2 * end
    assert b"event: e\r\ndata: x\r\n\r\n" in story
    assert b"data: x\n\n" in story
    assert len(story) == 14 + 3


@pytest.mark.parametrize("content", [[], (), {}, "", b"", range(0), lambda: iter(()), "generator", "channel"])
async def test_empty_content(both, content):
    """No item: head and end, and nothing between them."""

    async def scene(peer):
        async def nothing():
            return
            yield

        def source():
            if content == "generator":
                return nothing()
            if content == "channel":
                return receive
            return content() if callable(content) else content

        send, receive = anyio.create_memory_object_stream(1)
        send.close()
        with receive:
            await peer.call(peer.library.EventSourceResponse(source()))

    assert await both(scene) == ["start", "end", "returned"]


async def test_pull_not_push(both):
    """The next item is not asked for before the last one's `send` has returned."""

    async def scene(peer):
        async def content():
            for number in range(2):
                peer.note(f"asked {number}")
                yield number
            peer.note("asked for more")

        async def slowly():
            for _ in range(5):
                await checkpoint()
            peer.note("taken")

        for piece in numbers(2):
            peer.at(piece, slowly)
        await peer.call(peer.library.EventSourceResponse(content()))

    pieces = numbers(2)
    assert await both(scene) == [
        *("start", "asked 0", pieces[0], "taken", "asked 1", pieces[1], "taken", "asked for more", "end", "returned")
    ]


async def test_no_read_ahead(both):
    """A memory channel holds what was not yet asked for."""

    async def scene(peer):
        send, receive = anyio.create_memory_object_stream(3)
        with send:
            for number in range(3):
                send.send_nowait(number)

        async def count():
            await checkpoint()
            peer.note(receive.statistics().current_buffer_used)

        for piece in numbers(3):
            peer.at(piece, count)
        with receive:
            await peer.call(peer.library.EventSourceResponse(receive))

    pieces = numbers(3)
    assert await both(scene) == ["start", pieces[0], 2, pieces[1], 1, pieces[2], 0, "end", "returned"]


class Counting:
    """An asynchronous iterable that is no generator, and has no aclose."""

    def __init__(self) -> None:
        self.number = 0

    def __aiter__(self):
        return self

    async def __anext__(self):
        await checkpoint()
        self.number += 1
        if self.number > 2:
            raise StopAsyncIteration
        return self.number - 1


class Fresh:
    """An asynchronous iterable whose iterator is another object."""

    def __aiter__(self):
        return Counting()


@pytest.mark.parametrize("make", [Counting, Fresh])
async def test_async_iterables(both, make):
    """What has `__aiter__` is iterated as it is."""

    async def scene(peer):
        content = make()
        response = peer.library.EventSourceResponse(content)
        assert response.body_iterator is content
        await peer.call(response)

    assert await both(scene) == ["start", *numbers(2), "end", "returned"]


async def test_body_iterator_is_assignable(both):
    """What is in `body_iterator` when the response is called is what is sent: middleware wraps it."""

    async def scene(peer):
        async def twice(items):
            async for item in items:
                yield item
                yield item

        response = peer.library.EventSourceResponse(["x"])
        response.body_iterator = twice(response.body_iterator)
        await peer.call(response)

    assert await both(scene) == ["start", b"data: x\r\n\r\n", b"data: x\r\n\r\n", "end", "returned"]


def generator():
    yield 0
    yield 1


class Items:
    def __getitem__(self, index):
        if index > 1:
            raise IndexError
        return index


@pytest.mark.parametrize(
    "make",
    [lambda: [0, 1], lambda: (0, 1), lambda: range(2), lambda: iter([0, 1]), generator, lambda: {0: "a", 1: "b"},
     lambda: "01", lambda: b"\x00\x01", Items, lambda: map(int, "01")],
)  # fmt: skip
async def test_sync_iterables(both, make):
    """Whatever `iter` takes: a generator, a list, a range, the keys of a dict, the letters of a text."""

    async def scene(peer):
        await peer.call(peer.library.EventSourceResponse(make()))

    assert await both(scene) == ["start", *numbers(2), "end", "returned"]


async def test_sync_content_stays_off_the_loop(both):
    """A synchronous generator runs in worker threads, one item at a time, and not before it is asked."""

    async def scene(peer):
        loop_thread = threading.get_ident()
        noted: list[Any] = []

        def content():
            for number in range(2):
                noted.append(("asked", number, threading.get_ident() != loop_thread))
                yield number

        for piece in numbers(2):
            peer.at(piece, lambda: noted.append("sent"))
        response = peer.library.EventSourceResponse(content())
        assert noted == []
        await peer.call(response)
        peer.note(noted)

    asked = [("asked", 0, True), "sent", ("asked", 1, True), "sent"]
    assert await both(scene) == ["start", *numbers(2), "end", "returned", asked]


@pytest.mark.parametrize("content", [0, None, object])
async def test_what_cannot_be_iterated(both, content):
    """It constructs, and is a TypeError after the head."""

    async def scene(peer):
        await peer.call(peer.library.EventSourceResponse(content))

    start, raised = await both(scene)
    assert start == "start"
    assert raised.startswith("raised TypeError: ")


@pytest.mark.parametrize("buffer", [0, 1, 10])
async def test_memory_channel(both, buffer):
    """A channel's receiving end is content, and data_sender_callable fills it."""

    async def scene(peer):
        send, receive = anyio.create_memory_object_stream(buffer)

        async def sender():
            async with send:
                for number in range(5):
                    await send.send({"data": number})

        with receive:
            await peer.call(peer.library.EventSourceResponse(receive, data_sender_callable=sender))

    assert await both(scene) == ["start", *numbers(5), "end", "returned"]


async def test_sender_that_finishes(both):
    """A data sender that has finished does not end the stream."""

    async def scene(peer):
        async def sender():
            await peer.seen("start")
            peer.note("sender done")

        async def content():
            await peer.seen("sender done")
            for _ in range(10):
                await checkpoint()
            yield "x"

        await peer.call(peer.library.EventSourceResponse(content(), data_sender_callable=sender))

    assert await both(scene) == ["start", "sender done", b"data: x\r\n\r\n", "end", "returned"]


async def test_sender_that_raises(both):
    """What a data sender raises ends the stream, and is raised as it was; the content is cancelled."""

    async def scene(peer):
        async def sender():
            await peer.seen("waiting")
            raise RuntimeError("no more")

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
        await peer.call(
            peer.library.EventSourceResponse(
                content(),
                data_sender_callable=sender,
                background=background,
                client_close_handler_callable=closed,
            )
        )

    assert await both(scene) == ["start", "waiting", "content cancelled", "raised RuntimeError: no more"]


async def test_sender_is_ended_with_the_content(both):
    """When the content is exhausted the data sender is cancelled, and the response waits for its end."""

    async def scene(peer):
        async def sender():
            try:
                await peer.seen("start")
                peer.note("sending")
                await anyio.sleep_forever()
            finally:
                peer.note("sender ended")

        async def content():
            await peer.seen("sending")
            yield "x"

        background = peer.background()
        await peer.call(peer.library.EventSourceResponse(content(), data_sender_callable=sender, background=background))

    assert await both(scene) == [
        *("start", "sending", b"data: x\r\n\r\n", "end", "sender ended", "background", "returned")
    ]


@pytest.mark.parametrize("method", ["HEAD", "head", "Head"])
@pytest.mark.parametrize("kind", ["async", "sync", "channel", 0])
async def test_head_request(both, method, kind):
    """HEAD, in any case: the same head, an empty body; content and data sender stay untouched, background runs."""

    async def scene(peer):
        async def asynchronous():
            peer.note("content begun")
            yield "x"

        def synchronous():
            peer.note("content begun")
            yield "x"

        async def sender():
            peer.note("sender begun")

        async def closed(message):
            peer.note("close handler")

        content = {"async": asynchronous, "sync": synchronous, "channel": lambda: channel[1]}.get(kind, lambda: 0)
        with (channel := anyio.create_memory_object_stream(1))[0], channel[1]:
            channel[0].send_nowait("x")
            response = peer.library.EventSourceResponse(
                content(),
                202,
                {"x-a": "b"},
                background=peer.background(),
                data_sender_callable=sender,
                client_close_handler_callable=closed,
            )
            peer.leave()
            await peer.call(response)
            peer.note(channel[1].statistics().current_buffer_used)
        await checkpoint()

    assert await both(scene, method=method) == ["start", "end", "background", "returned", 1]


@pytest.mark.parametrize("stuck", ["start", "end"])
async def test_head_request_is_under_send_timeout(both, stuck):
    """Both messages of the answer to a HEAD are under `send_timeout`."""

    async def scene(peer):
        peer.at(stuck, anyio.sleep_forever)
        background = peer.background()
        await peer.call(peer.library.EventSourceResponse([], send_timeout=0.02, background=background))

    story = await both(scene, method="HEAD")
    assert story == [*(["start"] if stuck == "start" else ["start", "end"]), "raised SendTimeoutError"]


async def test_websocket_denial(both):
    """On a websocket scope the messages have the names of a denial response, pings and end included."""

    async def scene(peer):
        async def content():
            yield b"denied"

        peer.scope.pop("method")
        background = peer.background()
        await peer.call(peer.library.EventSourceResponse(content(), 403, background=background))

    assert await both(scene, type="websocket") == [
        "websocket start",
        b"denied",
        "websocket end",
        "background",
        "returned",
    ]


async def test_websocket_denial_says_so_in_every_message(both):
    """Not one message keeps the name of an ordinary response."""

    async def scene(peer):
        await peer.call(peer.library.EventSourceResponse(["x", "y"]))
        peer.note([message["type"] for message in peer.messages])

    story = await both(scene, type="websocket")
    assert story[-1] == ["websocket.http.response.start", *["websocket.http.response.body"] * 3]


async def test_response_attributes(both):
    """Status, headers, cookies and background may be set until the response is called: FastAPI does."""

    async def scene(peer):
        response = peer.library.EventSourceResponse(["x"])
        response.status_code = 201
        response.headers["x-later"] = "1"
        response.set_cookie("a", "b", httponly=True)
        response.background = peer.background()
        await peer.call(response)

    assert await both(scene) == ["start", b"data: x\r\n\r\n", "end", "background", "returned"]


async def test_background_error_is_raised(both):
    """What the background task raises is raised, after the whole body."""

    async def scene(peer):
        async def background():
            raise LookupError("late")

        await peer.call(peer.library.EventSourceResponse(["x"], background=BackgroundTask(background)))

    assert await both(scene) == ["start", b"data: x\r\n\r\n", "end", "raised LookupError: late"]


async def test_subclass_wraps_the_call(both):
    """A subclass that wraps receive and send, and one with an `__init__` of its own, work as they did."""

    async def scene(peer):
        class Wrapped(peer.library.EventSourceResponse):
            def __init__(self, content, **options):
                super().__init__(content, sep="\n", **options)

            async def __call__(self, scope, receive, send):
                async def telling_send(message):
                    peer.note(message["type"])
                    await send(message)

                async def telling_receive():
                    message = await receive()
                    await peer.seen("start")
                    peer.note(message["type"])
                    return message

                await super().__call__(scope, telling_receive, telling_send)

        async def content():
            await peer.seen("http.request")
            yield "x"

        await peer.call(Wrapped(content()))

    body = "http.response.body"
    assert await both(scene) == [
        *("http.response.start", "start", "http.request", body, b"data: x\n\n", body, "end", "returned")
    ]


async def test_subclass_with_names_of_old(both):
    """`listen_for_disconnect` and `stream_response` of old code have no effect."""

    async def scene(peer):
        class Old(peer.library.EventSourceResponse):
            async def listen_for_disconnect(self, receive):
                peer.note("old")

            async def stream_response(self, send):
                peer.note("old")

            async def listen_for_exit_signal(self):
                peer.note("old")

        await peer.call(Old(["x"]))

    assert await both(scene) == ["start", b"data: x\r\n\r\n", "end", "returned"]
