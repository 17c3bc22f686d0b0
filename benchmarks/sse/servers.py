"""One response under uvicorn, as it is deployed: uvloop, httptools, one worker, no access log.

    python benchmarks/sse/servers.py KIND PORT

`/tasks` tells how many tasks the loop has. Streams are endless: the client looks at a window of them and goes away.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from responses import BASE, OURS, Source, form_for, items, routed
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

STREAMS = (1, 200)  # that go flat out together
PACE = 0.02  # s between events: 50 a second
SHORT = 5  # events of a short response
# Items between two turns of the loop. Content that never waits would keep the loop for itself in sse-starlette and
# StreamingResponse: for ever, if its client is gone. A turn costs about 2 us, so each event 0.02 us, the same for all.
TURN = 128


def flat(kind: str, form: str, streams: int) -> Source:
    """As fast as the client takes them, once all streams are open: a server in full flow hardly accepts another."""
    all_open = asyncio.Barrier(streams)

    async def source() -> AsyncIterator[Any]:
        for item in items(kind, form, 1):
            yield item
        await all_open.wait()
        while True:
            for item in items(kind, form, TURN):
                yield item
            await asyncio.sleep(0)

    return source


def paced(kind: str, form: str) -> Source:
    """One each 20 ms, by the clock."""

    async def source() -> AsyncIterator[Any]:
        due = time.monotonic()
        while True:
            for item in items(kind, form, TURN):
                yield item
                due += PACE
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    return source


def short(kind: str, form: str) -> Source:
    async def source() -> AsyncIterator[Any]:
        for item in items(kind, form, SHORT):
            yield item

    return source


def idle(kind: str, form: str) -> Source:
    """One event, then silence."""

    async def source() -> AsyncIterator[Any]:
        for item in items(kind, form, 1):
            yield item
        await asyncio.get_running_loop().create_future()

    return source


async def tasks(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(asyncio.all_tasks())))


def application(kind: str) -> Any:
    near = form_for(kind, "dict", nearest=True) or ""
    sources: dict[str, tuple[Source, dict[str, Any]]] = {
        **{f"/flat/{streams}/dict": (flat(kind, near, streams), {}) for streams in STREAMS},
        "/paced": (paced(kind, near), {}),
        "/short": (short(kind, near), {}),
        "/idle": (idle(kind, near), {}),
    }
    if form_for(kind, "bytes", nearest=False):
        sources |= {f"/flat/{streams}/bytes": (flat(kind, "bytes", streams), {}) for streams in STREAMS}
    if kind in {BASE, OURS}:
        sources["/pinged"] = (idle(kind, near), {"ping": 1})
    return routed(kind, sources, Route("/tasks", tasks))


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), loop="uvloop", http="httptools",
        access_log=False, log_level="warning", backlog=4096,
    )  # fmt: skip
