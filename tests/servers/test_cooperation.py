"""A shutdown that asks first: the event, the grace period, the farewell, and who may say when."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest

if TYPE_CHECKING:
    from servers.conftest import Listen, Listener, Serve, Server

GRACE = 0.5  # s
PROMPTLY = 0.4  # s beyond what was asked for

# The query of each kind of stream.
KINDS: dict[str, dict[str, object]] = {
    "neither": {},
    "polite": {"manner": "polite", "grace": 5},
    "polite, no grace": {"manner": "polite"},
    "deaf": {"manner": "deaf", "grace": GRACE},
    "grace alone": {"grace": GRACE},
    "farewell": {"farewell": "see you"},
    "deaf, farewell": {"manner": "deaf", "grace": GRACE, "farewell": "see you"},
    "polite, farewell": {"manner": "polite", "grace": 5, "farewell": "see you"},
}


class End(NamedTuple):
    """What the client had after SIGTERM, and when."""

    events: list[str]
    whole: bool
    after: float


@pytest.fixture(scope="module")
def ends(serve: Serve, listen: Listen, ended_together: Callable[..., dict[str, End]]) -> Iterator[dict[str, End]]:
    """One server with a stream of each kind, and what became of them at one SIGTERM."""
    with ExitStack() as stack:
        server: Server = stack.enter_context(serve("uvicorn", "--port", "PORT", "streams:app"))
        streams: dict[str, Listener] = {}
        for kind, query in KINDS.items():
            streams[kind] = stack.enter_context(listen(f"{server.url}/stream", name=f"[{kind}]", **query))
            assert streams[kind].event()
        ended = ended_together(streams, lambda: server.signal(signal.SIGTERM))
        server.ended(within=2.0)
        for kind in KINDS:
            by_itself = kind in {"polite", "polite, farewell"}
            assert server.said(f"[{kind}] was").endswith("complete" if by_itself else "shutdown")
        assert "Traceback" not in server.output
        yield {kind: End(*end) for kind, end in ended.items()}


def test_neither(ends: dict[str, End]) -> None:
    """Without grace and farewell the body is cut at once: the client must not take it for a success."""
    assert ends["neither"][:2] == ([], False)
    assert ends["neither"].after < PROMPTLY


def test_polite(ends: dict[str, End]) -> None:
    """A generator that ends by itself within the grace period has said all it wanted, and the body is whole."""
    assert ends["polite"][:2] == (["goodbye"], True)
    assert ends["polite"].after < PROMPTLY


def test_no_grace(ends: dict[str, End]) -> None:
    """The event without a grace period comes too late for any words."""
    assert ends["polite, no grace"][:2] == ([], False)
    assert ends["polite, no grace"].after < PROMPTLY


@pytest.mark.parametrize("kind", ["deaf", "grace alone"])
def test_deaf(ends: dict[str, End], kind: str) -> None:
    """A generator that does not listen is cancelled when the grace period is over."""
    assert ends[kind][:2] == ([], False)
    assert GRACE - 0.05 <= ends[kind].after < GRACE + PROMPTLY


def test_farewell(ends: dict[str, End]) -> None:
    """The farewell is the last event of a body that ends whole."""
    assert ends["farewell"][:2] == (["see you"], True)
    assert ends["farewell"].after < PROMPTLY


def test_farewell_of_the_deaf(ends: dict[str, End]) -> None:
    """The farewell is said for a generator that had to be cancelled."""
    assert ends["deaf, farewell"][:2] == (["see you"], True)
    assert GRACE - 0.05 <= ends["deaf, farewell"].after < GRACE + PROMPTLY


def test_farewell_after_own_words(ends: dict[str, End]) -> None:
    """A generator that ended by itself in the grace period has said goodbye already; what it said is whole."""
    events, whole, after = ends["polite, farewell"]
    assert events[0] == "goodbye" and whole
    assert after < PROMPTLY


def test_by_hand(serve: Serve, listen: Listen) -> None:
    """With the automatic drain disabled streams outlive SIGTERM, until `AppStatus.should_exit` is set by any thread."""
    with (
        serve("uvicorn", "--port", "PORT", "streams:app", DRAIN="by hand") as server,
        listen(f"{server.url}/stream", ping=0.1) as stream,
    ):
        assert stream.event()
        server.signal(signal.SIGTERM)
        server.said("Waiting for connections to close")
        assert all(stream.ping().startswith(": ping") for _ in range(3))
        server.signal(signal.SIGUSR1)
        assert stream.rest() == ([], False)
        server.ended(within=1.0)
        assert "stream was shutdown" in server.output


def test_drain_of_ones_own(serve: Serve, listen: Listen) -> None:
    """A `StreamGroup` that was handed in is asked in place of the server; the application's own signal ends it."""
    with (
        serve("uvicorn", "--port", "PORT", "streams:app", DRAIN="at sigterm") as server,
        listen(f"{server.url}/stream", drain=1, farewell="bye") as stream,
    ):
        assert stream.event()
        server.signal(signal.SIGTERM)
        assert stream.rest() == (["bye"], True)
        server.ended(within=1.0)
        assert "stream was shutdown" in server.output


def test_drain_before_the_server_ends(serve: Serve, listen: Listen) -> None:
    """A group can be ended while the server goes on; those who come later are ended at once, others are not."""
    with serve("uvicorn", "--port", "PORT", "streams:app") as server:
        with (
            listen(f"{server.url}/stream", drain=1, name="grouped", farewell="bye") as grouped,
            listen(f"{server.url}/stream", ping=0.1) as other,
        ):
            assert grouped.event() and other.event()
            assert httpx.get(f"{server.url}/drop").text == "dropped"
            assert grouped.rest() == (["bye"], True)
            with listen(f"{server.url}/stream", drain=1, name="late", farewell="bye") as late:
                assert late.rest()[0][-1:] == ["bye"]
            assert all(other.ping().startswith(": ping") for _ in range(3))
        assert server.said("grouped was") == "grouped was shutdown"
        assert server.said("late was") == "late was shutdown"


def test_drain_in_the_lifespan_is_too_late(serve: Serve, listen: Listen) -> None:
    """uvicorn waits for the streams before it ends the lifespan, so a group ended there needs a limit on that wait."""
    limit = ("--timeout-graceful-shutdown", "1")
    with (
        serve("uvicorn", "--port", "PORT", *limit, "streams:app", DRAIN="in lifespan") as server,
        listen(f"{server.url}/stream", drain=1, farewell="bye") as stream,
    ):
        assert stream.event()
        server.signal(signal.SIGTERM)
        assert stream.rest() == ([], False)
        server.ended(within=2.0)
        assert "stream was cancelled" in server.output
