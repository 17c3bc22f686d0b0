"""Numbers as events: from an async generator, and from a plain one, which runs in a worker thread and so may block.

python examples/basic_numbers.py
curl -N http://127.0.0.1:8000/numbers/10
curl -N http://127.0.0.1:8000/primes/10
curl -I http://127.0.0.1:8000/numbers/10    # HEAD: the same headers, and the generator never starts
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import AsyncIterator, Iterator

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from streamgate.sse import EventSourceResponse

INTERVAL = float(os.environ.get("INTERVAL", "1"))  # seconds between two numbers


async def count_to(last: int) -> AsyncIterator[int]:
    for number in range(1, last + 1):
        yield number
        await anyio.sleep(INTERVAL)


def first_primes(count: int) -> Iterator[dict[str, int]]:
    candidates = (number for number in itertools.count(2) if all(number % divisor for divisor in range(2, number)))
    for place, prime in enumerate(itertools.islice(candidates, count), start=1):
        yield {"id": place, "data": prime}


async def numbers(request: Request) -> EventSourceResponse:
    return EventSourceResponse(count_to(request.path_params["last"]))


async def primes(request: Request) -> EventSourceResponse:
    return EventSourceResponse(first_primes(request.path_params["count"]))


app = Starlette(routes=[Route("/numbers/{last:int}", numbers), Route("/primes/{count:int}", primes)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
