"""The end by a shutdown, beside sse-starlette's.

sse-starlette does not see a shutdown on trio, and looks twice a second elsewhere; ours is played on trio alone. What uvicorn
does is test_real_server.py's.

| rule | test |
| --- | --- |
| AppStatus.should_exit = True ends streams: content cancelled, no final message, no close handler, background | test_content_waits |
| ... from any thread, streams of any thread's loop | test_content_waits (thread), test_streams_of_other_threads |
| ... also when it was so before the call | test_before_the_call, test_before_the_call_with_ready_content |
| content suspended at its yield: shielded aclose() | test_interrupted_send |
| stuck cleanup: one warning, and the ending goes on | test_stuck_cleanup |
| interrupted final message | test_interrupted_end |
| shutdown_event is set, with grace 0 too | test_event_without_grace |
| grace: content that ends by itself gets its final message | test_content_ends_within_grace |
| grace: cancelled after it | test_content_outlasts_grace |
| grace works without an event | test_grace_without_event |
| client disconnect and errors within the grace | test_client_leaves_within_grace, test_error_within_grace |
| all streams, and those with other data sources | test_every_stream, test_sender_is_ended |
| a switch that is set back: later streams run | test_switch_set_back |
| handle_exit and the drain's two modes | test_handle_exit, ..._without_drain, test_switch_works_without_the_automatic_drain |
| unknown attributes; the switch under pytest's monkeypatch and mock | test_other_attributes, test_switch_under_monkeypatch, ..._mock |
| a StreamGroup ends streams as the switch does | test_group_ends_as_the_switch_does |
"""  # noqa: E501

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from streamgate.sse import StreamGroup

pytestmark = [pytest.mark.anyio, pytest.mark.leaves_tasks]  # sse-starlette's shutdown watcher outlives its stream

X = b"data: x\r\n\r\n"


async def switch(peer, how="switch"):
    """Set the switch, in one of the ways there are."""
    status = peer.library.AppStatus
    if how == "thread":
        await anyio.to_thread.run_sync(setattr, status, "should_exit", True)
    elif how == "handle_exit":
        status.handle_exit(peer, 15, None)
    else:
        status.should_exit = True


def response_of(peer, content, **options):
    async def closed(message):
        peer.note("close handler")

    return peer.library.EventSourceResponse(
        content,
        **{"ping": 0, "background": peer.background(), "client_close_handler_callable": closed} | options,
    )


async def waiting_content(peer):
    try:
        yield "x"
        peer.note("waiting")
        await anyio.sleep_forever()
    except BaseException as error:
        cancelled = isinstance(error, anyio.get_cancelled_exc_class())
        peer.note("content cancelled" if cancelled else f"content got {type(error).__name__}")
        raise
    finally:
        peer.note("content closed")


@pytest.mark.parametrize("how", ["switch", "thread", "handle_exit"])
async def test_content_waits(both, monkeypatch, ours, theirs, how):
    """The content is cancelled where it awaits; no final message, no close handler; the background task runs."""
    for library in (ours, theirs):
        monkeypatch.setattr(library.AppStatus, "original_handler", None)  # uvicorn's needs a server

    async def scene(peer):
        async with anyio.create_task_group() as group:
            group.start_soon(peer.call, response_of(peer, waiting_content(peer)))
            await peer.seen("waiting")
            await switch(peer, how)

    assert await both(scene, on_trio=False) == [
        *("start", X, "waiting", "content cancelled", "content closed", "background", "returned")
    ]


async def test_before_the_call(both):
    """While the switch is set, a new stream gets its head, and its content is cancelled where it first awaits."""

    async def scene(peer):
        async def content():
            peer.note("waiting")
            try:
                await anyio.sleep_forever()
                yield "x"
            finally:
                peer.note("content closed")

        await switch(peer)
        await peer.call(response_of(peer, content()))

    # On trio sse-starlette's task that sees the switch may be faster than the one that sends the head.
    assert await both(scene, on_trio=False) == ["start", "waiting", "content closed", "background", "returned"]


