"""At most so many streams per process, and so many per client; the others are told when to come back.

    LIMIT=3 LIMIT_PER_CLIENT=2 python examples/connection_limit.py
    curl -N http://127.0.0.1:8000/numbers &      # twice
    curl -i http://127.0.0.1:8000/numbers        # 429: too many of yours; 503: too many of all

A stream holds a connection, memory and often more for hours, so a limit on requests per second does not bound it.
`on_close` gives the place back: it is called once whatever ended the stream, which a background task is not.

A browser's EventSource gives up at a status other than 200; a page that is to try again makes a new one. Behind a proxy
let uvicorn read the client's address (--proxy-headers, --forwarded-allow-ips), or all clients are one.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from streamgate.sse import EventSourceResponse

INTERVAL = float(os.environ.get("INTERVAL", "1"))  # seconds between two numbers


class Places:
    """Who is in. Taken and given back on the loop's thread, without an await in between: no lock is needed."""

    def __init__(self, limit: int, limit_per_client: int) -> None:
        self.limit = limit
        self.limit_per_client = limit_per_client
        self.taken: Counter[str] = Counter()

    def take(self, client: str) -> None:
        if self.taken[client] >= self.limit_per_client:
            raise HTTPException(429, "too many streams from your address", {"retry-after": "5"})
        if self.taken.total() >= self.limit:
            raise HTTPException(503, "too many streams", {"retry-after": "5"})
        self.taken[client] += 1

    def give_back(self, client: str) -> None:
        self.taken[client] -= 1
        if not self.taken[client]:
            del self.taken[client]  # or everybody who was ever here would stay in memory


places = Places(int(os.environ.get("LIMIT", "1000")), int(os.environ.get("LIMIT_PER_CLIENT", "4")))


async def count_to(last: int | None) -> AsyncIterator[int]:
    for number in itertools.count(1) if last is None else range(1, last + 1):
        yield number
        await anyio.sleep(INTERVAL)


async def numbers(request: Request) -> EventSourceResponse:
    client = request.client.host if request.client else ""
    last = request.path_params.get("last")
    places.take(client)  # from here to the response nothing may fail, or the place is lost
    return EventSourceResponse(count_to(last), on_close=lambda _: places.give_back(client))


app = Starlette(routes=[Route("/numbers", numbers), Route("/numbers/{last:int}", numbers)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
