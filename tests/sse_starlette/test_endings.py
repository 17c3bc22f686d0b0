"""How a stream ends: what content, callbacks, client and caller see, beside sse-starlette's.

Shutdown is test_shutdown.py's.

| rule | test |
| --- | --- |
| exhausted: final message, background, no close handler | test_exhausted |
| client disconnect: CancelledError where the content awaits | test_client_leaves_while_content_waits, test_client_leaves_at_once |
| other messages are no disconnect | test_other_messages_are_no_disconnect |
| client disconnect while a send is stuck: shielded aclose() | test_interrupted_send (disconnect) |
| close handler: once, with the message, before the content ends | test_client_leaves_while_content_waits |
| close handler that raises | test_close_handler_that_raises |
| client disconnect during the final message | test_interrupted_end |
| content raises: bare, its finally ran, no background | test_content_that_raises, ..._at_once, test_iterator_that_cannot_be_had |
| an item that is no event: bare, aclose() | test_item_that_cannot_be_sent |
| send raises: bare, aclose() | test_interrupted_send (error), test_head_that_cannot_be_sent, test_end_that_cannot_be_sent |
| receive raises | test_receive_that_raises |
| send_timeout on an item | test_interrupted_send (timeout) |
| send_timeout is not the content's time | test_content_takes_its_time |
| the head of a GET is not under send_timeout | test_slow_head |
| outer cancellation | test_cancelled_while_content_waits, test_interrupted_send (cancel) |
| cleanup that fails is logged with its traceback, the ending goes on | test_interrupted_send_with_failing_cleanup |
| cleanup_timeout: one warning, the ending goes on | test_stuck_cleanup, test_stuck_cleanup_after_encode_error |
| the warning comes also when content swallows the cancellation | test_cleanup_that_swallows_its_cancellation |
| cleanup_timeout None and in time; 0 | test_cleanup_in_time, test_no_time_for_cleanup |
| content that swallows its cancellation | test_content_that_swallows_its_cancellation |
| an interrupted send ends a channel's producer by cancellation | test_producer_is_cancelled |
| `active` | test_active |
"""  # noqa: E501

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

pytestmark = [pytest.mark.anyio, pytest.mark.leaves_tasks]  # sse-starlette's shutdown watcher outlives its stream

X = b"data: x\r\n\r\n"
WAYS = ["disconnect", "cancel", "error", "timeout"]


def told_callbacks(peer):
    """Close handler and background task as keyword arguments; both say when they run."""

    async def closed(message):
        peer.note(f"close handler {message}")
        await checkpoint()
        peer.note("close handler done")

    return {
        "background": peer.background(),
        "client_close_handler_callable": closed,
        "ping": 0,
    }


CLOSE_HANDLER = ["close handler {'type': 'http.disconnect'}", "close handler done"]


async def waiting_content(peer, how=None):
    """One item, then it waits; tells how it was ended, and awaits in its cleanup."""
    try:
        yield "x"
        peer.note("waiting")
        await anyio.sleep_forever()
    except BaseException as error:
        cancelled = isinstance(error, anyio.get_cancelled_exc_class())
        peer.note("content cancelled" if cancelled else f"content got {type(error).__name__}")
        raise
    finally:
        if how is not None:
            with anyio.CancelScope(shield=True):
                await how()
        peer.note("content closed")


async def test_exhausted(both):
    """The final message is sent, then the background task runs; the close handler does not."""

    async def scene(peer):
        async def content():
            try:
                yield "x"
            finally:
                peer.note("content closed")

        await peer.call(peer.library.EventSourceResponse(content(), **told_callbacks(peer)))

    assert await both(scene) == ["start", X, "content closed", "end", "background", "returned"]


