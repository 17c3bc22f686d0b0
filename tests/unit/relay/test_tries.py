"""Lease, tries and failover, with exchanges that do as they are told: every order of events, without a socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import pytest
from anyio.lowlevel import checkpoint
from stage import DONE, ERROR, FINISH, delta

from streamgate import errors
from streamgate.admission.claim import Bound, Level, Limits
from streamgate.admission.gate import Gate, Lease, QueueSettings
from streamgate.drain import Drain
from streamgate.errors import Fault, Reason, Refusal
from streamgate.observe.observer import Observer
from streamgate.record import COMPLETED, Ending, Outcome, Phase, StreamRecord
from streamgate.relay.allowances import Allowances, RouteTerms
from streamgate.relay.deadlines import Deadlines
from streamgate.relay.paths import KNOWN
from streamgate.relay.request import Request
from streamgate.relay.targets import Target, Targets
from streamgate.relay.tries import Means, Tries
from streamgate.relay.verdicts import code_of
from streamgate.routing.balance import Balance
from streamgate.routing.ejection import Ejections, EjectionSettings
from streamgate.routing.table import Route
from streamgate.sse.outlet import Farewell, Lost
from streamgate.upstream.client import Call, origin_of
from streamgate.upstream.exchange import Receiver
from streamgate.upstream.retry import RetryBudget, RetrySettings

pytestmark = pytest.mark.anyio

SSE = [(b"content-type", b"text/event-stream"), (b"x-request-id", b"theirs"), (b"set-cookie", b"a=b")]
JSON = [(b"content-type", b"application/json")]
SAID = b'{"error":{"message":"no such thing","type":"invalid_request_error","param":null,"code":"nope"}}'
ROUTE = Route(models=("*",), upstreams=("a", "b"), balance=Balance.IN_ORDER)
Script = Callable[[Receiver], None]


def whole(receiver: Receiver) -> None:
    receiver.head(200, list(SSE))
    receiver.feed(delta("a"))
    receiver.feed(FINISH + DONE)
    receiver.end(None)


def begins(receiver: Receiver) -> None:
    receiver.head(200, list(SSE))
    receiver.feed(delta("a"))


def role_only(receiver: Receiver) -> None:
    receiver.head(200, list(SSE))
    receiver.feed(delta())


def silent(receiver: Receiver) -> None:
    pass


def fails(fault: Fault) -> Script:
    return lambda receiver: receiver.end(fault)


def says(status: int, body: bytes, headers: Any = JSON) -> Script:
    def script(receiver: Receiver) -> None:
        receiver.head(status, list(headers))
        receiver.feed(body)
        receiver.end(None)

    return script


class Exchange:
    """One try's exchange: entered at once, with a fault, or never; then the script speaks to the receiver."""

    def __init__(
        self, world: World, script: Script | Fault | None, origin: Any, call: Call, receiver: Receiver, **how: Any
    ) -> None:
        self.world = world
        self.script = script
        self.name = origin.name
        self.call = call
        self.receiver = receiver
        self.how = how
        self.settled = False
        self.dialled = 0.0

    async def __aenter__(self) -> Self:
        self.world.note(f"dial {self.name}")
        if self.script is None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.world.note(f"hang up {self.name}")
        if isinstance(self.script, Fault):
            raise self.script
        self.world.note(f"enter {self.name}")
        asyncio.get_running_loop().call_soon(self.script, self.receiver)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.world.note(f"leave {self.name}")
        self.world.slots_at_leave.append(self.world.taken)

    def settle(self) -> None:
        self.settled = True

    def pause(self) -> None:
        self.world.note("pause")

    def resume(self) -> None:
        self.world.note("resume")


class Outlet:
    """The client's side, as a list."""

    def __init__(self, *, started: bool = False) -> None:
        self.started = started
        self.lost: Lost | None = None
        self.pings = 0
        self.blocked_at = self.blocked_for = 0.0
        self.buffered = 0
        self.beats = True
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.frames: list[bytes] = []
        self.source: Any = None
        self.callback: Any = None

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        assert not self.started
        self.started, self.status, self.headers = True, status, list(headers)

    def write(self, frame: bytes, now: float) -> None:
        self.frames.append(frame)

    def attach(self, source: Any) -> None:
        self.source = source

    def on_lost(self, callback: Any) -> None:
        self.callback = callback
        if callback is not None and self.lost is not None:
            callback(self.lost)

    def lose(self, lost: Lost) -> None:
        self.lost = lost
        self.callback(lost)


