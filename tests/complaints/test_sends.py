"""The final message, the deadline of a send, and what becomes of a dead peer."""

# Each complaint, where it was made, and the tests that hold it.
# an ordinary message from receive cuts the final send (modelcontextprotocol/python-sdk#3494)
#     final_send_is_cut_short
# send_timeout does not cover the final message
#     send_timeout_does_not_cover
# a dead peer keeps socket and buffers (aiohttp-sse's TCP_USER_TIMEOUT)
#     dead_peer_keeps_its_socket

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
import sse_starlette
from complaints.client import Client, quiet, running, served
from complaints.endings import two
from starlette.types import Message, Receive, Scope, Send

from streamgate.sse import EventSourceResponse, SendTimeoutError

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unwatched")]

OURS, THEIRS = EventSourceResponse, sse_starlette.EventSourceResponse


class Talkative(Client):
    """Its `receive` answers with another piece of the body whenever a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.piece = anyio.Event()

    async def receive(self) -> Message:
        if self.receives:
            await self.piece.wait()
            self.piece = anyio.Event()
        self.receives += 1
        return {"type": "http.request", "body": b"x", "more_body": True}


@pytest.mark.parametrize(("response", "whole"), [(OURS, True), (THEIRS, False)])
async def test_final_send_is_cut_short_by_an_ordinary_message(response: type[Any], whole: bool) -> None:
    """modelcontextprotocol/python-sdk#3494: only a disconnect ends a stream, also while its end is being sent."""
    client = Talkative()

    async def content() -> AsyncIterator[str]:
        yield "one"
        client.hold()

    async with running(response(content()), client):
        await client.offers_the_end()
        await quiet()
        client.piece.set()
        await quiet()
        client.read()
    assert client.whole is whole


@pytest.mark.parametrize(("response", "raises"), [(OURS, True), (THEIRS, False)])
async def test_send_timeout_does_not_cover_the_final_message(response: type[Any], raises: bool) -> None:
    """The end of the body has the same deadline as any other send."""
    client = Client()

    async def content() -> AsyncIterator[str]:
        yield "one"
        client.hold()

    async with running(response(content(), send_timeout=0.02), client) as run:
        await client.offers_the_end()
        with anyio.move_on_after(1.0 if raises else 0.1):
            await run.over()
        assert isinstance(run.raised, SendTimeoutError) is raises
        client.read()


class Transport:
    def __init__(self) -> None:
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1

    def is_closing(self) -> bool:
        return self.aborted > 0

    def get_extra_info(self, name: str) -> None:
        return None


class Cycle(Client):
    """A client as uvicorn has it: `send` belongs to an object that also has the transport."""

    def __init__(self, **scope: Any) -> None:
        super().__init__(**scope)
        self.transport = Transport()
        self.disconnected = False


@pytest.mark.parametrize(("version", "aborted"), [("1.1", 1), ("2", 0)])
async def test_dead_peer_keeps_its_socket_and_buffers(version: str, aborted: int) -> None:
    """A send that takes too long drops the connection and what is buffered for it; HTTP/2 has others on it."""
    client = Cycle(http_version=version)

    async def content() -> AsyncIterator[str]:
        client.hold()
        yield "one"

    raised = await served(EventSourceResponse(content(), send_timeout=0.02), client)
    assert isinstance(raised, SendTimeoutError)
    assert client.transport.aborted == aborted


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})])
async def test_dead_peer_keeps_its_socket_behind_middleware() -> None:
    """The same where middleware stands between the response and the server, whose task it is found by."""

    async def content() -> AsyncIterator[str]:
        client.hold()
        yield "one"

    class Server:
        """uvicorn's object for a request: the loop runs its `run_asgi`."""

        def __init__(self, scope: Scope) -> None:
            self.scope, self.transport = scope, Transport()

        async def run_asgi(self) -> BaseException | None:
            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                await EventSourceResponse(content(), send_timeout=0.02)(dict(scope), wrapped(receive), wrapped(send))

            return await served(app, client)

    client = Client(headers=[(b"host", b"test")])
    server = Server(client.scope)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run_asgi())
    assert isinstance(task.result(), SendTimeoutError)
    assert server.transport.aborted == 1


def wrapped(call: Any) -> Any:
    async def passing_on(*arguments: Any) -> Any:
        return await call(*arguments)

    return passing_on


async def test_final_send_is_cut_short_by_nothing() -> None:
    """The final message is the last, is empty, and is sent once."""
    client = Client()
    await served(EventSourceResponse(two(), ping=0.001), client)
    assert [sent.get("more_body") for sent in client.messages[-3:]] == [True, True, False]
    assert client.messages[-1]["body"] == b""