async def test_client_leaves_while_content_waits(both):
    """The close handler is told first; then the content is cancelled where it awaits; then the background task runs."""

    async def scene(peer):
        async with anyio.create_task_group() as group:
            group.start_soon(
                peer.call, peer.library.EventSourceResponse(waiting_content(peer, checkpoint), **told_callbacks(peer))
            )
            await peer.seen("waiting")
            peer.leave()

    assert await both(scene) == [
        *("start", X, "waiting", *CLOSE_HANDLER, "content cancelled", "content closed", "background", "returned")
    ]


async def test_client_leaves_at_once(both):
    """A client that is gone before the first item: its content has begun, and is cancelled."""

    async def scene(peer):
        async def content():
            try:
                peer.leave()
                await anyio.sleep_forever()
                yield "x"
            finally:
                peer.note("content closed")

        await peer.call(peer.library.EventSourceResponse(content(), **told_callbacks(peer)))

    assert await both(scene) == ["start", *CLOSE_HANDLER, "content closed", "background", "returned"]


async def test_close_handler_that_raises(both):
    """What the close handler raises is raised as it was; the content is ended, no background task runs."""

    async def scene(peer):
        async def closed(message):
            peer.note("close handler")
            raise RuntimeError("cannot close")

        async with anyio.create_task_group() as group:
            options = told_callbacks(peer) | {"client_close_handler_callable": closed}
            group.start_soon(peer.call, peer.library.EventSourceResponse(waiting_content(peer), **options))
            await peer.seen("waiting")
            peer.leave()

    assert await both(scene) == [
        *("start", X, "waiting", "close handler", "content cancelled", "content closed"),
        "raised RuntimeError: cannot close",
    ]


async def test_other_messages_are_no_disconnect(both):
    """The rest of a request's body, and messages nobody knows, end nothing."""

    async def scene(peer):
        first = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.request"}, {"type": "x"}]

        async def receive():
            await checkpoint()
            return first.pop() if first else await peer.receive()

        async def content():
            while first:
                await checkpoint()
            yield "x"

        async def call(scope, _, send):
            await peer.library.EventSourceResponse(content(), **told_callbacks(peer))(scope, receive, send)

        await peer.call(call)

    assert await both(scene) == ["start", X, "end", "background", "returned"]


@pytest.mark.parametrize("way", ["disconnect", "cancel"])
async def test_interrupted_end(both, way):
    """The final message may be interrupted too; the content is over by then."""

    async def scene(peer):
        async def interrupt():
            (peer.leave if way == "disconnect" else peer.cut.cancel)()
            await anyio.sleep_forever()

        peer.at("end", interrupt)

        async def content():
            yield "x"
            peer.note("content closed")

        await peer.call(peer.library.EventSourceResponse(content(), **told_callbacks(peer)))

    ending = [*CLOSE_HANDLER, "background", "returned"] if way == "disconnect" else ["cancelled"]
    assert await both(scene) == ["start", X, "content closed", "end", *ending]


async def test_content_that_raises(both):
    """What the content raises is raised as it was; its finally ran; no final message, no background task."""

    async def scene(peer):
        async def content():
            try:
                yield "x"
                await checkpoint()
                raise RuntimeError("boom")
            finally:
                await checkpoint()
                peer.note("content closed")

        await peer.call(peer.library.EventSourceResponse(content(), **told_callbacks(peer)))

    assert await both(scene) == ["start", X, "content closed", "raised RuntimeError: boom"]


@pytest.mark.parametrize("sync", [False, True])
async def test_content_that_raises_at_once(both, sync):
    """Also before its first item: the head is out by then."""

    async def scene(peer):
        def synchronous():
            raise LookupError("nothing there")
            yield

        async def asynchronous():
            raise LookupError("nothing there")
            yield

        content = synchronous() if sync else asynchronous()
        await peer.call(peer.library.EventSourceResponse(content, **told_callbacks(peer)))

    assert await both(scene) == ["start", "raised LookupError: nothing there"]


async def test_iterator_that_cannot_be_had(both):
    """What `__aiter__` raises is raised as it was."""

    async def scene(peer):
        class Broken:
            def __aiter__(self):
                raise LookupError("no iterator")

        await peer.call(peer.library.EventSourceResponse(Broken(), **told_callbacks(peer)))

    assert await both(scene) == ["start", "raised LookupError: no iterator"]


