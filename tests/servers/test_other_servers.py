"""The same streams under hypercorn (asyncio and trio), granian, daphne and Gunicorn's own worker, HTTP/1.1 and 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest

if TYPE_CHECKING:
    from servers.conftest import Listen, Serve, Server

HYPERCORN = ("hypercorn", "--bind", "127.0.0.1:PORT")
GRANIAN = ("granian", "--interface", "asgi", "--port", "PORT")
COMMANDS = {
    "hypercorn": HYPERCORN,
    "hypercorn-uvloop": (*HYPERCORN, "--worker-class", "uvloop"),
    "hypercorn-trio": (*HYPERCORN, "--worker-class", "trio"),
    "granian": GRANIAN,
    "daphne": ("daphne", "--port", "PORT"),
    "gunicorn": ("gunicorn", "--worker-class", "asgi", "--bind", "127.0.0.1:PORT", "--no-control-socket"),
}


# HTTP/2 by prior knowledge; daphne and Gunicorn have it over TLS only.
PEERS = [(name, "1.1") for name in COMMANDS] + [(name, "2") for name in COMMANDS if name not in {"daphne", "gunicorn"}]


class Peer(NamedTuple):
    """A running server, and which HTTP to speak to it."""

    server: Server
    http2: bool


@pytest.fixture(scope="module")
def running(serve: Serve, module: Callable[[str], None]) -> Iterator[Callable[[str], Server]]:
    """`running("granian")`: one server of each kind, started when it is first asked for."""
    servers: dict[str, Server] = {}
    with ExitStack() as stack:

        def started(name: str) -> Server:
            if name not in servers:
                module(name.partition("-")[0])
                servers[name] = stack.enter_context(serve(*COMMANDS[name], "streams:app"))
            return servers[name]

        yield started


@pytest.fixture(params=PEERS, ids="-http".join)
def peer(request: pytest.FixtureRequest, running: Callable[[str], Server], module: Callable[[str], None]) -> Peer:
    name, version = request.param
    if version == "2":
        module("h2")
    return Peer(running(name), version == "2")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A word for the lines about this test's stream."""
    return request.node.name.replace("[", "-").rstrip("]")


def test_events(peer: Peer, listen: Listen, name: str) -> None:
    """All events arrive, the body is whole, and that is what the account says."""
    with listen(f"{peer.server.url}/count", http2=peer.http2, to=50, name=name) as stream:
        assert stream.response.http_version == ("HTTP/2" if peer.http2 else "HTTP/1.1")
        assert stream.rest() == ([str(number) for number in range(1, 51)], True)
    assert peer.server.said(f"{name} was") == f"{name} was complete"
    assert f"{name} close callback" not in peer.server.output


def test_no_waiting(peer: Peer, listen: Listen, name: str) -> None:
    """An event is at the client while the stream has nothing more to say; and pings arrive in the silence."""
    with listen(f"{peer.server.url}/stream", http2=peer.http2, ping=0.1, name=name) as stream:
        assert stream.event().isdigit()
        assert all(stream.ping().startswith(": ping - ") for _ in range(3))


def test_disconnect(peer: Peer, listen: Listen, name: str) -> None:
    """A client that goes away ends the generator, and the close callback is called."""
    with listen(f"{peer.server.url}/stream", http2=peer.http2, name=name) as stream:
        assert stream.event()
    assert peer.server.said(f"{name} close callback").endswith("http.disconnect")
    assert peer.server.said(f"{name} ended by").rpartition(" ")[2] in {"CancelledError", "Cancelled"}
    assert peer.server.said(f"{name} was") == f"{name} was client_disconnect"


def test_head(peer: Peer, name: str) -> None:
    """HEAD gives the headers, and the content is never touched."""
    with httpx.Client(http1=not peer.http2, http2=peer.http2, timeout=5.0) as client:
        response = client.head(f"{peer.server.url}/stream", params={"name": name})
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert client.get(f"{peer.server.url}/pid").text.isdigit()
    assert f"{name} ended" not in peer.server.output


def test_connection_header(peer: Peer, listen: Listen) -> None:
    """`connection` is for HTTP/1.x: in HTTP/2 it would make the message malformed (RFC 9113, 8.2.2)."""
    with listen(f"{peer.server.url}/count", http2=peer.http2) as stream:
        assert stream.response.headers.get("connection") == (None if peer.http2 else "keep-alive")
        assert stream.response.headers["x-accel-buffering"] == "no"
        stream.rest()
