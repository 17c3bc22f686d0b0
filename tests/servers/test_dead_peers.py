"""A client that never reads: `send_timeout` frees the server's socket and what is buffered for it."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from servers.conftest import Listen, Serve

TIMEOUT = 1.0  # s; what /flood asks for
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST
HYPERCORN = ("hypercorn", "--bind", "127.0.0.1:PORT")
KINDS = ("bare", "base", "gzip", "wrapping")  # of middleware
GRANIAN = ("granian", "--interface", "asgi", "--port", "PORT")
NOBODY = "0"
Becomes = Callable[..., None]


def server_side(port: int, peer: int) -> str | None:
    """The inode of the server's socket for this client; NOBODY: no process has it (yet, or any more); None: gone."""
    pattern = rf": 0100007F:{port:04X} 0100007F:{peer:04X} \S+ \S+ \S+ \S+ +\d+ +\d+ (\d+)"
    found = re.search(pattern, Path("/proc/net/tcp").read_text())
    return found[1] if found else None


def descriptors(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed while we look
            inodes.add(descriptor.readlink().name.removeprefix("socket:[").removesuffix("]"))
    return inodes


@contextlib.contextmanager
def never_reading(port: int, path: str = "/flood", headers: str = "") -> Iterator[socket.socket]:
    """A client with a small receive buffer that has asked for a flood."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(5.0)
        client.connect(("127.0.0.1", port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        yield client


def is_cut(client: socket.socket) -> bool:
    """Whether what is left to read ends without the last chunk: by FIN or by RST."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.recv(1 << 20):
            received = (received + chunk)[-64:]
    return not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_freed(serve: Serve, becomes: Becomes, http: str) -> None:
    """Two seconds after the timeout at the latest the descriptor is closed, whatever middleware is in between."""
    loop = "asyncio" if http == "h11" else "uvloop"
    command = ("uvicorn", "--port", "PORT", "--http", http, "--loop", loop, "streams:layered")
    with ExitStack() as stack:
        server = stack.enter_context(serve(*command))
        clients, inodes = {}, {}
        for kind in KINDS:
            client = stack.enter_context(never_reading(server.port, f"/{kind}/flood?name={kind}"))
            peer = client.getsockname()[1]
            becomes(lambda peer=peer: server_side(server.port, peer) not in {None, NOBODY}, within=1.0)
            clients[kind], inodes[kind] = client, server_side(server.port, peer)
        assert set(inodes.values()) <= descriptors(server.pid)
        for kind in KINDS:
            becomes(lambda inode=inodes[kind]: inode not in descriptors(server.pid), within=TIMEOUT + 2.0)
            assert server.said(f"{kind} was") == f"{kind} was send_timeout"
            assert server.said(f"{kind} ended by").rpartition(" ")[2] in {"GeneratorExit", "CancelledError"}
            assert is_cut(clients[kind])


def test_only_the_dead(serve: Serve, listen: Listen) -> None:
    """Behind a proxy many connections have the same client in their scope; only the one that is stuck is dropped."""
    forwarded = {"x-forwarded-for": "192.0.2.1"}
    with serve("uvicorn", "--port", "PORT", "streams:layered") as server, ExitStack() as stack:
        url = f"{server.url}/wrapping/stream"
        streams = [stack.enter_context(listen(url, headers=forwarded, ping=0.1)) for _ in range(8)]
        assert all(stream.event() for stream in streams)
        with never_reading(server.port, "/wrapping/flood", "X-Forwarded-For: 192.0.2.1\r\n"):
            assert server.said("flood was") == "flood was send_timeout"
            for stream in streams:
                assert all(stream.ping().startswith(": ping") for _ in range(15))


def test_nothing_left_in_the_kernel(serve: Serve, becomes: Becomes) -> None:
    """The connection is reset: what the client has not read is not kept for it by the kernel either."""
    with serve("uvicorn", "--port", "PORT", "streams:app") as server, never_reading(server.port) as client:
        peer = client.getsockname()[1]
        becomes(lambda: server_side(server.port, peer), within=1.0)
        server.said("flood was")
        becomes(lambda: server_side(server.port, peer) is None, within=1.0)


@pytest.mark.parametrize("command", [HYPERCORN, GRANIAN], ids=["hypercorn", "granian"])
def test_noticed(serve: Serve, module: Callable[[str], None], command: tuple[str, ...]) -> None:
    """Where the server hides its connection the stream is ended all the same; the socket is for the server to close."""
    module(command[0])
    with serve(*command, "streams:app") as server, never_reading(server.port):
        assert server.said("flood was") == "flood was send_timeout"
        assert server.said("flood ended by")
        assert server.said("SendTimeoutError: a send took longer than 1 s")


def test_shielded(serve: Serve, module: Callable[[str], None]) -> None:
    """hypercorn on trio shields its sends: the stream ends when the peer is gone, and then tells the first reason."""
    module("hypercorn")
    with serve(*HYPERCORN, "--worker-class", "trio", "streams:app") as server:
        with never_reading(server.port) as client:
            server.said("flood overdue")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        assert server.said("flood was") == "flood was send_timeout"
        assert server.said("SendTimeoutError: a send took longer than 1 s")
        assert "ExceptionGroup" not in server.output