class World:
    """Everything that a relayed stream is given, and what happened, in order."""

    def __init__(
        self, *scripts: Script | Fault | None, path: bytes = b"/v1/chat/completions", stream: bool = True,
        retry: RetrySettings | None = None, slots: int = 0, queue: int = 0, route: Route = ROUTE,
        deadlines: Deadlines | None = None, keys: dict[str, Any] | None = None, started: bool = False,
        seats: tuple[Bound, ...] = (),
    ) -> None:  # fmt: skip
        self.events: list[str] = []
        self.slots_at_leave: list[int] = []
        self.exchanges: list[Exchange] = []
        self.scripts = list(scripts)
        self.outlet = Outlet(started=started)
        log = SimpleNamespace(info=lambda *_, **__: None, warning=lambda *_, **__: None, error=lambda *_, **__: None)
        targets = {
            name: Target(name=name, origin=origin_of(name, f"http://{name}"), **keys or {}) for name in route.upstreams
        }
        retry = retry or RetrySettings()
        self.ejections = Ejections(targets, EjectionSettings(failures=1))
        whole = Bound(Level.GLOBAL, "", Limits(concurrent=slots))
        terms = RouteTerms(name="route", deadlines=deadlines or Deadlines(), shared=(whole,), upstreams=seats)
        self.means = Means(
            gate=Gate(QueueSettings(queue=queue), time.monotonic),
            allowances=Allowances({route: terms}),
            upstreams=self,  # type: ignore[arg-type]
            targets=Targets(targets, self.ejections),
            drain=Drain(),
            observer=Observer(log=log),
            retry=retry,
            budget=RetryBudget(retry),
            max_event=1 << 20,
        )
        credentials = ((b"authorization", b"Bearer sk-client"),)
        self.request = Request(KNOWN[path], path, ((b"accept", b"*/*"),), credentials, b"{}", stream, route)
        self.record = StreamRecord(time.monotonic())
        self.tries = Tries(self.request, self.record, self.means)

    def note(self, event: str) -> None:
        self.events.append(event)

    def open(self, origin: Any, call: Call, receiver: Receiver, **how: Any) -> Exchange:
        self.exchanges.append(Exchange(self, self.scripts.pop(0), origin, call, receiver, **how))
        return self.exchanges[-1]

    def lease(self) -> Lease:
        """Somebody else's."""
        return self.means.gate.lease(self.tries.allowance.claim)

    @property
    def taken(self) -> int:
        return self.means.gate.ledger.taken

    async def run(self) -> Farewell:
        """The whole stream, as the endpoint runs it; afterwards all is given back."""
        farewell = await self.run_unchecked()
        assert self.taken == 0, "the lease is returned before the last words"
        self.note("farewell")
        return farewell

    async def run_unchecked(self) -> Farewell:
        async with self.means.observer.stream() as record:
            record.stream = self.request.stream
            record.request_id = "ours"
            self.record = self.tries.record = record
            with self.means.drain.inside(self.tries.drained):
                return await self.tries.into(self.outlet)

    @asynccontextmanager
    async def running(self, *, until: str = "", turns: int = 3) -> AsyncIterator[asyncio.Task[Farewell]]:
        """Run it as far as this event and a few turns of the loop; it must end inside."""
        task = asyncio.get_running_loop().create_task(self.run())
        async with asyncio.timeout(5):
            while until and until not in self.events:
                await checkpoint()
            for _ in range(turns):
                await checkpoint()
            assert not task.done()
            yield task
            await asyncio.wait([task])
        assert self.taken == 0 and len(self.means.drain) == 0
        assert self.means.targets.active() == dict.fromkeys(self.request.route.upstreams, 0)

    def attempts(self) -> dict[tuple[str, ...], int]:
        return dict(self.means.observer.tally.attempts.cells)

    def ejected(self) -> frozenset[str]:
        return self.ejections.ejected(time.monotonic())

    @property
    def body(self) -> bytes:
        return b"".join(self.outlet.frames)


# ------------------------------------------------------------------------------------------------ one try


