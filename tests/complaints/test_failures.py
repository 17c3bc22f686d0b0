"""What a client is told when something goes wrong after the stream began, or just before."""

# Each complaint, where it was made, and the tests that hold it.
# after the headers nothing but a cut is possible (sysid/sse-starlette#52)
#     error_cannot_become_a_status, error_cannot_be_told
# the first item is awaited before the headers, always or never
#     head_waits
# HEAD never ends (sysid/sse-starlette#218)
#     head_request_never_ends

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from complaints.client import Client, quiet, running, served
from complaints.endings import Broken, one_and_a_fault, one_and_silence, two
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from streamgate.sse import Ending, EventSourceResponse

pytestmark = pytest.mark.anyio


class UpstreamRefused(Exception):
    """An upstream's answer that is no stream."""

    status = 429


async def refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, UpstreamRefused)
    return JSONResponse({"error": str(error)}, status_code=error.status, headers={"retry-after": "7"})


def app(content: Any, **options: Any) -> Starlette:
    async def endpoint(request: Request) -> EventSourceResponse:
        return EventSourceResponse(content, **options)

    return Starlette(routes=[Route("/", endpoint)], exception_handlers={UpstreamRefused: refused})


async def turned_away(error: Exception) -> AsyncIterator[str]:
    await checkpoint()
    raise error
    yield "never"


@pytest.mark.parametrize(
    ("error", "status"), [(UpstreamRefused("slow down"), 429), (HTTPException(502), 502)], ids=["own", "HTTPException"]
)
async def test_error_cannot_become_a_status(error: Exception, status: int) -> None:
    """sysid/sse-starlette#52: with wait_for_first what the content raises before its first item is a status."""
    client = Client()
    assert await served(app(turned_away(error), wait_for_first=True), client) is None
    assert client.status == status
    assert client.whole
    if status == 429:
        assert client.headers[b"retry-after"] == b"7"
        assert client.body == b'{"error":"slow down"}'


async def test_error_cannot_become_a_status_after_the_first_item() -> None:
    """sysid/sse-starlette#52: after the first item it is what it was: a cut, and the bare error."""
    client = Client()
    raised = await served(EventSourceResponse(one_and_a_fault(), wait_for_first=True), client)
    assert isinstance(raised, Broken)
    assert (client.status, client.body, client.whole) == (200, b"data: one\r\n\r\n", False)


async def test_head_waits_for_the_first_item_only_on_demand() -> None:
    """The head goes out at once, so that proxies and browsers know; with wait_for_first it goes with the first item."""
    for wait in (False, True):
        client, first = Client(), anyio.Event()

        async def content(first: anyio.Event = first) -> AsyncIterator[str]:
            await first.wait()
            yield "one"

        async with running(EventSourceResponse(content(), wait_for_first=wait, ping=0.01), client):
            await quiet()
            assert client.started is not wait
            first.set()
        assert client.whole
        assert b"data: one" in client.body


async def test_head_waits_for_no_item_of_empty_content() -> None:
    """With wait_for_first, content without items still has a head and an end."""
    client = Client()
    assert await served(EventSourceResponse([], wait_for_first=True), client) is None
    assert (client.status, client.body, client.whole) == (200, b"", True)


async def test_error_cannot_be_told_in_the_stream() -> None:
    """sysid/sse-starlette#52: error_event makes the last event of what the content raised; the body is then whole."""
    client, told, after = Client(), [], []

    async def background() -> None:
        after.append(True)

    response = EventSourceResponse(
        one_and_a_fault(),
        error_event=lambda error: {"event": "error", "data": type(error).__name__},
        on_close=lambda account: told.append((account.ending, type(account.error))),
        background=BackgroundTask(background),
    )
    assert await served(response, client) is None
    assert client.body == b"data: one\r\n\r\nevent: error\r\ndata: Broken\r\n\r\n"
    assert client.whole
    assert told == [(Ending.CONTENT_ERROR, Broken)]
    assert after == [True]


@pytest.mark.parametrize("event", [lambda _: None, lambda _: 1 / 0], ids=["declines", "fails"])
async def test_error_cannot_be_told_by_an_error_event_that_makes_none(event: Any) -> None:
    """sysid/sse-starlette#52: None, or a failure of its own, leaves it at the cut and the content's own error."""
    client = Client()
    raised = await served(EventSourceResponse(one_and_a_fault(), error_event=event), client)
    assert isinstance(raised, Broken)
    assert not client.whole


async def test_error_cannot_be_told_to_a_client_that_does_not_read() -> None:
    """sysid/sse-starlette#52: an error event that is not taken is given up; then the error is raised."""
    client = Client()

    async def content() -> AsyncIterator[str]:
        yield "one"
        client.hold()
        raise Broken("content")

    raised = await served(EventSourceResponse(content(), error_event=str, send_timeout=0.02), client)
    assert isinstance(raised, Broken)
    assert not client.whole


@pytest.mark.parametrize("method", ["HEAD", "head"])
async def test_head_request_never_ends(method: str) -> None:
    """sysid/sse-starlette#218: HEAD gets the head of GET and an empty body; content and data sender are not begun."""
    client, begun = Client(method=method), []

    async def content() -> AsyncIterator[str]:
        begun.append("content")
        yield "one"

    async def sender() -> None:
        begun.append("sender")

    after = BackgroundTask(begun.append, "background")
    assert await served(EventSourceResponse(content(), data_sender_callable=sender, background=after), client) is None
    get = Client()
    await served(EventSourceResponse(two()), get)
    assert client.messages == [get.messages[0], get.messages[-1]]
    assert begun == ["background"]


async def test_head_request_never_ends_behind_a_route() -> None:
    """sysid/sse-starlette#218: Starlette gives every GET route a HEAD; so it must end under it."""
    client = Client(method="HEAD")
    assert await served(app(one_and_silence()), client) is None
    assert (client.status, client.body, client.whole) == (200, b"", True)
