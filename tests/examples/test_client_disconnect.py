"""examples/client_disconnect.py"""

from __future__ import annotations

import socket
import struct

import httpx
import pytest


def seen_of(url, name):
    report = httpx.get(f"{url}/visits/{name}", timeout=15).json()
    assert report["over"]
    return report["seen"]


def test_a_waiting_generator_is_cancelled(running):
    """The client is told of, then the generator is cancelled where it waits, cleans up, and on_close comes last."""
    with running("client_disconnect", INTERVAL="3600") as url:
        with httpx.stream("GET", f"{url}/ticks/ann") as response:
            assert next(response.iter_raw()) == b"data: tick\r\n\r\n"
        assert seen_of(url, "ann") == [
            "close callback: http.disconnect",
            "cancelled",
            "cleaned up",
            "on_close: client_disconnect",
        ]


@pytest.mark.parametrize("rude", [False, True], ids=["close", "reset"])
def test_a_generator_at_its_yield_is_closed(running, rude):
    """A client that stops reading holds the generator at its yield; when it leaves, the generator is closed there."""
    with running("client_disconnect") as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET /flood/bob HTTP/1.1\r\nHost: example\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            if rude:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert seen_of(url, "bob") == [
            "close callback: http.disconnect",
            "closed at yield",
            "cleaned up",
            "on_close: client_disconnect",
        ]


def test_nobody_visits_without_a_stream(running):
    """Only what was streamed is reported."""
    with running("client_disconnect") as url:
        assert httpx.get(f"{url}/visits/nobody").status_code == 404


def test_on_close_runs_for_head_too(running):
    """HEAD starts no generator, so there is nothing to clean up, and on_close still runs."""
    with running("client_disconnect") as url:
        assert httpx.head(f"{url}/ticks/eve").status_code == 200
        assert seen_of(url, "eve") == ["on_close: complete"]
