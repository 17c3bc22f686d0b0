"""A long job: started by POST, its progress watched as events by as many as like, from whenever they come.

    python examples/long_job.py
    curl http://127.0.0.1:8000/jobs -d '{"numbers": [1, 2, 4, 8]}'      # adds up 1/1 + 1/2 + 1/4 + 1/8, slowly
    curl -N http://127.0.0.1:8000/jobs/ID/events                        # ID from the answer
    curl http://127.0.0.1:8000/jobs -d '{"numbers": [1, 0]}'            # this one fails

A job belongs to the application, not to a request: it goes on when nobody watches. Watchers share its state, not a
queue: who comes late gets the current state first, who is slow skips what is out of date, and nothing piles up.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import uuid
from collections.abc import AsyncIterator

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamgate.sse import EventSourceResponse, JSONServerSentEvent, last_event_id

INTERVAL = float(os.environ.get("INTERVAL", "1"))  # seconds that a number takes
FINISHED_KEPT = 100  # jobs whose result can still be asked for
LAST = "last"  # the id of the event after which nothing comes


class Job:
    """A sum of reciprocals, and how far it is."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self.state = JSONServerSentEvent({"percent": 0}, event="progress")
        self.over = False
        self._changed = anyio.Event()

    async def run(self) -> None:
        try:
            total = 0.0
            for done, number in enumerate(self.numbers, start=1):
                await anyio.sleep(INTERVAL)
                total += 1 / number
                self._move({"percent": 100 * done // len(self.numbers)}, "progress")
            self._move({"sum": total}, "result", over=True)
        except ArithmeticError as error:  # what this job may die of; anything else is a bug, and not for the client
            logging.getLogger(__name__).warning("a job failed: %s", error)
            self._move({"error": str(error)}, "failure", over=True)

    def _move(self, news: dict[str, object], event: str, *, over: bool = False) -> None:
        self.state = JSONServerSentEvent(news, event=event, id=LAST if over else None)
        self.over = over
        self._changed.set()
        self._changed = anyio.Event()

    async def states(self) -> AsyncIterator[JSONServerSentEvent]:
        """The current state, then each new one, until the job is over."""
        while True:
            changed, over = self._changed, self.over  # taken before the yield: what comes during it is not missed
            yield self.state
            if over:
                return
            await changed.wait()


jobs: dict[str, Job] = {}


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with anyio.create_task_group() as app.state.tasks:
        yield
        app.state.tasks.cancel_scope.cancel()


async def start(request: Request) -> JSONResponse:
    try:
        numbers = json.loads(await request.body())["numbers"]
    except (ValueError, KeyError, TypeError):
        numbers = None
    if not isinstance(numbers, list) or not numbers or not all(isinstance(number, int) for number in numbers):
        return JSONResponse({"error": "numbers must be a list of integers"}, status_code=400)
    for finished in [name for name, job in jobs.items() if job.over][:-FINISHED_KEPT]:
        del jobs[finished]
    name = uuid.uuid4().hex
    jobs[name] = Job(numbers)
    request.app.state.tasks.start_soon(jobs[name].run)
    return JSONResponse({"job": name, "events": f"/jobs/{name}/events"}, status_code=202)


async def events(request: Request) -> Response:
    job = jobs.get(request.path_params["job"])
    if job is None:
        return JSONResponse({"error": "no such job"}, status_code=404)
    if last_event_id(request) == LAST:
        return Response(status_code=204)  # an EventSource comes back after every end; this tells it not to
    return EventSourceResponse(job.states())


app = Starlette(
    routes=[Route("/jobs", start, methods=["POST"]), Route("/jobs/{job}/events", events)], lifespan=lifespan
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
