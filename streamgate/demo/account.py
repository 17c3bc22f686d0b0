"""What the demo upstream has seen: counters, requests, aborts; and ways to wait for them without sleeping."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from streamgate import clock
from streamgate.demo.request import Request

# What is remembered, for whoever wants to look: enough for a test, too little to matter.
MAX_RECEIVED, MAX_RAW, MAX_ABORTS = 256, 64 * 1024, 20_000


class Abort(NamedTuple):
    """A client that left before its answer was out: its request's id, and when that was seen (monotonic seconds)."""

    rid: str
    at: float


class Account:
    """Counters as plain attributes; `wait_for` and its like resolve on the very event, with a deadline (TimeoutError).

    "Streams" are all answers but those of /stats and /health, whether they stream or not.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.connections_opened = 0
        self.connections_closed = 0
        self.streams_active = 0
        self.streams_finished = 0
        self.streams_aborted = 0
        self.active: list[str] = []  # x-request-ids of what is being played
        self.aborts: deque[Abort] = deque(maxlen=MAX_ABORTS)
        self.received: deque[Request] = deque(maxlen=MAX_RECEIVED)  # cut at MAX_RAW
        self.unfinished: deque[bytes] = deque(maxlen=MAX_RECEIVED)  # bytes that never became a whole request
        self.transports: set[asyncio.Transport] = set()
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    @property
    def connections_now(self) -> int:
        return len(self.transports)

    def stats(self) -> dict[str, object]:
        """What GET /stats answers."""
        return {
            "requests": self.requests,
            "connections": {
                "opened": self.connections_opened,
                "closed": self.connections_closed,
                "now": self.connections_now,
            },
            "streams": {
                "active": self.streams_active,
                "finished": self.streams_finished,
                "aborted": self.streams_aborted,
            },
            "aborts": [abort._asdict() for abort in list(self.aborts)[-100:]],
        }

    async def wait_for(self, predicate: Callable[[], bool], timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """Until `predicate()` is true; asked again whenever a counter here has changed."""
        if predicate():
            return
        waiter = (predicate, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter[1]
        finally:
            self._waiters.remove(waiter)

    async def wait_active(self, count: int = 1, timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """Until at least `count` answers are being played."""
        await self.wait_for(lambda: self.streams_active >= count, timeout)

    async def wait_requests(self, count: int, timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """Until `count` requests have arrived since the start."""
        await self.wait_for(lambda: self.requests >= count, timeout)

    async def wait_aborted(self, rid: str, timeout: float = 5.0) -> float:  # noqa: ASYNC109
        """Until the client of the request with this x-request-id has left early; when that was seen."""
        await self.wait_for(lambda: any(abort.rid == rid for abort in reversed(self.aborts)), timeout)
        return next(abort.at for abort in reversed(self.aborts) if abort.rid == rid)

    async def wait_idle(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """Until no answer is being played."""
        await self.wait_for(lambda: not self.streams_active, timeout)

    async def wait_closed(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """Until no connection is open."""
        await self.wait_for(lambda: not self.transports, timeout)

    # What connections tell.

    def opened(self, transport: asyncio.Transport) -> None:
        self.transports.add(transport)
        self.connections_opened += 1
        self._changed()

    def closed(self, transport: asyncio.Transport, rest: bytes) -> None:
        self.transports.discard(transport)
        self.connections_closed += 1
        if rest:
            self.unfinished.append(rest[:MAX_RAW])
        self._changed()

    def arrived(self, request: Request) -> int:
        """Keep a request; its number."""
        self.requests += 1
        self.received.append(request.shortened(MAX_RAW))
        self._changed()
        return self.requests

    def begun(self, rid: str) -> None:
        self.active.append(rid)
        self.streams_active += 1
        self._changed()

    def ended(self, rid: str, *, aborted: bool) -> None:
        self.active.remove(rid)
        self.streams_active -= 1
        if aborted:
            self.streams_aborted += 1
            self.aborts.append(Abort(rid, clock.monotonic()))
        else:
            self.streams_finished += 1
        self._changed()

    def _changed(self) -> None:
        for predicate, future in self._waiters:
            if not future.done() and predicate():
                future.set_result(None)
