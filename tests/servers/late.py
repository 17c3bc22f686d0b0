"""An application that learns of server-sent events only when the first request asks for them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route


def create() -> Starlette:
    return Starlette(routes=[Route("/stream", stream)])


async def endless() -> AsyncIterator[str]:
    yield "one"
    await anyio.sleep_forever()


async def stream(request: Request) -> Any:
    assert not any(name.startswith("streamgate") for name in sys.modules)
    from streamgate.sse import EventSourceResponse

    return EventSourceResponse(endless())
