"""The demo upstream: which script a request asks for, and the listening socket."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Self

from streamgate.demo.account import Account
from streamgate.demo.bodies import compact, error_body
from streamgate.demo.connection import Connection, Play
from streamgate.demo.grammar import Script, UnknownModel, parse
from streamgate.demo.moves import moves, plainly
from streamgate.demo.request import Call, Request, call_of

# How many requests are remembered that `first<k>` has seen.
MAX_TRIES = 10_000
# Paths that answer as plain streams or JSON, beside the OpenAI families.
OTHERS = ("/v1/", "/api/", "/tokenize", "/detokenize")


class DemoUpstream(Account):
    """A running demo upstream: its address, and what it has seen. Made by `start`.

    `play` is what to do whatever model a request names (None: as the model's name asks); it may be changed at any time.
    """

    def __init__(self, play: str | None = None) -> None:
        super().__init__()
        self.play = play
        self.host = ""
        self.port = 0
        self.url = ""
        self._tries: dict[str, int] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Listen and serve; raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self, self.play_for, loop), host, port, ssl=tls, backlog=2048
        )
        self.host, self.port = host, self._server.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if tls is None else 'https'}://{shown}:{self.port}"

    async def aclose(self) -> None:
        """Close the listening socket and every connection; returns when they are gone. May be called twice."""
        if self._server is not None:
            self._server.close()
        for transport in list(self.transports):
            transport.abort()
        await self.wait_closed()

    def play_for(self, request: Request) -> Play:
        """What is done for a request."""
        call = call_of(request, self.arrived(request))
        if request.path in ("/stats", "/health"):
            answer = self.stats() if request.path == "/stats" else {"status": "ok"}
            return Play(plainly(call, 200, compact(answer)), None)
        refusal = _refusal(request)
        if refusal is not None:
            status, message = refusal
            body = error_body(message, "not_found", "invalid_request_error")
            return Play(plainly(call, status, body), call.rid)
        try:
            return Play(moves(self._script(request, call), call), call.rid)
        except UnknownModel as error:
            body = error_body(str(error), "model_not_found", "invalid_request_error")
            return Play(plainly(call, 404, body), call.rid)

    def _script(self, request: Request, call: Call) -> Script:
        """The script for this request; raises UnknownModel."""
        name = self.play or call.model
        script = parse(name)
        if script.faults is None:
            return script
        key = request.rid or name
        nth = self._tries.pop(key, 0) + 1
        self._tries[key] = nth
        if len(self._tries) > MAX_TRIES:
            del self._tries[next(iter(self._tries))]
        return script.faults if nth <= script.first else script


def _refusal(request: Request) -> tuple[int, str] | None:
    """404 for paths that no API has, 405 for another method than theirs."""
    models = request.path == "/v1/models" or request.path.startswith("/v1/models/")
    if not request.path.startswith(OTHERS):
        return 404, "Not Found"
    if request.method != ("GET" if models else "POST"):
        return 405, "Method Not Allowed"
    return None


async def start(
    host: str = "127.0.0.1", port: int = 0, *, play: str | None = None, tls: ssl.SSLContext | None = None
) -> DemoUpstream:
    """A demo upstream that serves until `aclose`; port 0: any free one. Raises OSError."""
    upstream = DemoUpstream(play)
    await upstream.listen(host, port, tls)
    return upstream
