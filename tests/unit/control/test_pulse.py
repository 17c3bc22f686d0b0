"""The live page's feed: what one second of a gateway looks like, made once for all who watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
import pytest
from structlog.testing import CapturingLogger

from streamgate import errors
from streamgate.control.admitting import Limits
from streamgate.control.health import Health
from streamgate.control.pulse import BAD_ENDINGS, COLUMNS, FIRSTS, INTERVAL, KEPT, Pulse
from streamgate.control.snapshot import LIMITS, ROWS, Scene, ending_row, quantile, reason
from streamgate.drain import Drain
from streamgate.observe import Observer, Readings
from streamgate.observe.tally import Slots, StoreReadings
from streamgate.record import Ending, Outcome, Phase, StreamRecord
from streamgate.relay.targets import Target, Targets
from streamgate.routing.ejection import Ejections
from streamgate.sse.clocks import clocks_of
from streamgate.upstream.client import PoolSettings, Upstreams, origin_of


class Clock:
    """A time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Client:
    """A client's side that does not drain."""

    pings = 0
    blocked_for = 0.0
    blocked_at = 990.0
    buffered = 70_000


class Staged:
    """A pulse before an observer whose streams the test writes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.observer = Observer(log=CapturingLogger(), stall=10.0)
        origin = origin_of("gpu-a", "http://127.0.0.1:1", ca_file=None, verify=True, idle=4.0)
        self.ejections = Ejections(["gpu-a", "gpu-b"])
        targets = {name: Target(name=name, origin=origin) for name in ("gpu-a", "gpu-b")}
        drain = Drain()
        scene = Scene(
            observer=self.observer,
            drain=drain,
            health=Health(drain, started=True),
            running={},
            targets=Targets(targets, self.ejections),
            upstreams=Upstreams(PoolSettings()),
            limits=Limits(concurrent=500, queue=20),
        )
        self.pulse = Pulse(scene, self.clock, lambda: 1_700_000_000.0)

    def record(self, name: str, *, quiet: float = 0.0, phase: Phase = Phase.STREAMING) -> StreamRecord:
        """A live stream that said something `quiet` seconds ago, 2 s after it came and 20 s before now at the least."""
        observed = self.observer.stream()
        self.observer.began(observed)
        record = observed.record
        record.request_id, record.model, record.stream, record.phase = name, "llama", True, phase
        record.t_received = record.t_read = self.clock.now - 20 - quiet
        record.upstream, record.events = "gpu-a", 41
        self.observer.started(record)
        record.t_leased = record.t_received
        if phase is Phase.STREAMING:
            record.t_first, record.t_last = record.t_received + 2, self.clock.now - quiet
        return record

    def end(self, record: StreamRecord, ending: Ending) -> None:
        record.ending, record.t_end = ending, self.clock.now
        self.observer.ended(self.observer.live[record], None)

    def beat(self) -> dict[str, object]:
        """A second later; the state of things by name, and the sample by column."""
        self.clock.now += INTERVAL
        self.pulse.beat(self.clock.now)
        seen = self.pulse.snapshot(self.clock.now)
        return seen | {"sample": dict(zip(COLUMNS, seen["sample"], strict=True))}


@pytest.fixture
def staged() -> Callable[[], Staged]:
    return Staged


pytestmark = pytest.mark.anyio


async def test_the_snapshot_says_how_the_gateway_is(staged):
    """State, limits, and each upstream with its health and circuit."""
    stage = staged()
    for _ in range(5):
        stage.ejections.failed("gpu-a", stage.clock.now)
    stage.ejections.failed("gpu-b", stage.clock.now)
    seen = stage.beat()
    assert (seen["phase"], seen["ready"], seen["limit"], seen["queue_limit"]) == ("serving", True, 500, 20)
    assert seen["uptime_s"] == 1.0
    upstreams = {up["name"]: (up["health"], up["circuit"], up["failures"], up["ejected_s"]) for up in seen["upstreams"]}
    assert upstreams == {"gpu-a": ("ejected", "open", 5, 29.0), "gpu-b": ("failing", "closed", 1, 0.0)}


async def test_the_fullest_limits_come_first_and_what_is_wrong_is_named(staged):
    """Slots where there is a limit, at most so many; who waits by class; shedding, and a store that is away."""
    stage = staged()
    stage.observer.readings = lambda: Readings(
        slots=[Slots("global", "gateway", 40, 500), Slots("upstream", "gpu-b", 3, 0)]
        + [Slots("model", f"m{number}", 1 + number % 2, 2) for number in range(LIMITS)],
        waiting={"interactive": 0, "batch": 4}, oldest_waiting=2.34, overloaded={"lag": True, "memory": False},
        store=StoreReadings(up=False),
    )  # fmt: skip
    seen = stage.beat()
    assert len(seen["slots"]) == LIMITS
    assert seen["slots"][0] == {"level": "model", "name": "m1", "used": 2, "limit": 2}
    assert {row["used"] for row in seen["slots"][LIMITS // 2 :]} == {1}
    assert (seen["waiting"], seen["longest_wait_s"]) == ({"interactive": 0, "batch": 4}, 2.3)
    assert seen["troubles"] == ["lag", "store"]
    stage.observer.readings = Readings
    seen = stage.beat()
    assert seen["slots"] == seen["troubles"] == [] and seen["waiting"] == {}


async def test_the_stalled_come_first_and_then_the_quietest(staged):
    """Silence of the upstream's makes a stalled stream; a client that takes nothing does not."""
    stage = staged()
    stage.record("busy")
    stage.record("waiting", phase=Phase.WAITING).t_leased = stage.clock.now - 5
    stage.record("stuck", quiet=30)
    slow = stage.record("slow", quiet=50)
    slow.outlet = Client()
    seen = stage.beat()
    rows = {row["id"]: row for row in seen["streams"]}
    assert list(rows) == ["stuck", "slow", "waiting", "busy"]
    assert seen["stalled"] == 1 and rows["stuck"]["stalled"] and not rows["slow"]["stalled"]
    assert (rows["slow"]["blocked_s"], rows["slow"]["buffered"]) == (11.0, 70_000)
    assert rows["busy"] == {
        "id": "busy", "phase": "streaming", "stalled": False, "age_s": 21.0, "model": "llama", "upstream": "gpu-a",
        "attempts": 0, "ttft_ms": 2000.0, "chunks": 41, "chunks_per_s": 2.2, "quiet_s": 1.0, "buffered": 0,
        "blocked_s": None,
    }  # fmt: skip
    assert rows["waiting"]["ttft_ms"] is rows["waiting"]["chunks_per_s"] is rows["waiting"]["quiet_s"] is None


