"""uvicorn as a library, in the main thread: `python -m own_server HOW PORT [PORT]`."""

from __future__ import annotations

import signal
import sys

import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from streams import app, say


def server_on(port: str) -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(app, port=int(port)))


def until_told(port: str) -> None:
    """Ends when a request has set `should_exit`."""
    server = server_on(port)

    async def leave(request: Request) -> Response:
        server.should_exit = True
        return PlainTextResponse("leaving")

    app.router.routes.append(Route("/leave", leave))
    server.run()


def one_after_the_other(*ports: str) -> None:
    """Each ends at a SIGTERM, which uvicorn raises once more when it is done: here that must not end the process."""
    signal.signal(signal.SIGTERM, lambda *_: say("SIGTERM again"))
    for port in ports:
        server_on(port).run()


if __name__ == "__main__":
    {"until-told": until_told, "one-after-the-other": one_after_the_other}[sys.argv[1]](*sys.argv[2:])
    say("done")
