"""What hypercorn, granian, daphne and Gunicorn's own worker do to an endless stream at SIGTERM, and what helps.

None of them tells the application before it waits for its streams; docs/sse.md has the table.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from servers.conftest import Listen, Serve

Clock = Callable[[], float]

PROMPTLY = 1.0
GUNICORN = ("gunicorn", "--worker-class", "asgi", "--bind", "127.0.0.1:PORT", "--no-control-socket")
GRANIAN = ("granian", "--interface", "asgi", "--port", "PORT")

# Before its graceful timeout begins hypercorn awaits asyncio's `Server.wait_closed`, which since Python 3.12 waits for
# connections too: an endless stream is never ended.
WAITS_FOR_EVER = pytest.mark.skipif(sys.version_info >= (3, 12), reason="hypercorn waits for ever on Python 3.12")


@pytest.mark.parametrize("worker", [pytest.param("asyncio", marks=WAITS_FOR_EVER), "uvloop", "trio"])
def test_hypercorn(serve: Serve, listen: Listen, clock: Clock, module: Callable[[str], None], worker: str) -> None:
    """hypercorn lets streams run for its graceful timeout (3 s unless set) and then cancels them."""
    module("hypercorn")
    command = ("hypercorn", "--bind", "127.0.0.1:PORT", "--worker-class", worker, "--graceful-timeout", "1")
    with serve(*command, "streams:app") as server, listen(f"{server.url}/stream", farewell="bye") as stream:
        assert stream.event()
        clock()
        server.signal(signal.SIGTERM)
        assert stream.rest() == ([], False)
        assert 0.9 < clock() < 1.0 + PROMPTLY
        assert server.said("stream was") == "stream was cancelled"
        assert server.ended(within=PROMPTLY) == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_hypercorn_with_a_trigger(
    serve: Serve, listen: Listen, clock: Clock, module: Callable[[str], None], backend: str
) -> None:
    """With hypercorn as a library the shutdown trigger ends the streams first, farewell and all."""
    module("hypercorn")
    with (
        serve("own_hypercorn", backend, "PORT") as server,
        listen(f"{server.url}/stream", farewell="bye") as stream,
        listen(f"{server.url}/stream", name="polite", manner="polite", grace=2) as polite,
    ):
        assert stream.event() and polite.event()
        clock()
        server.signal(signal.SIGTERM)
        assert stream.rest() == (["bye"], True)
        assert polite.rest() == (["goodbye"], True)
        assert clock() < PROMPTLY
        assert server.said("stream was") == "stream was shutdown"
        assert server.said("polite was") == "polite was complete"
        assert server.ended(within=PROMPTLY) == 0
        assert "Traceback" not in server.output


def test_granian(serve: Serve, listen: Listen, clock: Clock, module: Callable[[str], None]) -> None:
    """granian waits for streams without a limit; with `--workers-kill-timeout` it kills the worker, cleanup or not."""
    module("granian")
    with (
        serve(*GRANIAN, "--workers-kill-timeout", "1", "streams:app") as server,
        listen(f"{server.url}/stream", ping=0.2) as stream,
    ):
        assert stream.event()
        clock()
        server.signal(signal.SIGTERM)
        assert stream.rest() == ([], False)
        assert 0.9 < clock() < 1.0 + PROMPTLY
        assert stream.pings >= 3
        server.ended(within=PROMPTLY)
        assert "stream ended" not in server.output


@pytest.mark.parametrize("command", [GRANIAN, GUNICORN], ids=["granian", "gunicorn"])
def test_group(
    serve: Serve, listen: Listen, clock: Clock, module: Callable[[str], None], command: tuple[str, ...]
) -> None:
    """With a group that the application's own SIGTERM ends, streams end before the server's wait begins."""
    module(command[0])
    with (
        serve(*command, "streams:app", DRAIN="at sigterm") as server,
        listen(f"{server.url}/stream", drain=1, farewell="bye") as stream,
    ):
        assert stream.event()
        clock()
        server.signal(signal.SIGTERM)
        assert stream.rest() == (["bye"], True)
        assert clock() < PROMPTLY
        assert server.said("stream was") == "stream was shutdown"
        assert server.ended(within=3 * PROMPTLY) == 0


def test_daphne(serve: Serve, listen: Listen, clock: Clock, module: Callable[[str], None]) -> None:
    """daphne cancels its streams at once: cleanup runs, nothing can be said any more."""
    module("daphne")
    with (
        serve("daphne", "--port", "PORT", "streams:app") as server,
        listen(f"{server.url}/stream", manner="polite", grace=5, farewell="bye") as stream,
    ):
        assert stream.event()
        clock()
        server.signal(signal.SIGTERM)
        assert stream.rest() == ([], False)
        assert clock() < PROMPTLY
        assert server.ended(within=PROMPTLY) == 0
        assert "stream ended by CancelledError" in server.output
        assert "stream was cancelled" in server.output
