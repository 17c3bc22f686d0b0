"""The bounded queue and the lease: in order, in time, and no slot is ever lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

import pytest
from anyio.lowlevel import checkpoint
from ledgers import claim, gateway, streams

from streamgate.admission.books import Quota
from streamgate.admission.claim import Bound, Claim, Level, Limits
from streamgate.admission.gate import Gate, Lease, QueueSettings
from streamgate.admission.refusals import refusal
from streamgate.admission.ticket import Denied, Unit
from streamgate.errors import Reason, Refusal

pytestmark = pytest.mark.anyio


class Stream:
    """A task that wants a lease, and keeps it until it is told to go."""

    def __init__(self, gate: Gate, name: str = "", order: list[str] | None = None, claim: Claim | None = None) -> None:
        self.gate = gate
        self.claim = claim or claims[gate]
        self.lease: Lease | None = None
        self.name = name
        self.order = order if order is not None else []
        self.held = asyncio.Event()
        self.go = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        async with self.gate.lease(self.claim) as self.lease:
            self.order.append(self.name)
            self.held.set()
            await self.go.wait()

    async def end(self) -> BaseException | None:
        """Let it go, and wait until it is gone; what it ended with."""
        self.go.set()
        (outcome,) = await asyncio.gather(self.task, return_exceptions=True)
        return outcome

    async def holds(self) -> None:
        await asyncio.wait_for(self.held.wait(), 5)


claims: WeakKeyDictionary[Gate, Claim] = WeakKeyDictionary()  # what each gate of these tests is asked for


def gate_of(
    concurrent: int = 0, *, clock: Callable[[], float] = time.monotonic, queue: int = 0, max_wait: float = 10.0
) -> Gate:
    gate = Gate(QueueSettings(queue=queue, max_wait=max_wait), clock)
    claims[gate] = claim(gateway(concurrent))
    return gate


def lease_of(gate: Gate) -> Lease:
    return gate.lease(claims[gate])


def books(gate: Gate) -> tuple[int, int]:
    """Leases, and who waits."""
    return gate.ledger.taken, gate.ledger.waiting


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await checkpoint()


@asynccontextmanager
async def held(gate: Gate, count: int) -> AsyncIterator[list[Stream]]:
    """That many streams with a lease; all gone afterwards, and the books empty."""
    streams = [Stream(gate) for _ in range(count)]
    for stream in streams:
        await stream.holds()
    yield streams
    for stream in streams:
        await stream.end()
    await turns()
    assert books(gate) == (0, 0)


async def test_a_lease_is_held_while_inside() -> None:
    """And given back once, also when the stream failed."""
    gate = gate_of(1)
    async with lease_of(gate):
        assert books(gate) == (1, 0)
    with pytest.raises(KeyError):
        async with lease_of(gate):
            raise KeyError
    assert books(gate) == (0, 0)


async def test_leaving_twice_gives_back_once() -> None:
    """A lease that was not held, or no more, gives nothing back."""
    gate = gate_of(2)
    lease = lease_of(gate)
    await lease.__aexit__(None, None, None)
    await lease.__aenter__()
    for _ in range(2):
        await lease.__aexit__(None, None, None)
    assert books(gate) == (0, 0)


@pytest.mark.parametrize(("queue", "reason"), [(0, Reason.CONCURRENCY), (1, Reason.QUEUE_FULL)])
async def test_a_full_house_refuses(queue: int, reason: Reason) -> None:
    """503 with the reason's own word and a time to come back; nothing is booked for it."""
    gate = gate_of(1, queue=queue)
    async with held(gate, 1):
        waiting = [Stream(gate) for _ in range(queue)]
        await turns()
        with pytest.raises(Refusal) as refused:
            async with lease_of(gate):
                pytest.fail("let in")
        assert (refused.value.reason, refused.value.status) == (reason, 503)
        assert refused.value.retry_after is not None and 0.0 < refused.value.retry_after <= 60.0
        assert "use" in refused.value.message
        assert books(gate) == (1, queue)
        for stream in waiting:
            stream.task.cancel()
            await stream.end()


async def test_the_queue_is_served_in_the_order_of_arrival() -> None:
    """Also around those who leave it, and nobody who comes later overtakes."""
    gate = gate_of(1, queue=10)
    order: list[str] = []
    async with held(gate, 1) as (first,):
        waiting = [Stream(gate, name, order) for name in "abcde"]
        await turns()
        waiting[1].task.cancel()
        waiting[3].task.cancel()
        first.go.set()
        for stream in (waiting[0], waiting[2], waiting[4]):
            await stream.holds()
            late = Stream(gate, "late", order)
            await turns()
            assert not late.held.is_set()
            late.task.cancel()
            await stream.end()
            await late.end()
    assert order == ["a", "c", "e"]