async def test_a_long_table_is_cut_and_says_so(staged):
    """At most 200 rows, and how many there are."""
    stage = staged()
    for number in range(ROWS + 5):
        stage.record(str(number))
    stage.record("stuck", quiet=60)
    seen = stage.beat()
    assert (len(seen["streams"]), seen["total"], seen["active"]) == (ROWS, ROWS + 6, ROWS + 6)
    assert seen["streams"][0]["id"] == "stuck"


async def test_a_sample_holds_what_happened_since_the_last(staged):
    """Rates per second, live streams included; what ended in between counts like the rest."""
    stage = staged()
    stage.beat()
    first, second = stage.record("a"), stage.record("b")
    first.t_first = second.t_first = stage.clock.now + 0.5
    first.t_read, second.t_read = stage.clock.now + 0.4, stage.clock.now + 0.2
    stage.end(second, Ending.by(errors.Truncated("secret words of an upstream")))
    assert stage.beat()["sample"] == {
        "at": 1_700_000_000.0, "active": 1, "starts": 2.0, "ttft_p50": 300.0, "ttft_p95": 300.0, "chunks": 82.0,
        "errors": 1.0,
    }  # fmt: skip
    first.events += 7
    quiet = stage.beat()["sample"]
    assert (quiet["starts"], quiet["chunks"], quiet["errors"]) == (0.0, 7.0, 0.0)
    assert quiet["ttft_p50"] == 300.0, "first tokens are told over ten seconds"
    for _ in range(10):
        last = stage.beat()["sample"]
    assert last["ttft_p50"] is None


