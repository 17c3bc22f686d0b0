"""One producer, many subscribers: each event is encoded once, and nobody who is slow holds up the rest.

python examples/broadcast.py
curl -N http://127.0.0.1:8000/prices                            # as often as you like
curl -N -H 'Last-Event-ID: 3' http://127.0.0.1:8000/prices      # what came after 3 first, then what is new
curl http://127.0.0.1:8000/subscribers
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sys
from collections.abc import AsyncIterator

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from streamgate.sse import Broadcast, EventSourceResponse, JSONServerSentEvent, Slow, last_event_id

INTERVAL = float(os.environ.get("INTERVAL", "1"))  # seconds between two prices

# A subscriber that lets 64 prices wait is disconnected; it comes back with Last-Event-ID and finds what it missed among
# the last 1000. Where only the newest counts, use Slow.DROP_OLDEST with a short queue.
broadcast = Broadcast(queue=64, slow=Slow.DISCONNECT, history=1000)


async def produce() -> None:
    for number in itertools.count(1):
        price = round(100 + math.sin(number / 10), 2)
        broadcast.publish(JSONServerSentEvent({"price": price}, event="price", id=number))
        await anyio.sleep(INTERVAL)


@contextlib.asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """The producer lives as long as the application, whoever listens."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(produce)
        yield
        broadcast.close()
        tasks.cancel_scope.cancel()


async def prices(request: Request) -> EventSourceResponse:
    return EventSourceResponse(broadcast.subscribe(last_event_id(request)))


async def subscribers(_: Request) -> JSONResponse:
    return JSONResponse({"subscribers": len(broadcast), "disconnected": broadcast.disconnected})


app = Starlette(routes=[Route("/prices", prices), Route("/subscribers", subscribers)], lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
