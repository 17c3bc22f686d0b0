"""The application that the servers here serve. It says on standard output what becomes of its streams."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamgate.sse import AppStatus, EventSourceResponse, StreamGroup

group = StreamGroup()


def say(*words: object) -> None:
    """One write, so that the lines of several processes do not mix."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def told(name: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
    """The items, and a word on how the iteration ended."""
    try:
        async for item in items:
            yield item
    except BaseException as end:
        say(name, "ended by", type(end).__name__)
        raise
    else:
        say(name, "ended by itself")


async def endless(shutdown: anyio.Event | None, *, polite: bool) -> AsyncIterator[str]:
    """The worker's pid, then silence; a polite one says goodbye when the server shuts down."""
    yield str(os.getpid())
    if shutdown is not None and polite:
        await shutdown.wait()
        yield "goodbye"
        return
    await anyio.sleep_forever()


async def numbers(last: int) -> AsyncIterator[str]:
    for number in range(1, last + 1):
        yield str(number)


async def flood() -> AsyncIterator[str]:
    """More than any buffer takes."""
    while True:
        yield "x" * 65536


def closing(name: str) -> dict[str, Any]:
    async def gone(message: Message) -> None:
        say(name, "close callback", message["type"])

    return {"client_close_handler_callable": gone, "on_close": lambda account: say(name, "was", account.ending.value)}


async def stream(request: Request) -> Response:
    """An endless stream: `name`, `manner` (polite, deaf or none), `grace`, `farewell`, `ping`, `drain` as wished."""
    query = request.query_params
    name = query.get("name", "stream")
    shutdown = anyio.Event() if "manner" in query else None
    items = endless(shutdown, polite=query.get("manner") == "polite")
    return EventSourceResponse(
        told(name, items),
        ping=float(query.get("ping", 15)),
        shutdown_event=shutdown,
        shutdown_grace_period=float(query.get("grace", 0)),
        farewell=query.get("farewell"),
        drain=group if "drain" in query else None,
        **closing(name),
    )


async def count(request: Request) -> Response:
    query = request.query_params
    name = query.get("name", "count")
    items = numbers(int(query.get("to", 5)))
    return EventSourceResponse(told(name, items), **closing(name))


async def flooding(request: Request) -> Response:
    """A flood with `send_timeout=1`; for who must know, it says when that is over."""
    name = request.query_params.get("name", "flood")

    async def later() -> None:
        with anyio.move_on_after(1.5):
            await anyio.sleep_forever()
        say(name, "overdue")

    items = told(name, flood())
    return EventSourceResponse(items, send_timeout=1, data_sender_callable=later, **closing(name))


async def pid(request: Request) -> Response:
    return PlainTextResponse(str(os.getpid()))


async def drop(request: Request) -> Response:
    group.end()
    return PlainTextResponse("dropped")


def end_all_from_a_thread(*_: object) -> None:
    def end() -> None:
        AppStatus.should_exit = True

    threading.Thread(target=end).start()


def end_group_at_sigterm() -> None:
    """SIGTERM ends the group's streams, then does what it did before.

    `signal.signal`, because it may be called while asyncio's or the server's own reaction is installed and leaves both
    in force; a plain handler runs between any two instructions, hence `call_soon_threadsafe`.
    """
    loop = asyncio.get_running_loop()
    before: Any = signal.getsignal(signal.SIGTERM)

    def both(number: int, frame: object) -> None:
        loop.call_soon_threadsafe(group.end)
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, both)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """What an application does at its start, as the environment wishes."""
    match os.environ.get("DRAIN"):
        case "by hand":
            AppStatus.disable_automatic_graceful_drain()
            signal.signal(signal.SIGUSR1, end_all_from_a_thread)
        case "at sigterm":
            end_group_at_sigterm()
    yield
    if os.environ.get("DRAIN") == "in lifespan":
        group.end()
    say("lifespan ends")


app = Starlette(
    routes=[
        Route("/stream", stream),
        Route("/count", count),
        Route("/flood", flooding),
        Route("/pid", pid),
        Route("/drop", drop),
    ],
    lifespan=lifespan,
)


async def passes(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


class Wrapping:
    """Middleware that hides the server's own callables behind closures."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receiving() -> Message:
            return await receive()

        async def sending(message: Message) -> None:
            await send(message)

        await self.app(dict(scope), receiving, sending)


# The same routes below a prefix for each kind of middleware.
MIDDLEWARE = {
    "bare": app,
    "base": BaseHTTPMiddleware(app, dispatch=passes),
    "gzip": GZipMiddleware(app),
    "wrapping": Wrapping(app),
}
layered = Starlette(routes=[Mount(f"/{kind}", wrapped) for kind, wrapped in MIDDLEWARE.items()])