class Unspeakable:
    def __str__(self):
        raise ValueError("cannot be text")


BAD = {
    "unknown": ({"unknown": 1}, "TypeError"),
    "retry": ({"retry": "1"}, "TypeError"),
    "str": (Unspeakable(), "ValueError"),
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", BAD)
async def test_item_that_cannot_be_sent(both, kind, fails):
    """It is raised as it was, after the content's cleanup; what that raises is only logged."""
    item, raised = BAD[kind]

    async def scene(peer):
        async def content():
            try:
                yield "x"
                yield item
            except GeneratorExit:
                peer.note("content got GeneratorExit")
                raise
            finally:
                await checkpoint()
                peer.note("content closed")
                if fails:
                    raise OSError("cannot clean up")

        await peer.call(peer.library.EventSourceResponse(content(), **told_callbacks(peer)))

    def told(peer):
        return peer.messages, peer.story[:-1], peer.story[-1].split(":")[0]

    story = await both(scene, told=told)
    logged = ["ERROR logged"] if fails else []
    assert story[:4] == ["start", X, "content got GeneratorExit", "content closed"]
    assert story[4].startswith(f"raised {raised}")
    assert story[5:] == logged


async def interrupted(peer, way, content, **options):
    """Let the first item's send hang, and interrupt it."""

    async def interrupt():
        if way == "error":
            raise OSError("connection lost")
        if way == "disconnect":
            peer.leave()
        if way == "cancel":
            peer.cut.cancel()
        await anyio.sleep_forever()

    peer.at(X, interrupt)
    timeout = 0.02 if way == "timeout" else None
    response = peer.library.EventSourceResponse(content, send_timeout=timeout, **told_callbacks(peer) | options)
    await peer.call(response)


def ending_of(way, cleanup):
    """What follows the item whose send was interrupted."""
    return {
        "disconnect": [*CLOSE_HANDLER, *cleanup, "background", "returned"],
        "cancel": [*cleanup, "cancelled"],
        "error": [*cleanup, "raised OSError: connection lost"],
        "timeout": [*cleanup, "raised SendTimeoutError"],
    }[way]


@pytest.mark.parametrize("way", WAYS)
async def test_interrupted_send(both, way):
    """Content that is suspended at its `yield` is closed, and may await in its cleanup: it is shielded."""

    async def scene(peer):
        async def content():
            try:
                yield "x"
                peer.note("asked for more")
            except BaseException as error:
                peer.note(f"content got {type(error).__name__}")
                raise
            finally:
                for _ in range(5):
                    await checkpoint()
                peer.note("content closed")

        await interrupted(peer, way, content())

    cleanup = ["content got GeneratorExit", "content closed"]
    assert await both(scene) == ["start", X, *ending_of(way, cleanup)]


@pytest.mark.parametrize("way", WAYS)
async def test_interrupted_send_with_failing_cleanup(both, way):
    """What the cleanup raises is logged with its traceback, and the ending goes on."""

    async def scene(peer):
        async def content():
            try:
                yield "x"
            finally:
                peer.note("content closed")
                raise RuntimeError("cannot clean up")

        await interrupted(peer, way, content())

    assert await both(scene) == ["start", X, *ending_of(way, ["content closed"]), "ERROR logged"]


async def stuck_content(peer):
    try:
        yield "x"
    finally:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            peer.note("cleanup cancelled")
            raise


@pytest.mark.parametrize("way", WAYS)
async def test_stuck_cleanup(both, way, caplog):
    """Cleanup that outlasts `cleanup_timeout` is cancelled, with one warning, and the ending goes on."""

    async def scene(peer):
        with caplog.at_level("INFO"):
            await interrupted(peer, way, stuck_content(peer), cleanup_timeout=0.02)
        peer.note(["cleanup" in record.getMessage() for record in caplog.records if record.levelname == "WARNING"])

    assert await both(scene) == ["start", X, *ending_of(way, ["cleanup cancelled"]), [True], "WARNING logged"]


async def test_stuck_cleanup_after_encode_error(both, caplog):
    """The same after an item that cannot be sent."""

    async def scene(peer):
        async def content():
            try:
                yield {"retry": "1"}
            finally:
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    peer.note("cleanup cancelled")
                    raise

        await peer.call(peer.library.EventSourceResponse(content(), cleanup_timeout=0.02, **told_callbacks(peer)))

    assert await both(scene) == [
        *("start", "cleanup cancelled", "raised TypeError: retry argument must be int", "WARNING logged")
    ]


async def test_cleanup_that_swallows_its_cancellation(both):
    """It was cut short all the same, so the warning comes."""

    async def scene(peer):
        async def content():
            try:
                yield "x"
            finally:
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    peer.note("swallowed")

        await interrupted(peer, "disconnect", content(), cleanup_timeout=0.02)

    assert await both(scene) == ["start", X, *ending_of("disconnect", ["swallowed"]), "WARNING logged"]


@pytest.mark.parametrize("limit", [None, 5])
async def test_cleanup_in_time(both, limit):
    """With None there is no limit; in time there is no warning."""

    async def scene(peer):
        async def content():
            try:
                yield "x"
            finally:
                await checkpoint()
                peer.note("content closed")

        await interrupted(peer, "disconnect", content(), cleanup_timeout=limit)

    assert await both(scene) == ["start", X, *ending_of("disconnect", ["content closed"])]


@pytest.mark.parametrize("awaits", [False, True])
async def test_no_time_for_cleanup(both, awaits):
    """With 0 only cleanup that does not await is done."""

    async def scene(peer):
        async def content():
            try:
                yield "x"
            finally:
                try:
                    if awaits:
                        await anyio.sleep_forever()
                    peer.note("content closed")
                except anyio.get_cancelled_exc_class():
                    peer.note("cleanup cancelled")
                    raise

        await interrupted(peer, "disconnect", content(), cleanup_timeout=0)

    story = await both(scene)
    cleanup = "cleanup cancelled" if awaits else "content closed"
    assert story[: len(CLOSE_HANDLER) + 5] == ["start", X, *ending_of("disconnect", [cleanup])]


@pytest.mark.parametrize("error", [OSError, RuntimeError])
async def test_head_that_cannot_be_sent(both, error):
    """What `send` raises for the head is raised as it was; nothing else runs."""

    async def scene(peer):
        def fail():
            raise error("no socket")

        peer.at("start", fail)
        await peer.call(peer.library.EventSourceResponse(["x"], **told_callbacks(peer)))

    assert await both(scene) == ["start", f"raised {error.__name__}: no socket"]


async def test_end_that_cannot_be_sent(both):
    """What `send` raises for the final message is raised as it was."""

    async def scene(peer):
        def fail():
            raise RuntimeError("no socket")

        peer.at("end", fail)
        await peer.call(peer.library.EventSourceResponse(["x"], **told_callbacks(peer)))

    assert await both(scene) == ["start", X, "end", "raised RuntimeError: no socket"]


async def test_receive_that_raises(both):
    """What `receive` raises is raised as it was; the content is cancelled."""

    async def scene(peer):
        async def receive():
            await peer.seen("waiting")
            raise RuntimeError("no server")

        async def call(scope, _, send):
            response = peer.library.EventSourceResponse(waiting_content(peer), **told_callbacks(peer))
            await response(scope, receive, send)

        await peer.call(call)

    assert await both(scene) == [
        *("start", X, "waiting", "content cancelled", "content closed", "raised RuntimeError: no server")
    ]


async def test_content_takes_its_time(both):
    """`send_timeout` is about sends: content that is slower than that goes on."""

    async def scene(peer):
        async def content():
            yield "x"
            with anyio.move_on_after(0.1):
                await anyio.sleep_forever()
            yield "x"

        await peer.call(peer.library.EventSourceResponse(content(), send_timeout=0.02, **told_callbacks(peer)))

    assert await both(scene) == ["start", X, X, "end", "background", "returned"]


async def test_slow_head(both):
    """A head that takes longer than `send_timeout` is waited for."""

    async def scene(peer):
        async def slowly():
            with anyio.move_on_after(0.1):
                await anyio.sleep_forever()
            peer.note("head taken")

        peer.at("start", slowly)
        await peer.call(peer.library.EventSourceResponse(["x"], send_timeout=0.02, **told_callbacks(peer)))

    assert await both(scene) == ["start", "head taken", X, "end", "background", "returned"]


async def test_cancelled_while_content_waits(both):
    """An outer cancellation reaches the content where it awaits, and the caller; no callback runs."""

    async def scene(peer):
        async with anyio.create_task_group() as group:
            group.start_soon(
                peer.call, peer.library.EventSourceResponse(waiting_content(peer, checkpoint), **told_callbacks(peer))
            )
            await peer.seen("waiting")
            peer.cut.cancel()

    assert await both(scene) == ["start", X, "waiting", "content cancelled", "content closed", "cancelled"]


async def test_content_that_swallows_its_cancellation(both):
    """Nothing it yields after that is sent, and it is not asked again."""

    async def scene(peer):
        async def content():
            try:
                yield "x"
                try:
                    peer.note("waiting")
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    peer.note("swallowed")
                yield "after"
                peer.note("asked for more")
            finally:
                peer.note("content closed")

        async def slowly():
            await checkpoint()  # as every `send` that has to wait would

        peer.at(b"data: after\r\n\r\n", slowly)
        async with anyio.create_task_group() as group:
            group.start_soon(peer.call, peer.library.EventSourceResponse(content(), **told_callbacks(peer)))
            await peer.seen("waiting")
            peer.leave()

    def told(peer):
        # A `send` that had begun in spite of the cancellation is sse-starlette's own.
        return [entry for entry in peer.story if entry != b"data: after\r\n\r\n"]

    story = await both(scene, told=told)
    assert story == ["start", X, "waiting", *CLOSE_HANDLER, "swallowed", "content closed", "background", "returned"]


@pytest.mark.parametrize("buffer", [0, 1, 10])
async def test_producer_is_cancelled(both, buffer):
    """When a send is interrupted, what fills the channel sees a cancellation, not a broken channel."""

    async def scene(peer):
        send, receive = anyio.create_memory_object_stream(buffer)

        async def sender():
            try:
                async with send:
                    for _ in range(100):
                        await send.send("x")
            except BaseException as error:
                cancelled = isinstance(error, anyio.get_cancelled_exc_class())
                peer.note("sender cancelled" if cancelled else f"sender got {type(error).__name__}")
                raise

        async def interrupt():
            while not send.statistics().tasks_waiting_send:
                await checkpoint()
            peer.leave()
            await anyio.sleep_forever()

        peer.at(X, interrupt)
        response = peer.library.EventSourceResponse(receive, data_sender_callable=sender, **told_callbacks(peer))
        await peer.call(response)
        with pytest.raises(anyio.ClosedResourceError):
            receive.receive_nowait()

    assert await both(scene) == ["start", X, *ending_of("disconnect", ["sender cancelled"])]


@pytest.mark.parametrize("way", ["exhausted", "disconnect"])
async def test_active(both, way):
    """True until the end."""

    async def scene(peer):
        async def content():
            peer.note(response.active)
            yield "x"
            if way == "disconnect":
                peer.leave()
                await anyio.sleep_forever()

        async def closed(message):
            peer.note(response.active)

        response = peer.library.EventSourceResponse(content(), client_close_handler_callable=closed, ping=0)
        assert response.active is True
        await peer.call(response)
        peer.note(response.active)

    handler = [False] if way == "disconnect" else ["end"]
    assert await both(scene) == ["start", True, X, *handler, "returned", False]