async def test_before_the_call_with_ready_content(both):
    """Content that never waits is through before anybody could end it."""

    async def scene(peer):
        async def content():
            yield "x"

        await switch(peer)
        await peer.call(response_of(peer, content()))

    assert await both(scene, on_trio=False) == ["start", X, "end", "background", "returned"]


@pytest.mark.parametrize("event", [False, True])
async def test_event_without_grace(both, event):
    """The event is set before the content is cancelled, so that its cleanup may look."""

    async def scene(peer):
        shutdown = anyio.Event() if event else None

        async def content():
            try:
                peer.note("waiting")
                await anyio.sleep_forever()
                yield "x"
            finally:
                peer.note(shutdown is not None and shutdown.is_set())

        async with anyio.create_task_group() as group:
            group.start_soon(peer.call, response_of(peer, content(), shutdown_event=shutdown))
            await peer.seen("waiting")
            await switch(peer)

    assert await both(scene, on_trio=False) == ["start", "waiting", event, "background", "returned"]


async def test_content_ends_within_grace(both):
    """Content that looks at the event may say goodbye, and its body ends properly."""

    async def scene(peer):
        event = anyio.Event()

        async def content():
            yield "x"
            peer.note("waiting")
            await event.wait()
            yield "bye"
            peer.note("content closed")

        async with anyio.create_task_group() as group:
            options = {"shutdown_event": event, "shutdown_grace_period": 5}
            group.start_soon(peer.call, response_of(peer, content(), **options))
            await peer.seen("waiting")
            await switch(peer)

    assert await both(scene, on_trio=False) == [
        *("start", X, "waiting", b"data: bye\r\n\r\n", "content closed", "end", "background", "returned")
    ]


async def test_content_outlasts_grace(both):
    """Content that goes on is cancelled when the grace period is over; until then its items are sent."""

    async def scene(peer):
        event = anyio.Event()

        async def content():
            try:
                peer.note("waiting")
                await event.wait()
                yield "x"
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                peer.note("content cancelled")
                raise

        async with anyio.create_task_group() as group:
            options = {"shutdown_event": event, "shutdown_grace_period": 0.1}
            group.start_soon(peer.call, response_of(peer, content(), **options))
            await peer.seen("waiting")
            await switch(peer)

    assert await both(scene, on_trio=False) == ["start", "waiting", X, "content cancelled", "background", "returned"]


async def test_grace_without_event(both):
    """The grace period holds also when nobody is told of it."""

    async def scene(peer):
        release = anyio.Event()

        async def content():
            peer.note("waiting")
            await release.wait()
            yield "x"

        async with anyio.create_task_group() as group:
            group.start_soon(peer.call, response_of(peer, content(), shutdown_grace_period=5))
            await peer.seen("waiting")
            await switch(peer)
            for _ in range(10):
                await checkpoint()
            release.set()

    assert await both(scene, on_trio=False) == ["start", "waiting", X, "end", "background", "returned"]


async def test_client_leaves_within_grace(both):
    """A client that leaves in the grace period has left: its close handler is told."""

    async def scene(peer):
        event = anyio.Event()

        async def content():
            try:
                peer.note("waiting")
                await event.wait()
                peer.leave()
                await anyio.sleep_forever()
                yield "x"
            finally:
                peer.note("content closed")

        async with anyio.create_task_group() as group:
            options = {"shutdown_event": event, "shutdown_grace_period": 5}
            group.start_soon(peer.call, response_of(peer, content(), **options))
            await peer.seen("waiting")
            await switch(peer)

    assert await both(scene, on_trio=False) == [
        *("start", "waiting", "close handler", "content closed", "background", "returned")
    ]


async def test_error_within_grace(both):
    """What the content raises in the grace period is raised."""

    async def scene(peer):
        event = anyio.Event()

        async def content():
            peer.note("waiting")
            await event.wait()
            raise RuntimeError("cannot say goodbye")
            yield

        async with anyio.create_task_group() as group:
            options = {"shutdown_event": event, "shutdown_grace_period": 5}
            group.start_soon(peer.call, response_of(peer, content(), **options))
            await peer.seen("waiting")
            await switch(peer)

    assert await both(scene, on_trio=False) == ["start", "waiting", "raised RuntimeError: cannot say goodbye"]


