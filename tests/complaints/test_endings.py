"""How a stream ends: what is run, what is freed, what is raised, whatever the ending."""

# Each complaint, where it was made, and the tests that hold it.
# the client leaves while the head is sent: the iterator is not closed (sysid/sse-starlette#156)
#     iterator_is_never_closed
# the response lives until the cycle collector comes (sysid/sse-starlette#142)
#     response_freed_only
# four tasks beside the request's (PrefectHQ/fastmcp#4192)
#     four_tasks
# tasks survive the stream (sysid/sse-starlette#152, homeassistant-ai/ha-mcp#2127)
#     task_survives
# two failures reach middleware as an ExceptionGroup
#     exception_group
# a cleanup without a deadline (sysid/sse-starlette#217)
#     cleanup_without_a_deadline
# leases leak: nothing runs on timeouts and errors (sysid/sse-starlette#97, #126, modelcontextprotocol/python-sdk#586)
#     no_hook_runs, hook_that_fails
# two ways of noticing that the client left (sysid/sse-starlette#7, #28, #33, #39, #40, #76)
#     two_ways_of_noticing

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
import sse_starlette
from anyio.lowlevel import checkpoint
from complaints.client import Client, quiet, running, served
from complaints.endings import WAYS, Broken, Way, one_and_silence

from streamgate.sse import Account, Ending, EventSourceResponse
from streamgate.sse.life import Life

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unwatched")]

EACH = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
OURS, THEIRS = EventSourceResponse, sse_starlette.EventSourceResponse


class Closable:
    """An iterator that must be told when nobody wants it any more."""

    def __init__(self) -> None:
        self.closed = False

    def __aiter__(self) -> Closable:
        return self

    async def __anext__(self) -> str:
        await anyio.sleep_forever()
        return "never"

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("response", "closed"), [(OURS, True), (THEIRS, False)])
async def test_iterator_is_never_closed_when_the_client_leaves_while_the_head_is_sent(
    response: type[Any], closed: bool
) -> None:
    """sysid/sse-starlette#156: whoever leaves before the head is out still has the content closed."""
    client, content = Client(), Closable()
    client.hold()
    async with running(response(content), client) as run:
        await client.until(lambda _: client.offered)
        client.leave()
    assert (run.raised, content.closed) == (None, closed)


@EACH
async def test_iterator_is_never_closed_however_the_stream_ends(way: Way) -> None:
    """The same of every ending: a generator that was begun has run its `finally` when the response returns."""
    open_now = []

    def make(content: Any, **options: Any) -> EventSourceResponse:
        async def watched() -> AsyncIterator[Any]:
            open_now.append(1)
            try:
                async for item in content:
                    yield item
            finally:
                open_now.pop()
                with anyio.CancelScope(shield=True):
                    await content.aclose()

        return EventSourceResponse(watched() if hasattr(content, "aclose") else content, **options)

    await way.play(make)
    assert open_now == []


@EACH
async def test_no_hook_runs_on_timeouts_and_errors_so_leases_leak(way: Way) -> None:
    """sysid/sse-starlette#97, #126, modelcontextprotocol/python-sdk#586: on_close runs once, and knows how it ended."""
    told: list[Account] = []
    raised = await way.play(lambda content, **options: EventSourceResponse(content, on_close=told.append, **options))
    assert [account.ending for account in told] == [way.ending]
    assert type(raised) is (way.raises or type(None))
    assert told[0].ended_at >= told[0].opened_at > 0


@EACH
async def test_no_hook_runs_to_its_end_on_timeouts_and_errors(way: Way) -> None:
    """The same of a hook that awaits: neither a cancellation nor a disconnect cuts it short."""
    told: list[Ending | None] = []

    async def returned(account: Account) -> None:
        await checkpoint()
        await checkpoint()
        told.append(account.ending)

    await way.play(lambda content, **options: EventSourceResponse(content, on_close=returned, **options))
    assert told == [way.ending]


