"""Many clients at once, in one process: how soon the first event comes, how many, how evenly, and how streams end.

    python examples/load_simulation.py                               # against an endpoint of its own
    python examples/load_simulation.py --clients 400 --seconds 20
    python examples/load_simulation.py http://127.0.0.1:8000/prices  # against yours

All clients come in the same moment, as after a restart: the first events are the worst case. The own endpoint is in the
same process, and its numbers are those of both; run a server by itself to measure it. A client that was ended does not
come back. More than 400 clients, or a server on another machine, needs --yes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field

import anyio
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from streamgate.sse import EventSourceResponse, EventStreamParser, ServerSentEvent, SSEError

INTERVAL = float(os.environ.get("INTERVAL", "0.2"))  # seconds between two events of the own endpoint
MANY = 400  # clients; with the server in this process, two descriptors each of the 1024 that are usually allowed


async def count() -> AsyncIterator[ServerSentEvent]:
    for number in itertools.count(1):
        yield ServerSentEvent(number, id=number)
        await anyio.sleep(INTERVAL)


async def numbers(_: Request) -> EventSourceResponse:
    return EventSourceResponse(count())


app = Starlette(routes=[Route("/numbers", numbers)])


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The own endpoint, on a server in a thread; gives its URL."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/numbers"
        finally:
            server.should_exit = True
            thread.join()


@dataclass(slots=True)
class Seen:  # by one client
    times: list[float] = field(default_factory=list)  # of the events, and of the end; seconds since the request
    numbers: list[int] = field(default_factory=list)  # the ids that are numbers
    ending: str = "left when the time was up"


async def listen(client: httpx.AsyncClient, url: str, seconds: float, seen: Seen) -> None:
    """One stream, from the request to its end, or until the time is up."""
    begun, parser = time.monotonic(), EventStreamParser()
    try:
        with anyio.move_on_after(seconds):
            async with client.stream("GET", url, headers={"accept": "text/event-stream"}) as response:
                async for chunk in response.aiter_raw():
                    events = parser.feed(chunk)
                    seen.times += [time.monotonic() - begun] * len(events)
                    seen.numbers += [int(text) for event in events if (text := str(event.id)).isdecimal()]
            seen.ending = f"ended by the server, status {response.status_code}"
    except (httpx.TransportError, SSEError) as error:
        seen.ending = f"broken: {type(error).__name__}"
    seen.times.append(time.monotonic() - begun)


async def simulate(url: str, clients: int, seconds: float) -> list[Seen]:
    every = [Seen() for _ in range(clients)]
    async with httpx.AsyncClient(limits=httpx.Limits(), timeout=seconds) as client, anyio.create_task_group() as tasks:
        for seen in every:
            tasks.start_soon(listen, client, url, seconds, seen)
    return every


def spread(seconds: Iterable[float]) -> str:
    ordered = sorted(seconds) or [math.nan]
    p50, p99 = (ordered[int((len(ordered) - 1) * share)] for share in (0.50, 0.99))
    return f"p50 {p50:.3f} s, p99 {p99:.3f} s, worst {ordered[-1]:.3f} s"


def report(url: str, seconds: float, every: list[Seen]) -> Iterator[str]:
    alive = [seen for seen in every if len(seen.times) > 1]
    events = sum(len(seen.times) - 1 for seen in every)
    missing = sum(seen.numbers[-1] - seen.numbers[0] + 1 - len(seen.numbers) for seen in every if seen.numbers)
    yield f"clients      {len(every)} for {seconds:g} s at {url}"
    yield f"first event  {spread(seen.times[0] for seen in alive)}"
    yield f"longest gap  {spread(max(b - a for a, b in itertools.pairwise(seen.times)) for seen in alive)}"
    yield f"events       {events}, {events / seconds:.0f} per second; {missing} ids missing"
    yield from (f"ended        {n} {ending}" for ending, n in Counter(seen.ending for seen in every).most_common())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?", help="an SSE endpoint; default: one of our own")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--yes", action="store_true", help=f"more than {MANY} clients, or another machine, is meant so")
    given = parser.parse_args()
    host = httpx.URL(given.url or "http://localhost").host
    if not given.yes and (given.clients > MANY or host not in {"127.0.0.1", "::1", "localhost"}):
        parser.error(f"more than {MANY} clients, or a server on another machine: say --yes if it is meant so")
    with serving() if given.url is None else contextlib.nullcontext(given.url) as url:
        every = anyio.run(simulate, url, given.clients, given.seconds)
    print("\n".join(report(url, given.seconds, every)))  # noqa: T201


if __name__ == "__main__":
    main()
