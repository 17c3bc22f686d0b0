"""Events with names, ids and a retry time, and a page that lists them and misses none when its connection ends.

    python examples/custom_events.py
    open http://127.0.0.1:8000/ in a browser, or
    curl -N http://127.0.0.1:8000/events
    curl -N -H 'Last-Event-ID: 7' http://127.0.0.1:8000/events

Every connection ends after five events, on purpose: the browser comes back by itself, says in `Last-Event-ID` what it
saw last, and is sent what comes after that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from streamgate.sse import EventSourceResponse, ServerSentEvent, last_event_id

INTERVAL = float(os.environ.get("INTERVAL", "1"))  # seconds between two events
EVENTS_PER_CONNECTION = 5
RETRY = 500  # milliseconds until the browser connects again

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Custom events</title>
<p id="state">connecting</p>
<ol id="seen"></ol>
<script>
  const state = document.getElementById("state");
  const seen = document.getElementById("seen");
  const source = new EventSource("/events");
  const list = (event) => {
    const line = document.createElement("li");
    line.textContent = `${event.type} ${event.data} (id ${event.lastEventId})`;
    seen.append(line);
  };
  source.addEventListener("odd", list);
  source.addEventListener("even", list);
  source.onopen = () => { state.textContent = "open"; };
  source.onerror = () => { state.textContent = source.readyState === EventSource.CLOSED ? "closed" : "connecting"; };
</script>
</html>
"""


async def numbers_after(last: int) -> AsyncIterator[ServerSentEvent]:
    # No data: the browser takes the retry time and tells the page nothing.
    yield ServerSentEvent(comment=f"goes on after {last}", retry=RETRY)
    for number in range(last + 1, last + 1 + EVENTS_PER_CONNECTION):
        await anyio.sleep(INTERVAL)
        yield ServerSentEvent(f"number {number}", event="even" if number % 2 == 0 else "odd", id=number)


async def events(request: Request) -> EventSourceResponse:
    seen = last_event_id(request) or ""
    # The header is the client's word: anything that is no id of ours means from the beginning.
    return EventSourceResponse(numbers_after(int(seen) if seen.isdecimal() else 0))


async def page(_: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


app = Starlette(routes=[Route("/", page), Route("/events", events)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