async def test_a_wait_has_an_end() -> None:
    """After `max_wait` seconds it is refused, and its place in the queue is free."""
    gate = gate_of(1, queue=1, max_wait=0.02)
    async with held(gate, 1):
        started = time.monotonic()
        with pytest.raises(Refusal) as refused:
            async with lease_of(gate):
                pytest.fail("let in")
        assert refused.value.reason is Reason.QUEUE_TIMEOUT
        assert 0.018 <= time.monotonic() - started < 1  # uvloop counts in whole milliseconds
        assert books(gate) == (1, 0)


async def test_no_patience_at_all() -> None:
    """A deadline that has passed when it is looked at is a timeout, not an error."""
    gate = gate_of(1, queue=1, max_wait=0.0)
    async with held(gate, 1):
        with pytest.raises(Refusal) as refused:
            async with lease_of(gate):
                pytest.fail("let in")
        assert refused.value.reason is Reason.QUEUE_TIMEOUT
        assert books(gate) == (1, 0)


async def test_leaving_the_queue_frees_the_place() -> None:
    """The next one may wait there, and the slot goes to whoever still waits."""
    gate = gate_of(1, queue=1)
    async with held(gate, 1) as (first,):
        leaver = Stream(gate)
        await turns()
        leaver.task.cancel()
        await leaver.end()
        assert leaver.task.cancelled()
        assert books(gate) == (1, 0)
        stayer = Stream(gate)
        await turns()
        first.go.set()
        await stayer.holds()
        await stayer.end()


@pytest.mark.parametrize("others", [0, 1])
async def test_leaving_in_the_moment_of_the_grant_passes_the_slot_on(others: int) -> None:
    """The slot was granted and the task was cancelled before it could run: the next one has it, or nobody."""
    gate = gate_of(1, queue=5)
    async with held(gate, 1) as (first,):
        unlucky = Stream(gate)
        waiting = [Stream(gate) for _ in range(others)]
        await turns()
        first.go.set()
        await asyncio.wait([first.task])
        # Its future is done by now, or will be within the same turn in which the task is cancelled.
        unlucky.task.cancel()
        await unlucky.end()
        for stream in waiting:
            await stream.holds()
            assert books(gate) == (1, 0)
            await stream.end()
        assert books(gate) == (0, 0)


async def test_cancelled_exactly_between_grant_and_wake() -> None:
    """Nothing runs between the two: the books say one, then pass it on."""
    gate = gate_of(1, queue=5)
    first = await lease_of(gate).__aenter__()
    unlucky, heir = Stream(gate), Stream(gate)
    await turns()
    gate.leave(first)
    assert books(gate) == (1, 1)
    unlucky.task.cancel()
    await heir.holds()
    assert not unlucky.held.is_set() and unlucky.task.cancelled()
    await heir.end()
    assert books(gate) == (0, 0)


async def test_cancelled_exactly_before_the_grant() -> None:
    """The task was cancelled and has not run yet when a slot comes: the slot goes to the next, and only there."""
    gate = gate_of(1, queue=5)
    first = await lease_of(gate).__aenter__()
    unlucky, heir = Stream(gate), Stream(gate)
    await turns()
    unlucky.task.cancel()
    gate.leave(first)
    await heir.holds()
    assert books(gate) == (1, 0)
    await heir.end()
    await unlucky.end()
    assert books(gate) == (0, 0)


async def test_all_cancelled_before_the_grant() -> None:
    """With nobody left to have it the slot is free, once they have noticed."""
    gate = gate_of(1, queue=5)
    first = await lease_of(gate).__aenter__()
    unlucky = [Stream(gate) for _ in range(3)]
    await turns()
    for stream in unlucky:
        stream.task.cancel()
    gate.leave(first)
    for stream in unlucky:
        await stream.end()
    assert books(gate) == (0, 0)


async def test_timed_out_and_granted_in_one_turn() -> None:
    """The task was cancelled by its timeout, then granted, and has not run yet: it has the slot."""
    gate = gate_of(1, queue=5, max_wait=0.01)
    first = await lease_of(gate).__aenter__()
    lucky = Stream(gate)
    await turns()
    while not lucky.task.cancelling():
        await checkpoint()
    gate.leave(first)
    outcome = await lucky.end()
    assert outcome is None or isinstance(outcome, Refusal)
    assert books(gate) == (0, 0)


async def test_no_slot_leaks_under_a_thousand_random_cancels() -> None:
    """Arrivals, ends and cancellations at every moment: never above the limit, and in the end all is free."""
    choose = random.Random(20)
    gate = gate_of(4, queue=6, max_wait=30.0)
    streams: list[Stream] = []
    leaving: list[Stream] = []
    cancels = most = 0
    while cancels < 1000:
        while len(streams) < 12:
            streams.append(Stream(gate))
        for _ in range(choose.randrange(4)):
            await checkpoint()
        stream = streams.pop(choose.randrange(len(streams)))
        leaving.append(stream)
        ends = choose.random() < 0.3
        if ends:
            stream.go.set()
        if not ends or choose.random() < 0.7:
            cancels += stream.task.cancel()
        taken, waiting = books(gate)
        most = max(most, taken)
        assert 0 <= taken <= 4
        assert 0 <= waiting <= 6
    assert most == 4
    for stream in streams:
        stream.go.set()
    for stream in streams + leaving:
        await stream.end()
    assert books(gate) == (0, 0)