async def test_bad_endings_are_kept_latest_first_with_the_code_and_nothing_more(staged):
    """The fault's code, never an upstream's own words; good endings and clients that leave are no news."""
    stage = staged()
    stage.end(stage.record("good"), Ending(Outcome.COMPLETED))
    stage.end(stage.record("left"), Ending(Outcome.CLIENT_CLOSED))
    stage.end(stage.record("cut"), Ending.by(errors.Truncated("secret words of an upstream")))
    stage.end(stage.record("killed"), Ending.by(errors.Killed()))
    seen = stage.beat()
    assert [(row["id"], row["outcome"], row["reason"]) for row in seen["endings"]] == [
        ("killed", "killed", "killed"),
        ("cut", "truncated", "upstream_truncated"),
    ]
    assert seen["endings"][1]["at"] == 1_700_000_000.0
    assert b"secret" not in orjson.dumps(seen)
    for number in range(BAD_ENDINGS + 3):
        stage.end(stage.record(str(number)), Ending.by(errors.Reset()))
    assert len(stage.beat()["endings"]) == BAD_ENDINGS


async def test_memory_is_bounded_whatever_happens(staged):
    """Ten minutes of samples; first tokens of one second up to a number; nothing once it is closed."""
    stage = staged()
    for _ in range(KEPT + 2):
        stage.clock.now += 1
        stage.pulse.beat(stage.clock.now)
    assert len(stage.pulse.samples) == KEPT
    for number in range(FIRSTS + 2):
        record = stage.record(str(number))
        record.t_first = stage.clock.now + 0.1
        stage.end(record, Ending(Outcome.COMPLETED))
    stage.beat()
    assert len(stage.pulse._firsts[-1]) == FIRSTS
    stage.pulse.close()
    stage.pulse.close()
    assert stage.observer.on_ended is None
    stage.end(stage.record("late"), Ending.by(errors.Reset()))


async def test_viewers_share_one_snapshot_and_it_is_made_only_for_them(staged):
    """Nobody watching: a sample and nothing else. Two watching: the same bytes, made once."""
    stage = staged()
    made = []
    snapshot = stage.pulse.snapshot
    stage.pulse.snapshot = lambda now: made.append(now) or snapshot(now)
    stage.pulse.beat(stage.clock.now)
    assert made == []
    viewers = [stage.pulse.feed() for _ in range(2)]
    heads = [(await anext(viewer), await anext(viewer)) for viewer in viewers]
    assert [(first.event, second.event) for first, second in heads] == [("history", "snapshot")] * 2
    assert orjson.loads(heads[0][0].data) == {"columns": list(COLUMNS), "samples": [list(stage.pulse.samples[0])]}
    del made[:]
    stage.clock.now += 1
    stage.pulse.beat(stage.clock.now)
    one, other = [await anext(viewer) for viewer in viewers]
    assert one is other and one.startswith(b"event: snapshot\r\ndata: {")
    assert len(made) == 1
    for viewer in viewers:
        await viewer.aclose()
    stage.pulse.beat(stage.clock.now)
    assert len(made) == 1


async def test_it_beats_once_a_second_by_the_loops_own_timer(staged, until):
    """Started, it samples by itself; a late look does not make two follow each other."""
    stage = staged()
    stage.pulse.start(clocks_of(asyncio.get_running_loop()))
    await until(lambda: stage.pulse.samples, 5)
    stage.pulse.close()
    assert stage.pulse.look(2000.0) == 2001.0


def test_a_quantile_is_the_nearest_rank():
    """Of nothing there is none."""
    assert quantile([], 0.5) is None
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert quantile([1.0, 2.0, 3.0], 0.95) == 3.0


def test_an_ending_without_a_fault_has_no_reason():
    """A client that gave up, or a stream that ended without saying how."""
    assert reason(None) is reason(Ending(Outcome.CLIENT_GAVE_UP)) is None
    row = ending_row(StreamRecord(5.0), Outcome.CLIENT_GAVE_UP, 100.0, 6.0)
    assert (row["upstream"], row["reason"]) == (None, None)
