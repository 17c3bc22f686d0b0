"""EventSourceResponse: what it is made of, and what it asks of content and outlet."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import pytest
from starlette.background import BackgroundTask

from streamgate.sse import EventSourceResponse, Farewell, Lost, Outlet, OutletSettings
from streamgate.sse.asgi import AsgiOutlet
from streamgate.sse.response import open_outlet

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


async def test_the_servers_own_outlet_is_used_where_there_is_one() -> None:
    """Else one over plain ASGI; for HEAD that one keeps bodies to itself."""
    slate = Slate()
    assert open_outlet(scope(slate), nothing, nothing, OutletSettings()) is slate
    for bare in ({"method": "GET"}, {"method": "HEAD", "extensions": {}}):
        outlet = open_outlet(bare, nothing, nothing, OutletSettings(heartbeat=0, send=0))
        assert isinstance(outlet, AsgiOutlet)
        assert outlet._head_only is (bare["method"] == "HEAD")
        outlet.close()


class Talk:
    """A feed that says one thing."""

    async def into(self, outlet: Outlet) -> Farewell:
        outlet.start(202, ())
        outlet.write(b"data: a\n\n", 0.0)
        return Farewell(b"bye", whole=False)


async def test_the_order_of_a_feeds_response() -> None:
    """Settings, head, frames, what `into` returned, leave, and only then the background task."""
    slate = Slate()

    async def background() -> None:
        slate.told.append("background")

    response = EventSourceResponse(Talk(), background=BackgroundTask(background))
    await response(scope(slate), nothing, nothing)
    settings, *rest = slate.told
    assert settings == OutletSettings(heartbeat=15.0, send=0.0)
    assert rest == [("start", 202), b"data: a\n\n", ("finish", b"bye", False), "left", "background"]


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
async def test_settings_of_a_feed(arguments: dict[str, Any], settings: OutletSettings) -> None:
    """As sse-starlette's arguments say, or given whole."""
    assert EventSourceResponse(Talk(), **arguments).settings == settings


async def test_settings_are_for_feeds() -> None:
    """Content that is iterated has parameters for all of it, and two places to say a thing are one too many."""
    with pytest.raises(TypeError, match="Feed"):
        EventSourceResponse([], settings=OutletSettings())


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (None, {}),
        ({"X-Name": "1"}, {b"x-name": b"1"}),
        ({"Cache-Control": "no-transform", "X-Accel-Buffering": "yes"}, {b"cache-control": b"no-transform"}),
    ],
)
async def test_headers(headers: dict[str, str] | None, expected: dict[bytes, bytes]) -> None:
    """Kept from caches unless the caller says otherwise, from proxies' buffers in any case, and each once."""
    raw = EventSourceResponse([], headers=headers).raw_headers
    names = [name for name, _ in raw]
    assert len(names) == len(set(names))
    assert dict(raw).items() >= expected.items()
    assert dict(raw)[b"x-accel-buffering"] == b"no"
    assert dict(raw)[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert b"content-length" not in names


async def test_the_caller_may_set_the_media_type() -> None:
    """By parameter, or once for all in a subclass."""

    class Lines(EventSourceResponse):
        media_type = "application/x-ndjson"

    given = EventSourceResponse([], media_type="application/x-ndjson").raw_headers
    for raw in (given, Lines([], media_type=None).raw_headers):
        assert dict(raw)[b"content-type"] == b"application/x-ndjson"


async def test_responses_share_no_headers() -> None:
    """A cookie set on one is not the next one's."""
    first, second = EventSourceResponse([]), EventSourceResponse([])
    first.set_cookie("a", "b")
    assert "set-cookie" in first.headers and "set-cookie" not in second.headers


@pytest.mark.parametrize(
    "wrong",
    [
        {"sep": ""},
        {"sep": "x"},
        {"shutdown_grace_period": -1},
        {"cleanup_timeout": -0.1},
        {"ping": -1},
        {"ping_mode": "x"},
    ],
)
async def test_what_is_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    """At once, where it was written."""
    with pytest.raises(ValueError, match=r"must be"):
        EventSourceResponse([], **wrong)


async def test_a_ping_interval_is_a_number() -> None:
    """Also when it is set later."""
    response = EventSourceResponse([])
    assert response.ping_interval == 15
    with pytest.raises(TypeError):
        response.ping_interval = "1"  # type: ignore[assignment]
    with pytest.raises(NotImplementedError):
        response.enable_compression()
