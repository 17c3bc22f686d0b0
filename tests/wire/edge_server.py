"""A real uvicorn server with the guard in front, in the test's own event loop, and raw clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from uvicorn import Config, Server

from streamgate.edge.census import Census
from streamgate.edge.guard import Guard, GuardSettings, guard_factory
from streamgate.edge.sockets import listen
from streamgate.errors import Reason, Refusal

App = Callable[[Any, Any, Any], Awaitable[None]]
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\n"
GET = b"GET /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\n\r\n"


def error_body(path: bytes, refusal: Refusal) -> bytes:
    return json.dumps({"error": {"message": refusal.message, "code": refusal.code, "path": path.decode()}}).encode()


@dataclass
class Edge:
    """The server under test, and what it did."""

    server: Server
    address: tuple[str, int]
    census: Census
    refused: Counter[Reason] = field(default_factory=Counter)
    clients: list[Client] = field(default_factory=list)

    @property
    def connections(self) -> list[Guard]:
        return list(self.server.server_state.connections)  # type: ignore[arg-type]

    @property
    def idle(self) -> bool:
        return not self.server.server_state.connections and not self.server.server_state.tasks

    async def connect(self, *, reads: bool = True) -> Client:
        """A connection of its own; with `reads` False one with a small receive buffer that nobody empties."""
        sock = socket.socket()
        sock.setblocking(False)
        if not reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        client = Client(*await asyncio.open_connection(sock=sock))
        if not reads:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        self.clients.append(client)
        return client


@dataclass
class Client:
    """One raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def until(self, mark: bytes, within: float = 5.0) -> bytes:
        async with asyncio.timeout(within):
            return await self.reader.readuntil(mark)

    async def rest(self, within: float = 5.0) -> bytes:
        """Everything up to the end of the connection; raises ConnectionResetError if that was an RST."""
        async with asyncio.timeout(within):
            return await self.reader.read()

    async def ended(self, within: float = 5.0) -> bool:
        """Wait for the end, clean or not; whether nothing more came before it."""
        try:
            return await self.rest(within) == b""
        except ConnectionError:
            return True

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@asynccontextmanager
async def serve(app: App, settings: GuardSettings | None = None, *, send_buffer: int = 131072) -> AsyncIterator[Edge]:
    """Serve `app` on a free port; on leaving, every connection is cut and every request's task has ended."""
    settings = settings or GuardSettings()
    census, refused = Census(), Counter[Reason]()
    factory = guard_factory(settings, census, error_body=error_body, refused=lambda reason: refused.update([reason]))
    config = Config(app, http=factory, ws="none", lifespan="off", log_config=None, access_log=False)  # type: ignore[arg-type]
    config.load()
    server = Server(config)
    server.lifespan = config.lifespan_class(config)
    sockets = listen("127.0.0.1:0", user_timeout=settings.send, send_buffer=send_buffer)
    await server.startup(sockets=sockets)
    server.server_state.default_headers = [(b"date", b"Sat, 21 Nov 2026 10:00:00 GMT")]
    edge = Edge(server, sockets[0].getsockname(), census, refused)
    try:
        yield edge
    finally:
        for client in edge.clients:
            await client.close()
        for each in server.servers:
            each.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        if server.server_state.tasks:
            _, left = await asyncio.wait(server.server_state.tasks, timeout=5.0)
            assert not left, left


class Recorder:
    """An application that keeps each request it saw whole, and answers with its body; other paths are 404."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes, dict[bytes, bytes], bytes]] = []
        self.disconnects = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return
            body += message["body"]
            more = message["more_body"]
        if scope["raw_path"] != b"/v1/chat/completions":
            await answer(send, 404, b"{}")
            return
        self.requests.append((scope["method"], scope["query_string"], dict(scope["headers"]), body))
        await answer(send, 200, body)


async def answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
