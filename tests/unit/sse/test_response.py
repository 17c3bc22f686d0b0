"""EventSourceResponse: what it is made of, and what it asks of content and outlet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import pytest
from anyio.lowlevel import checkpoint
from starlette.background import BackgroundTask

import streamgate.sse.response as module
from streamgate.sse import EventSourceResponse, Farewell, Lost, Outlet, OutletSettings
from streamgate.sse.asgi import AsgiOutlet
from streamgate.sse.response import Iterated, open_outlet

pytestmark = pytest.mark.anyio


class Slate:
    """An outlet that keeps what it is told."""

    def __init__(self) -> None:
        self.started = False
        self.lost: Lost | None = None
        self.pings = 0
        self.beats = True
        self.told: list[Any] = []
        self.source: Any = None
        self.callback: Any = None

    def start(self, status: int, headers: Any) -> None:
        self.started = True
        self.told.append(("start", status))

    def write(self, frame: bytes, now: float) -> None:
        self.told.append(frame)

    def attach(self, source: Any) -> None:
        self.source = source

    def on_lost(self, callback: Any) -> None:
        self.callback = callback
        if callback is not None and self.lost is not None:
            callback(self.lost)

    async def finish(self, farewell: bytes | None, *, whole: bool) -> None:
        self.told.append(("finish", farewell, whole))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.told.append("left")


def scope(slate: Slate, method: str = "GET") -> dict[str, Any]:
    class Edge:
        def outlet(self, settings: OutletSettings) -> Slate:
            slate.told.append(settings)
            return slate

    return {"type": "http", "method": method, "extensions": {"streamgate.edge": Edge()}}


async def nothing(*_: Any) -> Any:
    raise AssertionError("neither receive nor send is used beside the edge's outlet")


def iterated(items: Any) -> Iterated:
    return Iterated(items, 200, (), "\n")


async def test_the_servers_own_outlet_is_used_where_there_is_one() -> None:
    """Else one over plain ASGI; for HEAD that one keeps bodies to itself."""
    slate = Slate()
    assert open_outlet(scope(slate), nothing, nothing, OutletSettings()) is slate
    for bare in ({"method": "GET"}, {"method": "HEAD", "extensions": {}}):
        outlet = open_outlet(bare, nothing, nothing, OutletSettings(heartbeat=0, send=0))
        assert isinstance(outlet, AsgiOutlet)
        assert outlet._head_only is (bare["method"] == "HEAD")
        outlet.close()


async def test_the_order_of_a_response() -> None:
    """Settings, head, items, end, leave, and only then the background task."""
    slate = Slate()

    async def background() -> None:
        slate.told.append("background")

    response = EventSourceResponse(["a"], 202, sep="\n", background=BackgroundTask(background))
    await response(scope(slate), nothing, nothing)
    settings, *rest = slate.told
    assert settings == OutletSettings(heartbeat=15.0, send=0.0)
    assert rest == [("start", 202), b"data: a\n\n", ("finish", None, True), "left", "background"]


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ({}, OutletSettings(heartbeat=15.0, send=0.0)),
        ({"ping": 0}, OutletSettings(heartbeat=0, send=0.0)),
        ({"ping": 2.5, "send_timeout": 7}, OutletSettings(heartbeat=2.5, send=7)),
        ({"settings": OutletSettings(heartbeat=1)}, OutletSettings(heartbeat=1)),
        ({"settings": OutletSettings(heartbeat=1), "ping": 9}, OutletSettings(heartbeat=1)),
    ],
)
async def test_settings(arguments: dict[str, Any], settings: OutletSettings) -> None:
    """As sse-starlette's arguments say, or given whole."""
    assert EventSourceResponse([], **arguments).settings == settings


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (None, {}),
        ({"X-Name": "1"}, {b"x-name": b"1"}),
        ({"Cache-Control": "no-transform", "X-Accel-Buffering": "yes"}, {b"cache-control": b"no-transform"}),
    ],
)
async def test_headers(headers: dict[str, str] | None, expected: dict[bytes, bytes]) -> None:
    """Kept from caches and proxies unless the caller says otherwise, in whatever case, and each once."""
    raw = EventSourceResponse([], headers=headers).raw_headers
    names = [name for name, _ in raw]
    assert len(names) == len(set(names))
    assert dict(raw).items() >= expected.items()
    assert dict(raw)[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert b"content-length" not in names


async def test_another_media_type() -> None:
    """The caller's word for it stands."""
    response = EventSourceResponse([], media_type="application/x-ndjson")
    assert dict(response.raw_headers)[b"content-type"] == b"application/x-ndjson"


async def test_a_feed_is_awaited_and_its_farewell_said() -> None:
    """What `into` returns is what `finish` gets."""

    class Content:
        async def into(self, outlet: Outlet) -> Farewell:
            outlet.start(200, ())
            return Farewell(b"bye", whole=False)

    slate = Slate()
    await EventSourceResponse(Content())(scope(slate), nothing, nothing)
    assert slate.told[1:] == [("start", 200), ("finish", b"bye", False), "left"]


async def test_the_background_task_does_not_follow_an_error() -> None:
    """The content's error is the response's; the outlet is left all the same."""

    async def fails() -> AsyncIterator[str]:
        yield "a"
        raise KeyError

    slate = Slate()
    with pytest.raises(KeyError):
        await EventSourceResponse(fails(), background=BackgroundTask(nothing))(scope(slate), nothing, nothing)
    assert slate.told[-1] == "left"
    assert not any(each[0] == "finish" for each in slate.told if isinstance(each, tuple))


async def test_the_next_item_is_asked_for_when_the_last_was_taken() -> None:
    """Paused inside a write, the content waits; resumed, it goes on."""
    slate, asked = Slate(), 0

    async def items() -> AsyncIterator[str]:
        nonlocal asked
        while asked < 3:
            asked += 1
            yield "x"

    content = iterated(items())
    write = slate.write

    def pausing(frame: bytes, now: float) -> None:
        write(frame, now)
        slate.source.pause()
        slate.source.pause()

    slate.write = pausing  # type: ignore[method-assign]
    running = asyncio.get_running_loop().create_task(content.into(slate))
    for count in (1, 2, 3):
        for _ in range(5):
            await checkpoint()
        assert asked == count and not running.done()
        slate.source.resume()
        slate.source.resume()
    assert await running == Farewell()


async def test_a_client_that_is_lost_already_is_asked_for_nothing() -> None:
    """The content is closed without having begun."""
    slate = Slate()
    slate.lost = Lost.CLOSED

    async def items() -> AsyncIterator[str]:
        pytest.fail("asked")
        yield ""

    assert await iterated(items()).into(slate) == Farewell(whole=False)
    assert slate.callback is None


async def test_an_iterator_that_is_no_generator_needs_no_close() -> None:
    """Anything with `__anext__` will do, and so does anything with `__next__`."""

    class Counted:
        def __init__(self) -> None:
            self.left = 2

        def __aiter__(self) -> Counted:
            return self

        async def __anext__(self) -> str:
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return "x"

    slate = Slate()
    assert await iterated(Counted()).into(slate) == Farewell()
    assert await iterated(iter("ab")).into(slate) == Farewell()
    assert slate.told == [("start", 200), *[b"data: x\n\n"] * 2, ("start", 200), b"data: a\n\n", b"data: b\n\n"]


async def test_a_cleanup_may_wait_although_the_task_is_cancelled() -> None:
    """The generator's `finally` is shielded, and the cancellation goes on after it."""
    slate, waiting, cleaned = Slate(), asyncio.Event(), asyncio.Event()

    async def items() -> AsyncIterator[str]:
        try:
            yield "x"
        finally:
            waiting.set()
            for _ in range(5):
                await checkpoint()
            cleaned.set()

    content = iterated(items())
    slate.write = lambda *_: content.pause()  # type: ignore[method-assign,assignment]
    running = asyncio.get_running_loop().create_task(content.into(slate))
    for _ in range(5):
        await checkpoint()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert waiting.is_set() and cleaned.is_set()


async def test_a_cleanup_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `finally` that never ends is given up, and the response ends."""
    monkeypatch.setattr(module, "CLEANUP", 0.02)
    slate = Slate()
    entered = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        try:
            yield "x"
        finally:
            entered.set()
            await asyncio.get_running_loop().create_future()

    content = iterated(items())

    def leaving(frame: bytes, now: float) -> None:
        content.pause()
        slate.callback(Lost.CLOSED)

    slate.write = leaving  # type: ignore[method-assign]
    farewell = await asyncio.wait_for(content.into(slate), 5)
    assert entered.is_set()
    assert farewell == Farewell(whole=False)
