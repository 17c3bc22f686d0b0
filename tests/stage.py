"""A whole gateway on real sockets, scripted upstreams that speak raw bytes, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import pytest

from streamgate.control.settings import Config
from streamgate.server import Server, running

PATIENCE = 5.0
RESET = struct.pack("ii", 1, 0)


class Peer:
    """One connection accepted by a scripted upstream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""
        self.body = b""
        self.closed_at: asyncio.Future[float] = asyncio.get_running_loop().create_future()  # for scripts that watch

    async def request(self) -> bytes:
        """Read one request; its head is kept in `head`, its body in `body`."""
        self.head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            (line[15:] for line in self.head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b"0"
        )
        self.body = await self.reader.readexactly(int(length))
        return self.head

    def send(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))

    def chunk(self, *pieces: bytes) -> None:
        body = b"".join(pieces)
        self.writer.write(b"%x\r\n%b\r\n" % (len(body), body))

    def stream(self, *pieces: bytes) -> None:
        """A 200 with an event stream, and the first chunk of it."""
        self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        if pieces:
            self.chunk(*pieces)

    def end(self) -> None:
        self.send(b"0\r\n\r\n")

    def answer(self, status: int, body: bytes, *headers: bytes, kind: bytes = b"application/json") -> None:
        lines = [b"HTTP/1.1 %d X" % status, b"content-type: " + kind, b"content-length: %d" % len(body), *headers]
        self.send(b"\r\n".join([*lines, b"", body]))

    def reset(self) -> None:
        with contextlib.suppress(OSError):  # closed already: the gateway was first
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.transport.abort()

    async def closed(self) -> None:
        """Wait until the other side has closed."""
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(self.reader.read(65536), PATIENCE):
                pass

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


Script = Callable[[Peer], Awaitable[None]]


class Scripted:
    """An upstream that answers each connection by the script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.peers: list[Peer] = []
        self.arrived: asyncio.Queue[Peer] = asyncio.Queue()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            peer.writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self._tasks.add(task := asyncio.current_task())
        try:
            await peer.request()
            self.arrived.put_nowait(peer)
            await self.script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)


class Client:
    """One connection to the gateway, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.patience = PATIENCE
        self.headers: dict[str, str] = {}

    def send(self, raw: bytes) -> None:
        self.writer.write(raw)

    def post(self, path: str, body: Any, *headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            "host: gateway",
            "content-type: application/json",
            f"content-length: {len(raw)}",
        ]
        self.send("\r\n".join([*lines, *headers, "", ""]).encode() + raw)

    async def head(self) -> int:
        """Read the response head; its status."""
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), self.patience)
        first, *lines = raw.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
        }
        return self.status

    async def piece(self) -> bytes:
        """One chunk of the body; b"" at its proper end. IncompleteReadError when the connection ended before it."""
        size = int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), self.patience), 16)
        data = await asyncio.wait_for(self.reader.readexactly(size + 2), self.patience)
        return data[:-2]

    async def body(self) -> bytes:
        """The whole body, by its framing."""
        if "content-length" in self.headers:
            return await asyncio.wait_for(self.reader.readexactly(int(self.headers["content-length"])), self.patience)
        pieces = []
        while piece := await self.piece():
            pieces.append(piece)
        return b"".join(pieces)

    async def cut_body(self) -> bytes:
        """The body of a response that must not end properly: what came before the connection ended."""
        pieces = []
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            while True:
                piece = await self.piece()
                assert piece, "the body ended as if it were whole"
                pieces.append(piece)
        return b"".join(pieces)

    def reset(self) -> None:
        with contextlib.suppress(OSError):  # closed already: the gateway was first
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


class Stage:
    """Starts what a test needs and ends it."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self._clients: list[Client] = []  # a writer that is dropped unclosed is a warning, which is an error

    async def upstream(self, script: Script) -> Scripted:
        return await self._stack.enter_async_context(Scripted(script))

    async def gateway(self, *upstreams: Scripted | str, **settings: Any) -> Server:
        listed = [{"name": f"up{number}", "url": getattr(each, "url", each)} for number, each in enumerate(upstreams)]
        base = {"listen": "127.0.0.1:0", "admin": {"listen": "127.0.0.1:0"}, "upstreams": listed, "keys": "none"}
        config = Config.model_validate(base | settings)
        return await self._stack.enter_async_context(running(config))

    async def client(self, server: Server, *, receive_buffer: int = 0, admin: bool = False) -> Client:
        host, port = (server.admin_url if admin else server.url).removeprefix("http://").rsplit(":", 1)
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
        client = Client(reader, writer)
        self._clients.append(client)
        self._stack.callback(writer.transport.abort)
        return client

    async def chat(self, server: Server, model: str = "m", *headers: str, **more: Any) -> Client:
        """A client that has just asked for a streamed chat."""
        client = await self.client(server)
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True} | more
        client.post("/v1/chat/completions", body, *headers)
        return client


class Process:
    """`streamgate serve` as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, admin: str) -> None:
        self.process = process
        self.url = url
        self.admin = admin
        self.lines: list[dict[str, Any]] = []

    def signal(self, which: signal.Signals) -> None:
        self.process.send_signal(which)

    async def exit(self, timeout: float = 10) -> int:  # noqa: ASYNC109
        """Wait for the end; the exit code. What was logged is in `lines`."""
        assert self.process.stdout is not None
        rest = await asyncio.wait_for(self.process.stdout.read(), timeout)
        self.lines += [json.loads(line) for line in rest.splitlines()]
        return await asyncio.wait_for(self.process.wait(), timeout)

    async def client(self) -> Client:
        host, port = self.url.removeprefix("http://").split(":")
        return Client(*await asyncio.open_connection(host, int(port)))

    async def chat(self, model: str) -> Client:
        client = await self.client()
        client.post("/v1/chat/completions", {"model": model, "messages": [], "stream": True})
        return client


@contextlib.asynccontextmanager
async def serving(
    *arguments: str, host: str = "127.0.0.1", environment: dict[str, str] | None = None, pass_fds: tuple[int, ...] = ()
) -> AsyncIterator[Process]:
    """Start it, wait until it is ready, and end it whatever happens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamgate", "serve", "--listen", f"{host}:0", "--admin", "127.0.0.1:0", *arguments,
        stdout=asyncio.subprocess.PIPE, env=os.environ | (environment or {}), limit=1 << 20, pass_fds=pass_fds,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        while True:
            line = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
            if line["event"] == "ready":
                break
        yield Process(process, line["url"], line["admin"])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


def delta(text: str = "", **more: Any) -> bytes:
    """One chat event; without text, a role-only one."""
    content = {"content": text} if text else {"role": "assistant", "content": ""}
    choice = {"index": 0, "delta": content, "finish_reason": None} | more
    event = {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


FINISH = delta(delta={}, finish_reason="stop")
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"CUDA out of memory","type":"server_error","param":null,"code":"oom"}}\n\n'
