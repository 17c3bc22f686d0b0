"""A page without JavaScript of its own: htmx and its SSE extension put HTML fragments where they belong.

    python examples/htmx_page.py
    # open http://127.0.0.1:8000/ in two windows and write something into one
    curl -N http://127.0.0.1:8000/events
    curl --data 'name=Ann' --data-urlencode $'text=two\nlines' http://127.0.0.1:8000/messages

A fragment may have as many lines as it likes: each becomes a `data:` line, and the browser joins them again. What
people wrote is escaped where it becomes HTML, once. htmx knows where a fragment goes by the name of its event.
"""

from __future__ import annotations

import itertools
import sys
from html import escape
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from streamgate.sse import Broadcast, EventSourceResponse, ServerSentEvent, last_event_id

LONGEST = 10_000  # bytes of a posted form

PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>Guest book</title>
  <script src="https://cdn.jsdelivr.net/npm/htmx.org@2.0.10/dist/htmx.min.js"></script>
  <script src="https://cdn.jsdelivr.net/npm/htmx-ext-sse@2.2.4/dist/sse.min.js"></script>
</head>
<body hx-ext="sse" sse-connect="/events">
  <h1>Guest book</h1>
  <p>Written so far: <span id="count" sse-swap="count">0</span></p>
  <form hx-post="/messages" hx-swap="none" hx-on::after-request="if (event.detail.successful) this.reset()">
    <input name="name" placeholder="Name" required>
    <textarea name="text" placeholder="Text" required></textarea>
    <button>Write</button>
  </form>
  <ul id="messages" sse-swap="message" hx-swap="beforeend"></ul>
</body>
</html>
"""

MESSAGE = """<li>
  <b>{name}</b>
  <pre>{text}</pre>
</li>"""

# A browser that comes back says which event it saw last, and gets the ones after it.
book = Broadcast(history=100)
numbers = itertools.count(1)


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


async def events(request: Request) -> EventSourceResponse:
    # A newcomer has no last event id; with "" he gets all that is kept.
    return EventSourceResponse(book.subscribe(last_event_id(request) or ""))


async def messages(request: Request) -> Response:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST:
            return Response("too long", status_code=413)
    form = parse_qs(body.decode("utf-8", "replace"))
    if not form.keys() >= {"name", "text"}:
        return Response("name and text, please", status_code=422)
    number = next(numbers)
    fragment = MESSAGE.format(name=escape(form["name"][0]), text=escape(form["text"][0]))
    book.publish(ServerSentEvent(fragment, event="message", id=number))
    book.publish(ServerSentEvent(number, event="count", id=f"{number}-count"))
    return Response(status_code=204)


app = Starlette(
    routes=[Route("/", page), Route("/events", events), Route("/messages", messages, methods=["POST"])],
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
