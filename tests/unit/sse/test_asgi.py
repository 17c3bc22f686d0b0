"""The outlet for any ASGI server: what it says to a server that behaves in ways that ours do not."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from streamgate.sse.asgi import AsgiOutlet, _joined
from streamgate.sse.outlet import HIGH_WATER, Lost, OutletSettings

pytestmark = pytest.mark.anyio

HEADERS = [(b"content-type", b"text/event-stream")]
START = {"type": "http.response.start", "status": 200, "headers": HEADERS}
QUIET = OutletSettings(heartbeat=0, send=0)


def body(content: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


class Server:
    """The two callables of a server: `send` waits while it is shut, `receive` until the client leaves."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.messages: list[Any] = []
        self.open = asyncio.Event()
        self.open.set()
        self.left = asyncio.Event()
        self.failure = failure
        self.waiting = asyncio.Event()

    async def send(self, message: Any) -> None:
        self.waiting.set()
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        self.messages.append(message)

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    def outlet(self, settings: OutletSettings = QUIET, *, head_only: bool = False) -> AsgiOutlet:
        return AsgiOutlet(settings, self.receive, self.send, head_only=head_only)


class Seen(AsgiOutlet):
    """One that can be referred to weakly."""


class Source:
    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await checkpoint()


async def test_the_messages_of_a_response() -> None:
    """Head, one message for what was written in one turn, and the end: nothing else, and in this order."""
    server = Server()
    async with server.outlet() as outlet:
        outlet.start(200, HEADERS)
        outlet.write(b"1", 0.0)
        outlet.write(b"2", 0.0)
        await turns()
        outlet.write(b"3", 0.0)
        await outlet.finish(b"4", whole=True)
    assert server.messages == [START, body(b"12"), body(b"34", more=False)]


async def test_an_end_that_is_not_whole_is_no_message() -> None:
    """The last words are sent, and the server is left to notice that the end is missing."""
    server = Server()
    async with server.outlet() as outlet:
        outlet.start(200, HEADERS)
        await outlet.finish(b"bye", whole=False)
    assert server.messages == [START, body(b"bye")]


async def test_head_only() -> None:
    """For HEAD nothing that is written becomes a message but the head and an empty end."""
    server = Server()
    async with server.outlet(head_only=True) as outlet:
        outlet.start(200, HEADERS)
        outlet.write(b"1", 0.0)
        await outlet.finish(b"bye", whole=True)
    assert server.messages == [START, body(b"", more=False)]


async def test_before_the_head_and_after_the_end_nothing_is_written() -> None:
    """A frame without a head, a finish without a head, a frame after the end and a second end are no messages."""
    server = Server()
    async with server.outlet() as outlet:
        outlet.write(b"early", 0.0)
        await outlet.finish(b"early", whole=True)
        outlet.start(200, HEADERS)
        outlet.start(500, HEADERS)
        await outlet.finish(b"bye", whole=True)
        outlet.write(b"late", 0.0)
        await outlet.finish(b"later", whole=True)
        await turns()
    assert server.messages == [START, body(b"bye", more=False)]


async def test_the_source_is_paused_above_the_high_water() -> None:
    """And resumed when the server took what was kept; what is kept then is at most the high water and one frame."""
    server, source = Server(), Source()
    async with server.outlet() as outlet:
        outlet.start(200, HEADERS)
        outlet.attach(source)
        await turns()
        server.open.clear()
        frame, written = b"x" * 1000, 0
        while not source.told:
            outlet.write(frame, 0.0)
            written += len(frame)
            await checkpoint()
        kept = sum(len(message["body"]) for message in outlet._messages)
        assert HIGH_WATER < kept <= HIGH_WATER + len(frame)
        assert outlet.blocked_at
        server.open.set()
        await turns()
        assert source.told == ["pause", "resume"] and not outlet.blocked_at
        await outlet.finish(None, whole=True)
    assert sum(len(message.get("body", b"")) for message in server.messages) == written


async def test_a_server_that_says_the_client_left() -> None:
    """An OSError of `send`, which ASGI 2.4 allows, is a closed client and no error of the response."""
    server, lost = Server(ConnectionResetError()), []
    async with server.outlet() as outlet:
        outlet.on_lost(lost.append)
        outlet.start(200, HEADERS)
        await turns()
        assert lost == [Lost.CLOSED]
        await outlet.finish(b"bye", whole=True)


async def test_a_server_that_refuses_a_message() -> None:
    """The content learns that nobody listens any more, and the server's own words come out at the end."""
    server, lost = Server(RuntimeError("longer than Content-Length")), []
    with pytest.raises(RuntimeError, match="Content-Length"):
        async with server.outlet() as outlet:
            outlet.on_lost(lost.append)
            outlet.start(200, HEADERS)
            await turns()
            assert lost == [Lost.CLOSED]
            await outlet.finish(b"bye", whole=True)