async def test_a_stream_from_lease_to_farewell() -> None:
    """Exchange left, lease returned, and only then the last words; every time and count is in the record."""
    world = World(whole)
    farewell = await world.run()
    assert farewell == Farewell(None, whole=True)
    assert world.events == ["dial a", "enter a", "leave a", "farewell"]
    assert world.slots_at_leave == [1], "the slot is held while the exchange is"
    assert world.body == delta("a") + FINISH + DONE
    record = world.record
    assert record.ending is COMPLETED and record.phase is Phase.ENDED
    assert (record.attempts, record.upstream, record.status, record.events) == (1, "a", 200, 3)
    assert 0 < record.t_leased <= record.t_issued <= record.t_head <= record.t_first
    assert record.upstream_request_id == "theirs" and record.finish_reason == "stop"
    assert world.attempts() == {("a", "2xx"): 1}
    assert world.means.observer.statistics() == {"active": 0, "live": 0, "started": 1, "ended": 1, "rejected": 0}


async def test_the_head_is_the_upstreams_less_what_does_not_pass() -> None:
    """And ours beside it."""
    world = World(whole)
    await world.run()
    headers = dict(world.outlet.headers)
    assert headers[b"content-type"] == b"text/event-stream"
    assert headers[b"x-request-id"] == b"ours" and headers[b"x-upstream-request-id"] == b"theirs"
    assert b"set-cookie" not in headers and b"content-length" not in headers


async def test_a_json_answer_has_its_length_and_no_pings() -> None:
    """It is not events: a heartbeat would be part of it."""
    world = World(says(200, b'{"id":1}'), stream=False)
    assert await world.run() == Farewell(None, whole=True)
    assert dict(world.outlet.headers)[b"content-length"] == b"8"
    assert world.outlet.beats is False and world.body == b'{"id":1}'


async def test_what_is_asked_of_the_upstream() -> None:
    """Method, target, headers with the right credentials, body, and the route's own patience for connecting."""
    world = World(whole, keys={"client_key": True, "connect": 7.0})
    await world.run()
    (exchange,) = world.exchanges
    assert exchange.call == Call(
        b"POST", b"/v1/chat/completions", ((b"accept", b"*/*"), (b"authorization", b"Bearer sk-client")), b"{}"
    )
    assert exchange.how == {"fresh": False, "connect": 7.0}
    world = World(whole, keys={"connect": 7.0}, deadlines=Deadlines(connect=2.0))
    await world.run()
    assert world.exchanges[0].how["connect"] == 2.0


async def test_a_connection_may_settle_after_the_logical_end() -> None:
    """`[DONE]` came and the HTTP body's end did not: the connection need not be dropped. After an error it must."""

    def not_quite(receiver: Receiver) -> None:
        begins(receiver)
        receiver.feed(FINISH + DONE)

    def broken(receiver: Receiver) -> None:
        begins(receiver)
        receiver.end(errors.Reset())

    for script, settled in ((not_quite, True), (broken, False)):
        world = World(script)
        await world.run()
        assert world.exchanges[0].settled is settled


async def test_the_client_pauses_the_exchange() -> None:
    """The outlet's source is the passage, and through it the running exchange; afterwards it is nobody."""
    world = World(begins)
    async with world.running(until="enter a") as task:
        world.outlet.source.pause()
        world.outlet.source.resume()
        world.exchanges[0].receiver.feed(FINISH + DONE)
    assert task.result().whole
    assert world.events == ["dial a", "enter a", "pause", "resume", "leave a", "farewell"]
    assert world.outlet.source is None


# ------------------------------------------------------------------------------------------------ more tries


@pytest.mark.parametrize(
    ("first", "code", "ejects"),
    [
        (errors.Unreachable(), "connect_error", True),
        (errors.ConnectTimeout(), "connect_timeout", True),
        (fails(errors.Reset()), "reset", True),
        (fails(errors.ClosedEarly()), "eof", True),
        (says(503, b"down"), "5xx", True),
        (says(429, SAID), "429", True),
        (says(200, ERROR, SSE), "error_event", True),
        (says(200, delta() + DONE, SSE), "eof", True),
        (says(200, b"", SSE), "empty", True),
        (says(401, SAID), "4xx", True),
        (says(200, b"<html>", [(b"content-type", b"text/html")]), "protocol", True),
    ],
)
async def test_a_try_that_said_nothing_is_made_again_elsewhere(first: Any, code: str, ejects: bool) -> None:
    """The client sees one whole stream; the failure is counted, and held against the upstream."""
    world = World(first, whole)
    assert await world.run() == Farewell(None, whole=True)
    assert world.body == delta("a") + FINISH + DONE
    assert (world.record.attempts, world.record.upstream) == (2, "b")
    assert world.record.ending is COMPLETED
    assert world.attempts() == {("a", code): 1, ("b", "2xx"): 1}
    assert sum(world.means.observer.tally.failovers.cells.values()) == 1
    assert world.ejected() == (frozenset("a") if ejects else frozenset())