async def test_the_newest_of_a_flood_is_pushed_out_and_told() -> None:
    """Its place goes to another tenant; if it is cancelled in that moment, nothing happens twice."""
    gate = gate_of(queue=2)
    flood, other = claim(gateway(1), tenant="flood"), claim(gateway(1), tenant="other")
    first = Stream(gate, claim=flood)
    await first.holds()
    waiting = [Stream(gate, claim=flood) for _ in range(2)]
    await turns()
    single = Stream(gate, claim=other)
    await turns()
    outcome = await waiting[1].end()
    assert isinstance(outcome, Refusal) and (outcome.reason, outcome.status) == (Reason.QUEUE_FULL, 503)
    for stream in (first, waiting[0], single):
        stream.task.cancel()
        await stream.end()
    assert books(gate) == (0, 0)


async def test_pushed_out_and_cancelled() -> None:
    """The cancellation goes through."""
    gate = gate_of(queue=2)
    flood, other = claim(gateway(1), tenant="flood"), claim(gateway(1), tenant="other")
    first = Stream(gate, claim=flood)
    await first.holds()
    waiting = [Stream(gate, claim=flood) for _ in range(2)]
    await turns()
    gate.arrive(late := gate.lease(other))
    waiting[1].task.cancel()
    await waiting[1].end()
    assert waiting[1].task.cancelled() and books(gate) == (1, 2)
    gate.ledger.withdraw(late, gate.clock())
    for stream in (waiting[0], first):
        stream.task.cancel()
        await stream.end()
    assert books(gate) == (0, 0)


async def test_moving_and_settling() -> None:
    """A failover exchanges the upstream's slot; the real usage takes the place of the estimate."""
    gate = gate_of()
    mine = claim(
        own=[Bound(Level.KEY, "k", Limits(tokens_per_minute=1000))],
        upstreams=[streams(Level.UPSTREAM, 1, name) for name in "ab"],
    )
    async with gate.lease(mine, tokens=300, order=lambda: ["b", "a"]) as lease:
        assert lease.upstream == "b"
        assert await lease.move("a") and lease.upstream == "a"
        async with gate.lease(mine, order=lambda: ["a", "b"]) as other:
            assert other.upstream == "b"
            assert not await lease.move("b") and lease.upstream == "a"
        lease.settle(100)
        lease.settle(900)
    quota = gate.quota(mine)
    assert isinstance(quota, Quota) and quota.remaining_tokens == 900
    assert gate.quota(claim()) is None


async def test_a_reload_lets_in_who_waits() -> None:
    """Also that of the classes and the length of the queue; and the books tell."""
    gate = gate_of(1, queue=1)
    async with held(gate, 1):
        stream = Stream(gate)
        await turns()
        gate.reload(QueueSettings(queue=5))
        later = Stream(gate, claim=claim(gateway(2)))
        await turns()
        await stream.holds()
        books_now = gate.books()
        assert (books_now.leases, books_now.waiting) == (2, {"": 1}) and books_now.oldest >= 0
        await stream.end()
        await later.end()


@pytest.mark.parametrize(
    "denied, status, words",
    [
        (Denied(Reason.CONCURRENCY, Level.KEY, 1.0, own=True), 429, "All streams of this key are in use."),
        (Denied(Reason.RATE, Level.TENANT, 2.0, own=True, unit=Unit.TOKENS), 429,
         "The tokens per minute of this tenant are used up."),
        (Denied(Reason.RATE, Level.UPSTREAM, 2.0, unit=Unit.REQUESTS), 503,
         "The requests per minute of the servers of this model are used up."),
        (Denied(Reason.CONCURRENCY, Level.MODEL, 2.0), 503, "All streams of this model are in use."),
        (Denied(Reason.QUEUE_FULL, Level.GLOBAL, 2.0), 503,
         "All streams of this gateway are in use and the queue is full."),
        (Denied(Reason.QUEUE_TIMEOUT, Level.GLOBAL, 2.0), 503, "No stream of this gateway becomes free in time."),
    ],
)  # fmt: skip
def test_a_refusal_says_which_limit_it_is(denied: Denied, status: int, words: str) -> None:
    """429 for one's own, 503 for everybody's; the reason is the code."""
    told = refusal(denied)
    assert (told.status, told.message, told.code, told.retry_after) == (
        status, words, denied.reason.value, denied.retry_after,
    )  # fmt: skip