async def test_the_contents_error_comes_before_the_servers() -> None:
    """What went wrong first is what is raised."""
    server = Server(RuntimeError("server"))
    with pytest.raises(KeyError):
        async with server.outlet() as outlet:
            outlet.start(200, HEADERS)
            await turns()
            raise KeyError


async def test_the_disconnect_is_heard_while_sending_waits() -> None:
    """A client that leaves ends `finish`, although the server's `send` says nothing."""
    server, lost = Server(), []
    async with server.outlet() as outlet:
        outlet.on_lost(lost.append)
        server.open.clear()
        outlet.start(200, HEADERS)
        finishing = asyncio.get_running_loop().create_task(outlet.finish(b"bye", whole=True))
        await server.waiting.wait()
        assert not finishing.done()
        server.left.set()
        await asyncio.wait_for(finishing, 5)
        assert lost == [Lost.CLOSED]


async def test_a_disconnect_after_the_end_is_no_loss() -> None:
    """Servers say http.disconnect when the response is complete, too."""
    server, lost = Server(), []
    async with server.outlet() as outlet:
        outlet.on_lost(lost.append)
        outlet.start(200, HEADERS)
        await outlet.finish(None, whole=True)
        server.left.set()
        await turns()
        assert lost == [] and outlet.lost is None


async def test_the_send_clock_watches_a_single_send() -> None:
    """One message that does not go out is enough, far below the high water; what is kept is dropped with it."""
    server, lost = Server(), asyncio.Event()
    settings = OutletSettings(heartbeat=0, send=0.1)
    async with server.outlet(settings) as outlet:
        outlet.on_lost(lambda _: lost.set())
        server.open.clear()
        outlet.start(200, HEADERS)
        began = asyncio.get_running_loop().time()
        outlet.write(b"x", 0.0)
        await asyncio.wait_for(lost.wait(), 5)
        assert asyncio.get_running_loop().time() - began < 1.0
        assert outlet.lost is Lost.SLOW and outlet._messages == []
        outlet.write(b"nobody", 0.0)
        assert outlet._messages == []
        await outlet.finish(b"bye", whole=True)


async def test_the_send_clock_needs_no_timer_per_send() -> None:
    """While messages go out it looks once an eighth of the clock, at most once a second; turned off, never."""
    server = Server()
    for send, longest in ((0.8, 0.1), (30.0, 1.0)):
        async with server.outlet(OutletSettings(heartbeat=0, send=send)) as outlet:
            outlet.start(200, HEADERS)
            assert outlet._due() - asyncio.get_running_loop().time() <= longest + 0.05
            outlet._sending_at = 5.0
            assert outlet._due() == 5.0 + send
            outlet._sending_at = 0.0
    async with server.outlet(QUIET) as outlet:
        assert outlet._due() == float("inf")


async def test_leaving_ends_both_tasks_and_keeps_nothing() -> None:
    """Whatever state they are in; the outlet dies with its last reference."""
    server = Server()
    server.open.clear()
    async with Seen(OutletSettings(heartbeat=5, send=5), server.receive, server.send) as outlet:
        outlet.start(200, HEADERS)
        await server.waiting.wait()
        tasks = list(outlet._tasks)
    assert all(task.done() for task in tasks)
    gone = weakref.ref(outlet)
    del outlet, tasks
    await turns()
    gc.collect()
    assert gone() is None


async def test_an_outlet_that_is_aborted_before_it_was_entered() -> None:
    """There is no task to let go yet."""
    outlet = Server().outlet()
    outlet.abort()
    outlet.close()


@pytest.mark.parametrize(
    ("messages", "joined"),
    [
        ([], []),
        ([START], [START]),
        ([body(b"a")], [body(b"a")]),
        ([START, body(b"a")], [START, body(b"a")]),
        ([START, body(b"a"), body(b"b")], [START, body(b"ab")]),
        ([body(b"a"), body(b"b"), body(b"", more=False)], [body(b"ab", more=False)]),
        ([START, body(b"", more=False)], [START, body(b"", more=False)]),
        ([body(memoryview(b"a")), body(b"b"), body(memoryview(b"c"))], [body(b"abc")]),  # type: ignore[arg-type]
    ],
)
def test_bodies_that_waited_together_leave_together(messages: list[Any], joined: list[Any]) -> None:
    """In order, as one message that is the last if the last of them was; whatever kind of bytes they are."""
    assert _joined(messages) == joined