async def test_a_stale_connection_costs_nothing() -> None:
    """The same upstream on a fresh connection, at once: no back-off, no budget, nothing held against it."""
    world = World(fails(errors.Stale()), whole, retry=RetrySettings(attempts=0, budget=0, budget_min_per_s=0))
    assert await world.run() == Farewell(None, whole=True)
    assert world.events == ["dial a", "enter a", "leave a", "dial a", "enter a", "leave a", "farewell"]
    assert [exchange.how["fresh"] for exchange in world.exchanges] == [False, True]
    assert world.attempts() == {("a", "2xx"): 1}
    assert world.ejected() == frozenset()


async def test_the_only_upstream_is_tried_again_after_a_pause() -> None:
    """A retry, not a failover."""
    route = Route(models=("*",), upstreams=("a",))
    world = World(fails(errors.Reset()), whole, route=route)
    await world.run()
    assert world.record.attempts == 2
    tally = world.means.observer.tally
    assert sum(tally.retries.cells.values()) == 1 and not tally.failovers.cells


@pytest.mark.parametrize(
    ("script", "status", "outcome", "code"),
    [
        (fails(errors.Reset()), 502, Outcome.UPSTREAM_ERROR, b"upstream_reset"),
        (errors.ConnectTimeout("10.0.0.1"), 504, Outcome.UPSTREAM_ERROR, b"upstream_connect_timeout"),
        (says(503, b"<html>"), 503, Outcome.UPSTREAM_ERROR, b"upstream_error"),
        (says(404, SAID), 404, Outcome.COMPLETED, b"nope"),
        (says(401, SAID), 502, Outcome.UPSTREAM_ERROR, b"upstream_auth"),
        (says(302, b""), 502, Outcome.UPSTREAM_ERROR, b"upstream_redirect"),
        (says(200, delta(), SSE), 502, Outcome.TRUNCATED, b"upstream_truncated"),
        (says(200, ERROR, SSE), 502, Outcome.UPSTREAM_ERROR, b"CUDA out of memory"),
    ],
)
async def test_the_last_tries_fault_is_the_streams(script: Any, status: int, outcome: Outcome, code: bytes) -> None:
    """It is told as a status, in the family's form, and never with an address in it."""
    world = World(script, script, script, retry=RetrySettings(attempts=0))
    farewell = await world.run()
    assert world.outlet.status == world.record.status == status
    assert farewell.whole and code in (farewell.words or b"")
    assert b"10.0.0.1" not in (farewell.words or b"")
    assert world.record.ending is not None and world.record.ending.outcome is outcome
    assert world.body == b""


async def test_a_fault_after_the_commit_is_an_error_event() -> None:
    """No other try is made once the client has read a token."""

    def breaks(receiver: Receiver) -> None:
        begins(receiver)
        receiver.end(errors.Reset())

    world = World(breaks, whole)
    farewell = await world.run()
    assert len(world.exchanges) == 1
    assert farewell.whole and farewell.words is not None and b"upstream_reset" in farewell.words
    assert farewell.words.startswith(b"data: ")
    assert world.ejected() == frozenset("a")


async def test_a_broken_body_that_is_not_events_gets_nothing_added() -> None:
    """Only the missing end says it."""

    def breaks(receiver: Receiver) -> None:
        receiver.head(200, [(b"content-type", b"audio/mpeg")])
        receiver.feed(b"\0")
        receiver.end(errors.Truncated())

    world = World(breaks, path=b"/v1/audio/speech", stream=False)
    assert await world.run() == Farewell(None, whole=False)


async def test_an_upstreams_own_error_is_told_once() -> None:
    """Relayed in its words, the stream ends properly, and nothing is added."""

    def errs(receiver: Receiver) -> None:
        begins(receiver)
        receiver.feed(ERROR)

    world = World(errs)
    assert await world.run() == Farewell(None, whole=True)
    assert world.body == delta("a") + ERROR
    assert world.attempts() == {("a", "error_event"): 1}


