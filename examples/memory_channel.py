"""A memory channel as the content: several producers feed one stream, and end when its client leaves.

    python examples/memory_channel.py
    curl -N http://127.0.0.1:8000/laps/5       # two runners, five laps each; the stream ends with the last of them
    curl -N http://127.0.0.1:8000/laps/1000    # leave with Ctrl-C ...
    curl http://127.0.0.1:8000/runners         # ... and they stop running

`data_sender_callable` is run beside the stream and cancelled with it. It cannot run ahead of a slow client by more than
the channel holds.
"""

from __future__ import annotations

import collections
import functools
import os
import sys

import anyio
import uvicorn
from anyio.streams.memory import MemoryObjectSendStream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from streamgate.sse import Account, EventSourceResponse, JSONServerSentEvent

INTERVAL = float(os.environ.get("INTERVAL", "0.5"))  # seconds for a lap of the hare

runners: collections.Counter[str] = collections.Counter()  # by what they are doing


async def run(runner: str, laps: int, pace: float, course: MemoryObjectSendStream[JSONServerSentEvent]) -> None:
    runners["running"] += 1
    try:
        for lap in range(1, laps + 1):
            await anyio.sleep(pace)
            await course.send(JSONServerSentEvent({"runner": runner, "lap": lap}, event="lap"))
        runners["finished"] += 1
    except anyio.get_cancelled_exc_class():
        runners["stopped"] += 1
        raise
    finally:
        runners["running"] -= 1


async def race(laps: int, course: MemoryObjectSendStream[JSONServerSentEvent]) -> None:
    # Closed when all have finished (or were stopped): that ends the stream.
    async with course, anyio.create_task_group() as track:
        track.start_soon(run, "hare", laps, INTERVAL, course)
        track.start_soon(run, "tortoise", laps, INTERVAL * 2, course)


async def laps_endpoint(request: Request) -> EventSourceResponse:
    course, spectators = anyio.create_memory_object_stream[JSONServerSentEvent](max_buffer_size=8)
    producer = functools.partial(race, request.path_params["laps"], course)

    def close(_: Account) -> None:  # in any case: HEAD, too, which starts no race
        course.close()
        spectators.close()

    return EventSourceResponse(spectators, data_sender_callable=producer, on_close=close)


async def runners_endpoint(_: Request) -> JSONResponse:
    return JSONResponse(runners)


app = Starlette(routes=[Route("/laps/{laps:int}", laps_endpoint), Route("/runners", runners_endpoint)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
