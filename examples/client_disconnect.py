"""What happens when the client leaves, step by step, and where to clean up.

    python examples/client_disconnect.py
    curl -N http://127.0.0.1:8000/ticks/ann     # leave with Ctrl-C while the generator waits ...
    curl http://127.0.0.1:8000/visits/ann
    curl -N http://127.0.0.1:8000/flood/bob | sleep 3    # ... or without ever reading
    curl http://127.0.0.1:8000/visits/bob

A generator that waits for something is cancelled there. One that waits at its `yield`, because the client does not
read, is closed there: GeneratorExit. `finally` runs either way; `on_close` runs last, however the stream ended.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Message

from streamgate.sse import Account, EventSourceResponse

INTERVAL = float(os.environ.get("INTERVAL", "1"))  # seconds between two ticks
VISITS_KEPT = 100


class Visit:
    """What was seen of one stream, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.over = anyio.Event()

    async def hung_up(self, message: Message) -> None:
        """Only when it was the client who ended the stream."""
        self.seen.append(f"close callback: {message['type']}")

    def closed(self, account: Account) -> None:
        """Always, exactly once: the place to give back what was taken for the stream."""
        self.seen.append(f"on_close: {account.ending.value if account.ending else None}")
        self.over.set()


visits: dict[str, Visit] = {}


async def lines(visit: Visit, line: str, pace: float) -> AsyncIterator[str]:
    try:
        while True:
            yield line
            if pace > 0:
                await anyio.sleep(pace)
    except anyio.get_cancelled_exc_class():
        visit.seen.append("cancelled")
        raise  # always: whoever cancelled waits for it
    except GeneratorExit:
        visit.seen.append("closed at yield")
        raise
    finally:
        # In a cancelled task the next await would raise, too: what must be awaited here needs a shield, and a shield
        # needs a deadline.
        with anyio.move_on_after(1.0, shield=True):
            await anyio.lowlevel.checkpoint()  # stands for: await connection.close()
            visit.seen.append("cleaned up")


def stream(request: Request, line: str, pace: float) -> EventSourceResponse:
    if len(visits) >= VISITS_KEPT:
        del visits[next(iter(visits))]
    visit = visits[request.path_params["name"]] = Visit()
    return EventSourceResponse(
        lines(visit, line, pace), client_close_handler_callable=visit.hung_up, on_close=visit.closed
    )


async def ticks(request: Request) -> EventSourceResponse:
    return stream(request, "tick", INTERVAL)


async def flood(request: Request) -> EventSourceResponse:
    return stream(request, "x" * 65536, 0.0)


async def report(request: Request) -> JSONResponse:
    """What was seen of a stream; waits up to ten seconds for its end."""
    visit = visits.get(request.path_params["name"])
    if visit is None:
        return JSONResponse({"error": "no such visit"}, status_code=404)
    with anyio.move_on_after(10.0):
        await visit.over.wait()
    return JSONResponse({"over": visit.over.is_set(), "seen": visit.seen})


app = Starlette(
    routes=[
        Route("/ticks/{name}", ticks),
        Route("/flood/{name}", flood),
        Route("/visits/{name}", report),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
