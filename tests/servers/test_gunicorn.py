"""Streams under Gunicorn with uvicorn's worker class."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from servers.conftest import Listen, Serve, Server

GUNICORN = ("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:PORT", "--no-control-socket")


@pytest.fixture
def gunicorn(serve: Serve, module: Callable[[str], None], request: pytest.FixtureRequest) -> Iterator[Server]:
    """Gunicorn with the options of the test's `indirect` parameter."""
    module("gunicorn")
    module("uvicorn_worker")
    with serve(*GUNICORN, *getattr(request, "param", ()), "streams:app") as server:
        yield server


def test_sigterm(gunicorn: Server, listen: Listen, clock: Callable[[], float]) -> None:
    """SIGTERM to the master ends the workers' streams at once."""
    with listen(f"{gunicorn.url}/stream") as stream:
        assert stream.event()
        clock()
        gunicorn.signal(signal.SIGTERM)
        assert stream.rest() == ([], False)
        assert clock() < 1.0
        assert gunicorn.ended(within=2.0) == 0
        assert "stream was shutdown" in gunicorn.output


@pytest.mark.parametrize("gunicorn", [("--max-requests", "1")], indirect=True)
def test_max_requests(gunicorn: Server, listen: Listen) -> None:
    """A worker that has served its requests ends its streams, and the next one's live."""
    with listen(f"{gunicorn.url}/stream") as stream:
        old = stream.event()
        assert httpx.get(f"{gunicorn.url}/pid").text == old
        assert stream.rest() == ([], False)
        assert gunicorn.said("stream was") == "stream was shutdown"
    with listen(f"{gunicorn.url}/stream", name="second", ping=0.1) as stream:
        assert stream.event() != old
        assert stream.ping().startswith(": ping")
    assert gunicorn.said("second was") == "second was client_disconnect"