async def interrupted(peer, at, content, **options):
    """The shutdown comes while a send is stuck."""

    async def interrupt():
        await switch(peer)
        await anyio.sleep_forever()

    peer.at(at, interrupt)
    await peer.call(response_of(peer, content, **options))


@pytest.mark.parametrize("fails", [False, True])
async def test_interrupted_send(both, fails):
    """Content that is suspended at its `yield` is closed, shielded; what that raises is only logged."""

    async def scene(peer):
        async def content():
            try:
                yield "x"
                peer.note("asked for more")
            except GeneratorExit:
                peer.note("content got GeneratorExit")
                raise
            finally:
                await checkpoint()
                peer.note("content closed")
                if fails:
                    raise RuntimeError("cannot clean up")

        await interrupted(peer, X, content())

    logged = ["ERROR logged"] if fails else []
    assert await both(scene, on_trio=False) == [
        *("start", X, "content got GeneratorExit", "content closed", "background", "returned"),
        *logged,
    ]


async def test_stuck_cleanup(both, caplog):
    """Cleanup that outlasts `cleanup_timeout` is cancelled, with one warning, and the ending goes on."""

    async def scene(peer):
        async def content():
            try:
                yield "x"
            finally:
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    peer.note("cleanup cancelled")
                    raise

        with caplog.at_level("INFO"):
            await interrupted(peer, X, content(), cleanup_timeout=0.02)
        peer.note(["cleanup" in record.getMessage() for record in caplog.records if record.levelname == "WARNING"])

    assert await both(scene, on_trio=False) == [
        *("start", X, "cleanup cancelled", "background", "returned", [True], "WARNING logged")
    ]


async def test_interrupted_end(both):
    """A final message that is stuck is given up; the background task runs."""

    async def scene(peer):
        async def content():
            yield "x"

        await interrupted(peer, "end", content())

    assert await both(scene, on_trio=False) == ["start", X, "end", "background", "returned"]


async def test_sender_is_ended(both):
    """A data sender ends with its stream."""

    async def scene(peer):
        async def sender():
            try:
                await anyio.sleep_forever()
            finally:
                peer.note("sender ended")

        send, receive = anyio.create_memory_object_stream(1)
        async with anyio.create_task_group() as group:
            with send, receive:
                group.start_soon(peer.call, response_of(peer, receive, data_sender_callable=sender))
                await send.send("x")
                await peer.seen(X)
                await switch(peer)
                await peer.seen("returned")

    assert await both(scene, on_trio=False) == ["start", X, "sender ended", "background", "returned"]


async def test_every_stream(both):
    """One switch ends every stream there is."""

    async def scene(peer):
        others = [type(peer)(peer.library) for _ in range(3)]
        async with anyio.create_task_group() as group:
            for each in (peer, *others):
                group.start_soon(each.call, response_of(each, waiting_content(each)))
            for each in (peer, *others):
                await each.seen("waiting")
            await switch(peer)
        assert {tuple(map(str, each.story)) for each in others} == {tuple(map(str, peer.story))}

    assert (await both(scene, on_trio=False))[-2:] == ["background", "returned"]


@pytest.mark.parametrize("how", ["switch", "handle_exit"])
def test_streams_of_other_threads(library, monkeypatch, how):
    """Set in one thread, it ends the streams of the loops that run in others."""
    monkeypatch.setattr(library.AppStatus, "original_handler", None)
    waiting = threading.Barrier(4)

    async def stream():
        told = []

        async def content():
            try:
                yield "x"
                await anyio.to_thread.run_sync(waiting.wait, 5)
                await anyio.sleep_forever()
            finally:
                told.append("content closed")

        async def send(message):
            told.append(message.get("body", "start"))

        with anyio.fail_after(5):
            await library.EventSourceResponse(content())({"type": "http", "method": "GET"}, anyio.sleep_forever, send)
        return told

    with ThreadPoolExecutor(3) as threads:
        streams = [threads.submit(anyio.run, stream) for _ in range(3)]
        waiting.wait(5)
        if how == "switch":
            library.AppStatus.should_exit = True
        else:
            library.AppStatus.handle_exit()
        assert [each.result(10) for each in streams] == [["start", X, "content closed"]] * 3


