"""Errors in the middle of a stream, and a browser that goes on where it was: nothing lost, nothing twice.

    python examples/error_recovery.py
    # open http://127.0.0.1:8000/ and watch
    curl -N http://127.0.0.1:8000/events
    curl -N -H 'Last-Event-ID: 6' http://127.0.0.1:8000/events

Every event has an id. When a stream ends, EventSource waits as many milliseconds as the last `retry:` field said, comes
back by itself, and sends the id of the last event it got as `Last-Event-ID`; the server goes on after that one.

`error_event` makes an event of what the content raised, here one named `trouble` (`error` is the name of EventSource's
own), and the stream then ends cleanly. It tells a code: an exception's text is for the log. It has no id, so that the
place is kept. EventSource would come back after the last event, too: the page closes it at `end`, and whoever asks for
more than there is gets 204, the standard's way to tell an EventSource to stay away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from streamgate.sse import EventSourceResponse, ServerSentEvent, last_event_id

INTERVAL = float(os.environ.get("INTERVAL", "0.5"))  # seconds between two events
RETRY = int(os.environ.get("RETRY", "1000"))  # milliseconds until the browser comes back
LAST = 12

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Error recovery</title>
<p>The connection is <b id="state">opening</b>, <span id="troubles">0</span> troubles so far.</p>
<ol id="numbers"></ol>
<script>
  const source = new EventSource("/events");
  const show = (id, text) => { document.getElementById(id).textContent = text; };
  let troubles = 0;
  source.onopen = () => show("state", "open");
  source.onerror = () => show("state", source.readyState === EventSource.CLOSED ? "refused" : "coming back");
  source.addEventListener("trouble", () => show("troubles", ++troubles));
  source.addEventListener("number", (event) => {
    document.getElementById("numbers").appendChild(document.createElement("li")).textContent = event.data;
  });
  source.addEventListener("end", () => { source.close(); show("state", "complete"); });
</script>
"""


class SourceLost(Exception):
    """What the numbers come from broke."""


async def numbers_after(seen: int) -> AsyncIterator[ServerSentEvent]:
    """Fails after every third number, as a database or an upstream might."""
    yield ServerSentEvent(comment="hello", retry=RETRY)
    for number in range(seen + 1, LAST + 1):
        if number == seen + 4:
            raise SourceLost(f"at {number}")
        yield ServerSentEvent(number, event="number", id=number)
        await anyio.sleep(INTERVAL)
    yield ServerSentEvent("", event="end")


def trouble(error: Exception) -> ServerSentEvent:
    return ServerSentEvent("source_lost" if isinstance(error, SourceLost) else "internal_error", event="trouble")


async def events(request: Request) -> Response:
    seen = last_event_id(request) or "0"
    if not seen.isdecimal() or len(seen) > 9:
        return Response("no such event", status_code=400)
    if int(seen) >= LAST:
        return Response(status_code=204)
    return EventSourceResponse(numbers_after(int(seen)), error_event=trouble)


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


app = Starlette(routes=[Route("/", page), Route("/events", events)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