@pytest.mark.parametrize("wrong", [Broken("hook"), None], ids=["raises", "does not return"])
async def test_hook_that_fails_must_not_take_the_stream_with_it(
    wrong: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    """modelcontextprotocol/python-sdk#586: what on_close raises is logged; what it waits for has a deadline."""

    async def on_close(account: Account) -> None:
        if wrong is not None:
            raise wrong
        await anyio.sleep_forever()

    client = Client()
    response = EventSourceResponse(iter(["one"]), on_close=on_close, cleanup_timeout=0.02)
    assert await served(response, client) is None
    assert client.whole
    assert len(caplog.records) == 1


@pytest.mark.parametrize("way", [way for way in WAYS if way.raises is None], ids=lambda way: way.name)
async def test_response_freed_only_by_the_cycle_collector(way: Way) -> None:
    """sysid/sse-starlette#142: response, stream and content are free when the last reference goes, collector or not."""
    assert await left_by(way) == ([], 0)


# What a worker thread raised is held by a cycle of anyio's own: the future in which it came.
@pytest.mark.parametrize(
    "way",
    [way for way in WAYS if way.raises and way.name != "content_is_nothing_to_iterate"],
    ids=lambda way: way.name,
)
async def test_failed_response_freed_only_by_the_cycle_collector(way: Way) -> None:
    """sysid/sse-starlette#142: the same where it failed, although a traceback leads from the error to the stream."""
    if way.name == "close_handler_fails" and sys.version_info >= (3, 12):
        pytest.skip("a frame keeps its caller's there, so that the test's own frames hold the error they were given")
    assert await left_by(way) == ([], 0)


async def left_by(way: Way) -> tuple[list[Any], int]:
    """What is alive after this ending while the collector is off: responses and contents, and how many streams."""
    lives: list[weakref.ref[Any]] = []

    def make(content: Any, **options: Any) -> EventSourceResponse:
        response = EventSourceResponse(content, **options)
        lives.append(weakref.ref(response))
        if hasattr(content, "aclose"):
            lives.append(weakref.ref(content))
        return response

    gc.disable()
    gc.freeze()  # what was there before is not counted
    try:
        await way.play(make)
        await checkpoint()
        await checkpoint()
        streams = sum(isinstance(thing, Life) for thing in gc.get_objects())
        return [life() for life in lives if life() is not None], streams
    finally:
        gc.unfreeze()
        gc.enable()


async def test_four_tasks_beside_the_requests_own(anyio_backend_name: str) -> None:
    """PrefectHQ/fastmcp#4192: an idle stream has one child task, and a second where something is pushed.

    On trio a timer needs a task too.
    """
    for options, children in (({}, 1), ({"data_sender_callable": anyio.sleep_forever}, 2)):
        before = len(anyio.get_running_tasks())
        client = Client()
        async with running(EventSourceResponse(one_and_silence(), ping=0, **options), client):
            await client.offers(b"one")
            await quiet()
            assert len(anyio.get_running_tasks()) - before == 1 + children + (anyio_backend_name == "trio")
            client.leave()


@EACH
async def test_task_survives_the_last_stream(way: Way) -> None:
    """sysid/sse-starlette#152, homeassistant-ai/ha-mcp#2127: no task is left, neither the stream's nor a watcher."""
    before = {task.id for task in anyio.get_running_tasks()}
    await way.play(EventSourceResponse)
    assert {task.id for task in anyio.get_running_tasks()} == before


async def test_task_survives_a_thousand_streams() -> None:
    """sysid/sse-starlette#152: one watcher was started per request, and none of them ended."""
    before = len(anyio.get_running_tasks())
    for _ in range(1000):
        await EventSourceResponse(["one"])(Client().scope, anyio.sleep_forever, swallow)
    assert len(anyio.get_running_tasks()) == before


async def swallow(message: Any) -> None:
    pass


@pytest.mark.parametrize(("response", "raises"), [(OURS, Broken), (THEIRS, ExceptionGroup)])
async def test_exception_group_of_two_reaches_middleware(response: type[Any], raises: type[Exception]) -> None:
    """A generator and a data sender that both fail raise the first error, bare; the second is logged."""
    both = anyio.Event()

    async def content() -> AsyncIterator[str]:
        await both.wait()
        raise Broken("content")
        yield "never"

    async def sender() -> None:
        both.set()
        try:
            await anyio.sleep_forever()
        finally:
            raise Broken("sender")

    raised = await served(response(content(), data_sender_callable=sender), Client())
    assert type(raised) is raises


async def test_cleanup_without_a_deadline(caplog: pytest.LogCaptureFixture) -> None:
    """sysid/sse-starlette#217: a cleanup that does not come to an end is cut short, with one warning."""
    client = Client()

    async def content() -> AsyncIterator[str]:
        client.hold()
        try:
            yield "one"
        finally:
            await anyio.sleep_forever()

    async with running(EventSourceResponse(content(), cleanup_timeout=0.02), client) as run:
        await client.offers(b"one")
        client.leave()
    assert run.raised is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cleanup" in caplog.text


@pytest.mark.parametrize("where", ["await", "yield"])
async def test_two_ways_of_noticing_that_the_client_left_confuse(where: str) -> None:
    """sysid/sse-starlette#7, #28, #33, #39, #40, #76: a cancellation where it awaits, GeneratorExit at its yield.

    In both, `finally` runs before the response returns, and the close handler was told.
    """
    client, seen, told = Client(), [], []

    async def content() -> AsyncIterator[str]:
        if where == "yield":
            client.hold()
        try:
            yield "one"
            await anyio.sleep_forever()
        except (GeneratorExit, anyio.get_cancelled_exc_class()) as end:
            seen.append(type(end))
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await checkpoint()
            seen.append("cleaned up")

    async def closed(message: Any) -> None:
        told.append(message)

    async with running(EventSourceResponse(content(), client_close_handler_callable=closed), client) as run:
        await client.offers(b"one")
        await quiet()
        client.leave()
    expected = GeneratorExit if where == "yield" else anyio.get_cancelled_exc_class()
    assert (seen, told, run.raised) == ([expected, "cleaned up"], [{"type": "http.disconnect"}], None)