@pytest.mark.parametrize(
    ("first", "tried"),
    [
        (fails(errors.Reset()), 1),
        (fails(errors.ClosedEarly()), 1),
        (errors.Unreachable(), 2),
        (errors.ConnectTimeout(), 2),
    ],
)
async def test_an_upload_is_never_sent_twice(first: Any, tried: int) -> None:
    """It passed unread, on a fresh connection; only when no connection was found was nothing of it sent."""
    world = World(first, says(200, b"{}"), path=b"/v1/audio/transcriptions", stream=False)
    await world.run()
    assert len(world.exchanges) == tried
    assert all(exchange.how["fresh"] for exchange in world.exchanges)
    assert world.outlet.status == (200 if tried == 2 else 502)


async def test_a_failover_is_still_allowed_after_an_early_commit() -> None:
    """The head is out and nothing semantic is; the second try writes behind it."""
    world = World(says(503, b"down"), whole, started=True)
    assert await world.run() == Farewell(None, whole=True)
    assert world.body == delta("a") + FINISH + DONE and world.record.status == 200
    world = World(says(404, SAID), started=True)
    farewell = await world.run()
    assert farewell.whole and b"no such thing" in (farewell.words or b"")


async def test_too_many_tries_are_not_made() -> None:
    """`attempts` after the first, each in its turn, and the first upstream again after the last."""
    world = World(*[fails(errors.Reset())] * 3, retry=RetrySettings(attempts=2))
    await world.run()
    assert [exchange.name for exchange in world.exchanges] == ["a", "b", "b"]
    assert world.outlet.status == 502


# ------------------------------------------------------------------------------------------------ other endings


def left(world: World) -> None:
    world.outlet.lose(Lost.CLOSED)


def drained(world: World) -> None:
    world.means.drain.expire()


PHASES: dict[str, tuple[tuple[Any, ...], str]] = {
    "dialling": ((None,), "dial a"),
    "silent": ((silent,), "enter a"),
    "holding": ((role_only,), "enter a"),
    "flowing": ((begins,), "enter a"),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("how", "outcome"),
    [(left, Outcome.CLIENT_GAVE_UP), (drained, Outcome.DRAINED)],
)
async def test_an_end_from_elsewhere_ends_the_exchange_at_once(
    phase: str, how: Callable[[World], None], outcome: Outcome
) -> None:
    """In every phase: exchange left, lease returned, one outcome; nothing is held against the upstream."""
    scripts, event = PHASES[phase]
    world = World(*scripts)
    async with world.running(until=event) as task:
        how(world)
    farewell = task.result()
    if how is left:
        outcome = Outcome.CLIENT_CLOSED if phase == "flowing" else outcome
        assert not farewell.whole and farewell.words is None
    else:
        assert b"gateway_draining" in (farewell.words or b"")
        assert world.outlet.status == (200 if phase == "flowing" else 503)
    assert world.record.ending is not None and world.record.ending.outcome is outcome
    assert world.events[-2:] == ["hang up a" if phase == "dialling" else "leave a", "farewell"]
    assert world.ejected() == frozenset()
    expected = {left: "cancelled", drained: "drained"}[how]
    assert world.attempts() == {("a", expected): 1}


@pytest.mark.parametrize("phase", ["queued", *PHASES])
async def test_a_cancellation_from_outside_goes_through(phase: str) -> None:
    """Exchange and lease are given back, the record shows no ending, and nobody is told anything."""
    scripts, event = PHASES.get(phase, ((), ""))
    world = World(*scripts, slots=1, queue=1)
    other = world.lease()
    if phase == "queued":
        await other.__aenter__()
    task = asyncio.get_running_loop().create_task(world.run())
    while event and event not in world.events:
        await checkpoint()
    for _ in range(3):
        await checkpoint()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if phase == "queued":
        await other.__aexit__(None, None, None)
    assert world.taken == 0 and len(world.means.drain) == 0
    assert world.record.ending is None
    assert world.outlet.source is None
    assert world.means.observer.statistics()["live"] == 0


