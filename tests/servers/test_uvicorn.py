"""Streams under uvicorn from the command line: every way in which it ends or replaces itself ends them too."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from servers.conftest import Listen, Serve

PROMPTLY = 1.0  # s; uvicorn looks at its flag every 0.1 s, and nobody else should have to wait for anything
UVICORN = ("uvicorn", "--port", "PORT", "--no-access-log")

Clock = Callable[[], float]
Becomes = Callable[..., None]


@pytest.mark.parametrize(
    "loop, http, number",
    [
        ("uvloop", "httptools", signal.SIGTERM),
        ("asyncio", "h11", signal.SIGTERM),
        ("uvloop", "h11", signal.SIGINT),
        ("asyncio", "httptools", signal.SIGINT),
    ],
)
def test_signal(serve: Serve, listen: Listen, clock: Clock, loop: str, http: str, number: signal.Signals) -> None:
    """At SIGTERM and SIGINT an endless stream is ended at once, and the server exits."""
    with (
        serve(*UVICORN, "--loop", loop, "--http", http, "streams:app") as server,
        listen(f"{server.url}/stream") as stream,
    ):
        assert stream.event()
        clock()
        server.signal(number)
        assert stream.rest() == ([], False)
        assert clock() < PROMPTLY
        assert server.said("stream was") == "stream was shutdown"
        assert server.said("stream ended by") == "stream ended by CancelledError"
        assert server.ended(within=PROMPTLY) in {0, -number}
        assert "close callback" not in server.output and "Traceback" not in server.output


def test_imported_late(serve: Serve, listen: Listen, clock: Clock) -> None:
    """It does not matter that the library was imported long after the server began."""
    with serve(*UVICORN, "--factory", "late:create") as server, listen(f"{server.url}/stream") as stream:
        assert stream.event() == "one"
        clock()
        server.signal(signal.SIGTERM)
        assert stream.rest() == ([], False)
        assert clock() < PROMPTLY
        server.ended(within=PROMPTLY)
        assert "Traceback" not in server.output


def test_workers(serve: Serve, listen: Listen, clock: Clock) -> None:
    """With several workers the streams of each are ended."""
    with ExitStack() as stack:
        server = stack.enter_context(serve(*UVICORN, "--workers", "2", "streams:app"))
        streams, workers = [], set()
        while len(workers) < 2 and len(streams) < 40:  # the kernel decides who accepts
            streams.append(stack.enter_context(listen(f"{server.url}/stream")))
            workers.add(streams[-1].event())
        assert len(workers) == 2
        clock()
        server.signal(signal.SIGTERM)
        assert [stream.rest() for stream in streams] == [([], False)] * len(streams)
        assert clock() < 2 * PROMPTLY  # the supervisor ends one worker after the other
        server.ended(within=2 * PROMPTLY)
        assert server.output.count("stream was shutdown") == len(streams)


def test_reload(serve: Serve, listen: Listen, becomes: Becomes, tmp_path: Path) -> None:
    """A changed file ends the streams of the old worker, and the new one serves."""
    source = tmp_path / "reloaded.py"
    source.write_text("from streams import app\n")
    command = (*UVICORN, "--reload", "--reload-delay", "0.05", "--reload-dir", str(tmp_path), "reloaded:app")
    with serve(*command, PYTHONPATH=str(tmp_path)) as server:
        with listen(f"{server.url}/stream") as stream:
            old = stream.event()
            os.utime(source, (1e9, 1e9))
            os.utime(source)
            assert stream.rest() == ([], False)
            assert server.said("stream was") == "stream was shutdown"
        with listen(f"{server.url}/stream") as stream:
            assert stream.event() != old
            server.signal(signal.SIGTERM)
            assert stream.rest() == ([], False)
        server.ended(within=2 * PROMPTLY)


def test_request_limit(serve: Serve, listen: Listen) -> None:
    """A server that ends after so many requests ends its streams, though nobody sent it a signal."""
    command = (*UVICORN, "--limit-max-requests", "1", "streams:app")
    with serve(*command) as server, listen(f"{server.url}/stream") as stream:
        assert httpx.get(f"{server.url}/pid").text == stream.event()
        assert stream.rest() == ([], False)
        assert server.ended(within=PROMPTLY) == 0
        assert "stream was shutdown" in server.output


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_middleware(serve: Serve, listen: Listen, http: str) -> None:
    """Whatever middleware is in between: whole when complete, cleaned up when the client goes, ended at SIGTERM."""
    kinds = ("bare", "base", "gzip", "wrapping")
    with ExitStack() as stack:
        server = stack.enter_context(serve(*UVICORN, "--http", http, "streams:layered"))
        for kind in kinds:
            with listen(f"{server.url}/{kind}/count", name=f"{kind} first", to=20) as stream:
                assert stream.rest() == ([str(number) for number in range(1, 21)], True)
            assert server.said(f"{kind} first was").endswith("complete")
            with listen(f"{server.url}/{kind}/stream", name=f"{kind} second", ping=0.1) as stream:
                assert stream.event() and stream.ping()
            assert server.said(f"{kind} second close callback").endswith("http.disconnect")
            assert server.said(f"{kind} second was").endswith("client_disconnect")
        third = {
            kind: stack.enter_context(listen(f"{server.url}/{kind}/stream", name=f"{kind} third", farewell="bye"))
            for kind in kinds
        }
        assert all(stream.event() for stream in third.values())
        server.signal(signal.SIGTERM)
        assert [stream.rest() for stream in third.values()] == [(["bye"], True)] * len(kinds)
        server.ended(within=PROMPTLY)
        assert all(f"{kind} third was shutdown" in server.output for kind in kinds)
        assert "first close callback" not in server.output and "Traceback" not in server.output
