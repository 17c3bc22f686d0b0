"""Directed push: everybody listens to a stream of their own, and whoever has something to say names the recipient.

    python examples/directed_push.py
    curl -N http://127.0.0.1:8000/subscribe/ann
    curl http://127.0.0.1:8000/emit -d '{"recipient": "ann", "text": "hello"}'

All of it lives in one process: with several workers, put a broker between `/emit` and the channel. And check that the
one who subscribes may read what is sent to that recipient.
"""

from __future__ import annotations

import json
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from streamgate.sse import Channel, EventSourceResponse, JSONServerSentEvent, Slow

# Whoever lets 100 messages pile up is disconnected; everybody else gets theirs without waiting for that one.
channel = Channel(queue=100, slow=Slow.DISCONNECT)


async def subscribe(request: Request) -> EventSourceResponse:
    return EventSourceResponse(channel.subscribe(request.path_params["recipient"]))


async def emit(request: Request) -> JSONResponse:
    """Send {"recipient", "text"}; answers how many streams took it, 0 when nobody listens."""
    try:
        match json.loads(await request.body()):
            case {"recipient": str(recipient), "text": str(text)}:
                pass
            case _:
                return JSONResponse({"error": "recipient and text must be strings"}, status_code=400)
    except ValueError:
        return JSONResponse({"error": "not JSON"}, status_code=400)
    reached = channel.send(recipient, JSONServerSentEvent({"text": text}, event="message"))
    return JSONResponse({"reached": reached})


app = Starlette(routes=[Route("/subscribe/{recipient}", subscribe), Route("/emit", emit, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