async def test_switch_set_back(both):
    """Once the switch is set back, new streams run to their end."""

    async def scene(peer):
        other = type(peer)(peer.library)
        await switch(peer)
        await other.call(response_of(other, waiting_content(other)))
        assert other.story[-1] == "returned"
        assert "end" not in other.story
        peer.library.AppStatus.should_exit = False
        await peer.call(response_of(peer, ["x"]))

    assert await both(scene, on_trio=False) == ["start", X, "end", "background", "returned"]


async def test_other_attributes(both):
    """Attributes of versions long gone may still be assigned: third parties' fixtures do."""

    async def scene(peer):
        peer.library.AppStatus.should_exit_event = None
        peer.library.AppStatus.listeners = []
        peer.library.AppStatus.should_exit = False
        await peer.call(response_of(peer, ["x"]))

    assert await both(scene) == ["start", X, "end", "background", "returned"]


def test_handle_exit(library, monkeypatch):
    """It sets the switch, then calls the original handler with what it was called with."""
    status = library.AppStatus
    called = []
    monkeypatch.setattr(status, "original_handler", lambda *a, **k: called.append((status.should_exit, a, k)))
    assert status.should_exit is False
    status.handle_exit(1, 2, frame=3)
    assert called == [(True, (1, 2), {"frame": 3})]
    assert status.should_exit is True


def test_handle_exit_without_drain(library, monkeypatch):
    """With the automatic drain disabled it only calls the original handler, if there is one; until enabled again."""
    status = library.AppStatus
    monkeypatch.setattr(status, "original_handler", None)
    status.disable_automatic_graceful_drain()
    assert status.enable_automatic_graceful_drain is False
    status.handle_exit(15, None)
    assert status.should_exit is False
    status.enable_automatic_graceful_drain_mode()
    assert status.enable_automatic_graceful_drain is True
    status.handle_exit(15, None)
    assert status.should_exit is True


async def test_switch_works_without_the_automatic_drain(both):
    """With the automatic drain disabled it is the switch that ends streams."""

    async def scene(peer):
        peer.library.AppStatus.disable_automatic_graceful_drain()
        async with anyio.create_task_group() as group:
            group.start_soon(peer.call, response_of(peer, waiting_content(peer)))
            await peer.seen("waiting")
            await switch(peer)

    assert (await both(scene, on_trio=False))[-3:] == ["content closed", "background", "returned"]


def test_switch_under_monkeypatch(library):
    """Test suites set the switch by pytest's monkeypatch, and it is set back after them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library.AppStatus, "should_exit", True)
        assert library.AppStatus.should_exit is True
    assert library.AppStatus.should_exit is False


def test_switch_under_mock(library):
    """The same by unittest.mock."""
    from unittest import mock

    with mock.patch.object(library.AppStatus, "should_exit", True):
        assert library.AppStatus.should_exit is True
    assert library.AppStatus.should_exit is False


@pytest.mark.parametrize("stuck", [False, True])
async def test_group_ends_as_the_switch_does(both, ours, stuck):
    """A StreamGroup handed in as `drain` ends a stream as the switch does."""

    async def scene(peer):
        group = StreamGroup()
        options = {"drain": group} if peer.library.ours else {}

        async def end():
            if peer.library.ours:
                group.end()
            else:
                await switch(peer)
            if stuck:
                await anyio.sleep_forever()

        if stuck:
            peer.at(X, end)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.call, response_of(peer, waiting_content(peer), **options))
            if not stuck:
                await peer.seen("waiting")
                await end()

    middle = ["content got GeneratorExit"] if stuck else ["waiting", "content cancelled"]
    assert await both(scene, on_trio=False) == ["start", X, *middle, "content closed", "background", "returned"]