@pytest.mark.parametrize(
    ("how", "reason", "status"),
    [(left, Reason.CLIENT_LEFT, 499), (drained, Reason.DRAINING, 503)],
)
async def test_leaving_the_queue_is_no_stream(how: Callable[[World], None], reason: Reason, status: int) -> None:
    """It is refused by its reason, nothing is tried, and its place is free at once."""
    world = World(slots=1, queue=1)
    async with world.lease():
        task = asyncio.get_running_loop().create_task(world.run_unchecked())
        for _ in range(5):
            await checkpoint()
        assert world.record.phase is Phase.QUEUED
        how(world)
        await asyncio.wait_for(task, 5)
        assert world.means.gate.ledger.waiting == 0
    assert world.record.refusal is not None and world.record.refusal.reason is reason
    assert world.outlet.status == status and world.exchanges == []
    assert world.means.observer.statistics() == {"active": 0, "live": 0, "started": 0, "ended": 0, "rejected": 1}


async def test_a_full_house_is_told() -> None:
    """503 with the reason's word and a time to come back."""
    world = World(slots=1)
    async with world.lease():
        farewell = await world.run_unchecked()
    assert world.outlet.status == 503 and b"concurrency" in (farewell.words or b"")
    assert dict(world.outlet.headers)[b"retry-after"] == b"1"
    assert isinstance(world.record.refusal, Refusal)


async def test_a_client_that_left_before_it_began() -> None:
    """The outlet was lost when the content came: nothing is queued and nothing tried."""
    world = World()
    world.outlet.lost = Lost.CLOSED
    await world.run()
    assert world.record.refusal is not None and world.record.refusal.reason is Reason.CLIENT_LEFT
    assert world.exchanges == []


@pytest.mark.parametrize("how", [left, drained])
async def test_an_end_during_the_back_off(how: Callable[[World], None]) -> None:
    """The pause before another try ends at once, and the try is not made."""
    busy = says(429, SAID, [*JSON, (b"retry-after", b"2")])
    world = World(busy, route=Route(models=("*",), upstreams=("a",)))
    async with world.running(until="leave a") as task:
        how(world)
    assert len(world.exchanges) == 1 and world.record.ending is not None
    assert world.record.ending.outcome is (Outcome.CLIENT_GAVE_UP if how is left else Outcome.DRAINED)
    assert task.result().whole is (how is drained)


async def test_a_bug_of_ours_is_told_and_counted() -> None:
    """Whatever raises inside the lease is an internal error; the lease is returned."""
    world = World(whole)
    world.means.targets.order = lambda *_: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    farewell = await world.run()
    assert world.outlet.status == 500 and b"internal_error" in (farewell.words or b"")
    assert b"division" not in (farewell.words or b"")
    assert world.record.ending is not None and world.record.ending.fault is not None
    assert "ZeroDivisionError" in world.record.ending.fault.detail


async def test_a_drain_before_the_content_began_finds_nobody() -> None:
    """Nothing is there to be ended yet."""
    world = World(whole)
    world.tries.drained()
    assert await world.run() == Farewell(None, whole=True)


@pytest.mark.parametrize(
    ("script", "lost", "outcome"),
    [
        (whole, Lost.SLOW, Outcome.SLOW_CLIENT),
        (whole, Lost.CLOSED, Outcome.COMPLETED),
        (fails(errors.Redirected()), Lost.SLOW, Outcome.UPSTREAM_ERROR),
    ],
)
async def test_losing_the_client_after_the_upstreams_end(script: Script, lost: Lost, outcome: Outcome) -> None:
    """One that did not take the rest within the send clock was slow; one that just closes has had its answer."""
    world = World(script)
    await world.run()
    world.outlet.lose(lost)
    assert world.record.ending is not None and world.record.ending.outcome is outcome


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (COMPLETED, "2xx"),
        (Ending(Outcome.COMPLETED, errors.BadStatus(404, (), b"")), "4xx"),
        (Ending.by(errors.BadStatus(503, (), b"")), "5xx"),
        (Ending.by(errors.BadStatus(429, (), b"")), "429"),
        (Ending.by(errors.FirstTokenTimeout()), "timeout"),
        (Ending.by(errors.Truncated()), "eof"),
        (Ending(Outcome.CLIENT_CLOSED), "cancelled"),
        (Ending(Outcome.SLOW_CLIENT), "cancelled"),
    ],
)
def test_the_code_of_an_attempt(ending: Ending, code: str) -> None:
    """A status class, the fault's kind, or that nobody's fault ended it."""
    assert code_of(ending) == code
