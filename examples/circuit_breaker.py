"""A flaky upstream behind a circuit breaker: after three failures in a row it is left alone, then one request tries it.

    COOLDOWN=10 python examples/circuit_breaker.py
    curl -i -N http://127.0.0.1:8000/answer
    curl -X PUT http://127.0.0.1:8000/upstream/down      # or up, breaking, hanging
    curl -i -N http://127.0.0.1:8000/answer              # 502 three times, then 503 with Retry-After
    curl http://127.0.0.1:8000/breaker

`wait_for_first` sends the head together with the first event, so that a failure before it is a real status, which
proxies, metrics and clients understand. What fails later can only be told as an event: `error_event`. The price: until
the upstream answers, the client gets no head and no pings.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from enum import Enum

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamgate.sse import EventSourceResponse, ServerSentEvent

FAILURES = 3  # in a row, then the breaker opens
COOLDOWN = float(os.environ.get("COOLDOWN", "10"))  # seconds until somebody may try again


class State(Enum):
    CLOSED = "closed"  # everybody may ask the upstream
    OPEN = "open"  # nobody may
    HALF_OPEN = "half-open"  # one is asking, for all


class Breaker:
    """Plain state; times are monotonic seconds, and are handed in."""

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.failures = 0  # in a row
        self.retry_at = 0.0

    def enter(self, now: float) -> bool:
        """Whether this one is the trial. Raises a 503 when it is not to ask at all."""
        if self.state is State.CLOSED:
            return False
        if self.state is State.HALF_OPEN or now < self.retry_at:
            wait = math.ceil(max(self.retry_at - now, 1.0))
            raise HTTPException(503, "the upstream is left alone", {"retry-after": str(wait)})
        self.state = State.HALF_OPEN
        return True

    def answered(self) -> None:
        """The first event is here. The failures stay counted: one more, even late in this answer, opens again."""
        self.state = State.CLOSED

    def left(self, now: float, *, trial: bool, answered: bool, failed: bool) -> None:
        if failed:
            self.failures += 1
            if self.failures >= FAILURES:
                self.state, self.retry_at = State.OPEN, now + COOLDOWN
        elif answered:
            self.failures = 0
        elif trial:
            self.state, self.retry_at = State.OPEN, now  # its client went away undecided: the next one tries


class UpstreamFault(HTTPException):
    def __init__(self) -> None:
        super().__init__(502, "the upstream failed")


class Upstream:
    """Stands for another service; PUT /upstream/... says how it is."""

    mood = "up"

    async def words(self) -> AsyncGenerator[str, None]:
        if self.mood == "hanging":
            await anyio.sleep_forever()
        for word in ("all", "is", "well"):
            if self.mood == "down" or (self.mood == "breaking" and word == "well"):
                raise UpstreamFault
            yield word


breaker, upstream = Breaker(), Upstream()


async def guarded() -> AsyncIterator[str]:
    """The upstream's words, if it may be asked; the breaker is told how it went, whatever happens."""
    trial = breaker.enter(time.monotonic())
    answered = failed = False
    try:
        async with aclosing(upstream.words()) as words:
            async for word in words:
                if not answered:
                    answered = True
                    breaker.answered()
                yield word
    except UpstreamFault:
        failed = True
        raise
    finally:
        breaker.left(time.monotonic(), trial=trial, answered=answered, failed=failed)


def trouble(error: Exception) -> ServerSentEvent:
    return ServerSentEvent("upstream_failed" if isinstance(error, UpstreamFault) else "internal_error", event="trouble")


async def answer(request: Request) -> EventSourceResponse:
    return EventSourceResponse(guarded(), wait_for_first=True, error_event=trouble)


async def set_mood(request: Request) -> Response:
    upstream.mood = request.path_params["mood"]
    return Response(status_code=204)


async def show(request: Request) -> JSONResponse:
    return JSONResponse({"state": breaker.state.value, "failures": breaker.failures})


app = Starlette(
    routes=[Route("/answer", answer), Route("/breaker", show), Route("/upstream/{mood}", set_mood, methods=["PUT"])]
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
