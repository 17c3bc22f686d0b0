"""What both outlets share: the clocks of the client's side, and the one way in which a client is lost."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from streamgate.sse.clocks import NEVER, Clocks
from streamgate.sse.outlet import Farewell, Headers, Lost, OutletSettings, TimedOutlet
from tests.unit.sse.test_clocks import Bench


class Paper(TimedOutlet):
    """An outlet that writes into a list."""

    def __init__(self, settings: OutletSettings, clocks: Clocks) -> None:
        self.frames: list[bytes] = []
        self.aborted = 0
        super().__init__(settings, clocks)

    def start(self, status: int, headers: Headers) -> None:
        self.frames.append(b"%d %r" % (status, list(headers)))
        self.began()

    def write(self, frame: bytes, now: float) -> None:
        self.wrote_at = now
        self.frames.append(frame)

    def abort(self) -> None:
        self.aborted += 1


class Source:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench()
    monkeypatch.setattr("streamgate.sse.clocks.time", bench)
    monkeypatch.setattr("streamgate.sse.outlet.time", bench)
    return bench


def paper(bench: Bench, **settings: Any) -> Paper:
    return Paper(OutletSettings(**settings), Clocks(bench))  # type: ignore[arg-type]


def test_heartbeats_are_measured_from_the_last_byte(bench: Bench) -> None:
    """Each write puts the next one off, and the timer is not touched by it."""
    outlet = paper(bench, heartbeat=10, send=0)
    outlet.start(200, ())
    timers = len(bench.timers)
    for _ in range(300):
        bench.advance(0.1)
        outlet.write(b"x", bench.now)
    assert outlet.pings == 0
    assert len(bench.timers) - timers <= 4, "one look per heartbeat, not per write"
    bench.advance(10.1)
    assert outlet.pings == 1 and outlet.frames[-1] == b": ping\n"
    bench.advance(41)
    assert outlet.pings == 5


@pytest.mark.parametrize("settings", [{"heartbeat": 0}, {"ping": b""}])
def test_without_a_heartbeat_there_is_nothing_to_look_at(bench: Bench, settings: dict[str, Any]) -> None:
    """No pings, and no timer for them."""
    outlet = paper(bench, send=0, **settings)
    assert outlet.beats is False
    outlet.start(200, ())
    assert not bench.running
    bench.advance(100)
    assert outlet.pings == 0


@pytest.mark.parametrize("attribute", ["beats", "started", "ending"])
def test_pings_only_belong_into_a_running_stream_of_events(bench: Bench, attribute: str) -> None:
    """Not into another kind of body, not before the head, not once the last words were said."""
    outlet = paper(bench, heartbeat=1, send=0)
    if attribute != "started":
        outlet.start(200, ())
        setattr(outlet, attribute, attribute == "ending")
    bench.advance(5)
    assert outlet.pings == 0


def test_the_early_commit_comes_once(bench: Bench) -> None:
    """With its own headers, as 200, and heartbeats begin with it."""
    outlet = paper(bench, heartbeat=5, send=0, early_commit=3, early_headers=((b"a", b"b"),))
    bench.advance(2.9)
    assert not outlet.started
    bench.advance(0.2)
    assert outlet.started and outlet.frames == [b"200 [(b'a', b'b')]"]
    bench.advance(6)
    assert outlet.frames[1:] == [b": ping\n"]


def test_content_that_starts_first_needs_no_commit(bench: Bench) -> None:
    """Nor does one whose client is lost."""
    outlet = paper(bench, heartbeat=0, send=0, early_commit=3)
    outlet.start(404, ())
    lost = paper(bench, heartbeat=0, send=0, early_commit=3)
    lost.gone(Lost.CLOSED)
    bench.advance(10)
    assert outlet.frames == [b"404 []"] and lost.frames == []


def test_a_full_outlet_pauses_its_source_once(bench: Bench) -> None:
    """However often it is said, and resumes it once; the time between is noted."""
    outlet, source = paper(bench, heartbeat=0, send=30), Source()
    outlet.attach(source)
    assert source.told == []
    for _ in range(3):
        outlet.full()
        bench.advance(1)
    assert source.told == ["pause"]
    for _ in range(3):
        outlet.drained()
    assert source.told == ["pause", "resume"]
    assert outlet.blocked_for == pytest.approx(3)
    assert outlet.blocked_at == 0.0


def test_a_source_that_comes_late_is_paused_at_once(bench: Bench) -> None:
    """If the client does not drain at that moment; one that is taken away is told nothing more."""
    outlet, source = paper(bench, heartbeat=0, send=30), Source()
    outlet.full()
    outlet.attach(source)
    assert source.told == ["pause"]
    outlet.attach(None)
    outlet.drained()
    outlet.full()
    assert source.told == ["pause"]


def test_the_send_clock_runs_while_nothing_drains(bench: Bench) -> None:
    """A client that drained in time gets a new clock; one that did not is lost as slow, and its socket let go."""
    outlet = paper(bench, heartbeat=1, send=10)
    lost: list[Lost] = []
    outlet.on_lost(lost.append)
    outlet.start(200, ())
    outlet.full()
    bench.advance(9)
    outlet.drained()
    bench.advance(0.5)
    outlet.full()
    pings = outlet.pings
    bench.advance(9.9)
    assert lost == [] and outlet.aborted == 0
    assert outlet.pings == pings, "nothing more is written to one that does not read"
    bench.advance(0.2)
    assert (lost, outlet.aborted, outlet.lost) == ([Lost.SLOW], 1, Lost.SLOW)
    bench.advance(100)
    assert outlet.aborted == 1 and not bench.running


def test_without_a_send_clock_one_may_wait_for_ever(bench: Bench) -> None:
    """0 turns it off."""
    outlet = paper(bench, heartbeat=1, send=0)
    outlet.start(200, ())
    outlet.full()
    bench.advance(100000)
    assert outlet.lost is None and outlet.pings == 0


def test_the_first_loss_stands(bench: Bench) -> None:
    """It is told once, and to whoever asks later at once."""
    outlet = paper(bench)
    told: list[Lost] = []
    outlet.on_lost(told.append)
    outlet.gone(Lost.CLOSED)
    outlet.gone(Lost.SLOW)
    assert (told, outlet.lost) == ([Lost.CLOSED], Lost.CLOSED)
    outlet.on_lost(told.append)
    assert told == [Lost.CLOSED] * 2
    outlet.on_lost(None)


def test_a_closed_outlet_is_referred_to_by_nobody(bench: Bench) -> None:
    """It dies with its last reference, and refers to nobody: neither source nor callback is kept alive."""
    outlet, source = paper(bench, heartbeat=10, send=10, early_commit=5), Source()
    seen = weakref.ref(source)
    outlet.attach(source)
    outlet.on_lost(lambda _, kept=source: kept.pause())
    outlet.close()
    del source
    assert seen() is None
    outlet.close()
    outlet.full()
    gone = weakref.ref(outlet)
    gc.disable()
    try:
        del outlet
        assert gone() is None
    finally:
        gc.enable()
    bench.advance(100)


def test_the_base_writes_nothing(bench: Bench) -> None:
    """Each outlet says for itself how bytes leave."""
    bare = TimedOutlet(OutletSettings(), Clocks(bench))  # type: ignore[arg-type]
    for call in (lambda: bare.start(200, ()), lambda: bare.write(b"", 0.0), bare.abort):
        with pytest.raises(NotImplementedError):
            call()


def test_nothing_is_due_for_one_that_is_lost(bench: Bench) -> None:
    """A look at it asks for no other."""
    outlet = paper(bench, heartbeat=1)
    outlet.start(200, ())
    outlet.gone(Lost.CLOSED)
    assert outlet.look(bench.now + 100) == NEVER
    assert outlet.pings == 0


def test_the_defaults_are_the_contracts() -> None:
    """15 s, 30 s, no early commit, and the one ping that all clients survive; a farewell says nothing and is whole."""
    assert OutletSettings() == OutletSettings(heartbeat=15, send=30, early_commit=None, ping=b": ping\n")
    assert Farewell() == Farewell(None, whole=True)
