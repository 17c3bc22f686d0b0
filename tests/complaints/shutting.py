"""A server that shuts down without ever having listened, and a stream to be ended by it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from complaints.client import Client, Running, running
from complaints.endings import one_and_silence
from starlette.types import Receive, Scope, Send

from streamgate.sse import EventSourceResponse

# Half a second between two looks was the complaint; a turn of the loop takes a while on a busy machine.
PROMPTLY = 0.4
ASYNCIO = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)


async def no_app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("nothing is asked over the network")


class Server(uvicorn.Server):
    """uvicorn with everything but sockets."""

    def __init__(self) -> None:
        super().__init__(uvicorn.Config(no_app, lifespan="off", log_level="critical"))
        self.servers = []
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)


@asynccontextmanager
async def streaming(**options: Any) -> AsyncIterator[tuple[Client, Running]]:
    """A stream that has sent one item and then waits; it must have ended when the block has."""
    client = Client()
    async with running(EventSourceResponse(one_and_silence(), **options), client) as run:
        await client.offers(b"one")
        yield client, run
