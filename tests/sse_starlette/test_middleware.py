"""Under middleware and frameworks, beside sse-starlette's.

| rule | test |
| --- | --- |
| BaseHTTPMiddleware: items, disconnect, the content's error | test_items_under_middleware, test_client_leaves, test_content_raises |
| GZipMiddleware leaves event streams alone, the first item is not held back | test_items_under_middleware, test_first_item_is_not_held_back |
| FastAPI: background tasks, dependencies, response_class, HEAD | test_fastapi, test_fastapi_response_class, test_fastapi_head |
| Starlette: routes, mounted applications, HEAD of a GET route | test_starlette |
"""  # noqa: E501

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route

pytestmark = [pytest.mark.anyio, pytest.mark.leaves_tasks]  # sse-starlette's shutdown watcher outlives its stream

X = b"data: x\r\n\r\n"


class Tagging(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        response = await call_next(request)
        response.headers["x-tag"] = "1"
        return response


def told(peer: Any) -> Any:
    """What a client has of it: empty pieces are none on the wire. The scope is the framework's."""
    messages = [each for each in peer.messages if each.get("body") != b"" or not each["more_body"]]
    return messages, [entry for entry in peer.story if entry != b""]


def story_of(story):
    return [entry for entry in story if entry != b""]


def application(peer, content, *middleware, **options):
    async def endpoint(request):
        return peer.library.EventSourceResponse(content(), ping=0, **options)

    return Starlette(routes=[Route("/", endpoint)], middleware=[Middleware(each) for each in middleware])


async def items():
    yield "x"
    await checkpoint()
    yield {"data": "y", "event": "e"}


@pytest.mark.parametrize(
    "middleware", [(), (Tagging,), (Tagging, Tagging), (GZipMiddleware,), (GZipMiddleware, Tagging)]
)
async def test_items_under_middleware(both, middleware):
    """Head, items and end arrive as the response sent them; background runs."""

    async def scene(peer):
        await peer.call(application(peer, items, *middleware, background=peer.background()))

    story = story_of(await both(scene, told=told, headers=[(b"accept-encoding", b"gzip")]))
    assert story == ["start", X, b"event: e\r\ndata: y\r\n\r\n", "end", "background", "returned"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_starlette(both, method):
    """A route answers HEAD with the head of GET; in a mounted application too."""

    async def scene(peer):
        await peer.call(Starlette(routes=[Mount("/", app=application(peer, items))]))
        head = peer.messages[0]
        peer.note((head["status"], dict(head["headers"])[b"content-type"]))

    story = story_of(await both(scene, told=told, method=method))
    body = [X, b"event: e\r\ndata: y\r\n\r\n"] if method == "GET" else []
    assert story == ["start", *body, "end", "returned", (200, b"text/event-stream; charset=utf-8")]


@pytest.mark.parametrize("middleware", [(), (Tagging,), (GZipMiddleware,)])
async def test_first_item_is_not_held_back(both, middleware):
    """Head and first item are with the client before the content is asked for more."""

    async def scene(peer):
        async def content():
            yield "x"
            await peer.seen(X)
            yield "x"

        await peer.call(application(peer, content, *middleware))

    story = story_of(await both(scene, told=told, headers=[(b"accept-encoding", b"gzip")]))
    assert story == ["start", X, X, "end", "returned"]


@pytest.mark.parametrize("middleware", [(), (Tagging,), (GZipMiddleware,)])
async def test_client_leaves(both, middleware):
    """A disconnect gets through: the close handler is told, the content cancelled."""

    async def scene(peer):
        async def content():
            try:
                yield "x"
                peer.leave()
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                peer.note("content cancelled")
                raise

        async def closed(message):
            peer.note(f"close handler {message['type']}")

        await peer.call(application(peer, content, *middleware, client_close_handler_callable=closed))

    story = story_of(await both(scene, told=told))
    # BaseHTTPMiddleware ends the body of whatever it wraps.
    assert [each for each in story if each != "end"] == [
        *("start", X, "close handler http.disconnect", "content cancelled", "returned")
    ]


@pytest.mark.parametrize("middleware", [(), (Tagging,), (GZipMiddleware,)])
async def test_content_raises(both, middleware):
    """What the content raises reaches whatever is around, as it was."""

    async def scene(peer):
        async def content():
            yield "x"
            raise LookupError("boom")

        await peer.call(application(peer, content, *middleware))

    story = story_of(await both(scene, told=told))
    # BaseHTTPMiddleware ends the body of whatever it wraps.
    assert [each for each in story if each != "end"] == ["start", X, "raised LookupError: boom"]


async def test_fastapi(both):
    """As an endpoint's answer in FastAPI, with its background tasks, dependencies and status."""

    async def scene(peer):
        app = FastAPI()

        async def resource():
            peer.note("resource opened")
            yield "r"
            peer.note("resource closed")

        async def late(what):
            peer.note(what)

        async def endpoint(background: BackgroundTasks, found=Depends(resource)):  # noqa: B008
            background.add_task(late, "background task")
            return peer.library.EventSourceResponse(items(), ping=0, headers={"x-found": found})

        endpoint.__annotations__["background"] = BackgroundTasks
        app.get("/", status_code=202)(endpoint)
        await peer.call(app)
        peer.note(dict(peer.messages[0]["headers"])[b"x-found"])

    story = story_of(await both(scene, told=told))
    assert story[0] == "resource opened"
    assert story[1:4] == ["start", X, b"event: e\r\ndata: y\r\n\r\n"]
    assert set(story[4:]) == {"end", "background task", "resource closed", "returned", b"r"}


async def test_fastapi_response_class(both):
    """As a path's `response_class`, the endpoint returning the response itself."""

    async def scene(peer):
        app = FastAPI()

        @app.get("/", response_class=peer.library.EventSourceResponse)
        async def endpoint():
            return peer.library.EventSourceResponse(items(), 201, ping=0)

        await peer.call(app)

    assert story_of(await both(scene, told=told)) == ["start", X, b"event: e\r\ndata: y\r\n\r\n", "end", "returned"]


async def test_fastapi_head(both):
    """A HEAD route of FastAPI."""

    async def scene(peer):
        app = FastAPI()

        @app.head("/")
        async def endpoint():
            return peer.library.EventSourceResponse(items(), ping=0)

        await peer.call(app)

    assert story_of(await both(scene, told=told, method="HEAD")) == ["start", "end", "returned"]
