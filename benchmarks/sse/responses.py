"""What is compared: four responses, the items that each takes, and each as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from itertools import repeat
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

Source = Callable[[], AsyncIterator[Any]]  # an endpoint's generator function

PLAIN: Final = "StreamingResponse"
BASE: Final = "sse-starlette"  # ratios are to this one
NATIVE: Final = "FastAPI"
OURS: Final = "streamgate"
KINDS: Final = (PLAIN, BASE, NATIVE, OURS)

TEXT: Final = "x" * 190
EVENT: Final = f"data: {TEXT}\r\n\r\n".encode()  # 200 bytes

# The forms of an item that not every response takes; and what is closest to such an item where the rows say `nearest`.
LACKING: Final = {PLAIN: {"dict", "fields", "event"}, NATIVE: {"bytes", "dict", "fields"}}
NEAREST: Final = {PLAIN: "bytes", NATIVE: "event"}


def form_for(kind: str, form: str, *, nearest: bool) -> str | None:
    """The form of item a response gets in a row about `form`; None where it has nothing of the sort."""
    if form not in LACKING.get(kind, ()):
        return form
    return NEAREST[kind] if nearest else None


def event_of(kind: str) -> Callable[[], Any]:
    """What makes an event object of the response's own class."""
    if kind == NATIVE:
        from fastapi.sse import ServerSentEvent as NativeEvent  # noqa: PLC0415 - a server loads only its own

        return lambda: NativeEvent(raw_data=TEXT)  # `data` would be JSON, which none of the others makes
    if kind == BASE:
        from sse_starlette import ServerSentEvent as BaseEvent  # noqa: PLC0415

        return lambda: BaseEvent(TEXT)
    from streamgate.sse import ServerSentEvent  # noqa: PLC0415

    return lambda: ServerSentEvent(TEXT)


def items(kind: str, form: str, count: int) -> Iterable[Any]:
    """`count` items. Dicts and objects are made for each event, as applications do; bytes and text are there."""
    if form == "bytes":
        return repeat(EVENT, count)
    if form == "str":
        return repeat(TEXT, count)
    if form == "dict":
        return ({"data": TEXT} for _ in range(count))
    if form == "fields":
        return ({"event": "delta", "id": "7", "data": TEXT} for _ in range(count))
    make = event_of(kind)
    return (make() for _ in range(count))


def response_class(kind: str) -> Callable[..., Response]:
    """The class of every kind but FastAPI's, whose events are made by its routing."""
    if kind == BASE:
        from sse_starlette import EventSourceResponse as BaseResponse  # noqa: PLC0415

        return BaseResponse
    if kind == OURS:
        from streamgate.sse import EventSourceResponse  # noqa: PLC0415

        return EventSourceResponse
    return lambda content: StreamingResponse(content, media_type="text/event-stream")


def bare(kind: str, source: Source, options: Mapping[str, Any]) -> ASGIApp:
    """The response without anything round it; FastAPI's with its routing, which it cannot do without."""
    if kind == NATIVE:
        return native({"/": source})
    make = response_class(kind)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await make(source(), **options)(scope, receive, send)

    return application


def routed(kind: str, sources: Mapping[str, tuple[Source, Mapping[str, Any]]], *more: Route) -> ASGIApp:
    """An application with a route for each source, as its users write one."""
    if kind == NATIVE:
        return native({path: source for path, (source, _) in sources.items()}, *more)
    make = response_class(kind)

    def route(path: str, source: Source, options: Mapping[str, Any]) -> Route:
        async def endpoint(request: Request) -> Response:
            return make(source(), **options)

        return Route(path, endpoint)

    return Starlette(routes=[*more, *(route(path, *served) for path, served in sources.items())])


def native(sources: Mapping[str, Source], *more: Route) -> ASGIApp:
    """FastAPI's own server-sent events: the endpoint is the generator."""
    from fastapi import FastAPI  # noqa: PLC0415
    from fastapi.sse import EventSourceResponse  # noqa: PLC0415

    application = FastAPI(openapi_url=None)
    application.router.routes.extend(more)
    for path, source in sources.items():
        application.get(path, response_class=EventSourceResponse)(source)
    return application
