"""The bounded queue and the lease: in order, in time, and no slot is ever lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from anyio.lowlevel import checkpoint

from streamgate.admission.gate import Gate
from streamgate.admission.ledger import Ledger, Limits
from streamgate.errors import Reason, Refusal

pytestmark = pytest.mark.anyio


class Stream:
    """A task that wants a lease, and keeps it until it is told to go."""

    def __init__(self, gate: Gate, name: str = "", order: list[str] | None = None) -> None:
        self.gate = gate
        self.name = name
        self.order = order if order is not None else []
        self.held = asyncio.Event()
        self.go = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        async with self.gate.lease():
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


def gate_of(*, clock: Callable[[], float] = time.monotonic, **limits: float) -> Gate:
    return Gate(Ledger(Limits(**limits)), clock)  # type: ignore[arg-type]


def books(gate: Gate) -> tuple[int, int, int]:
    """Slots taken, waiting by the books, and futures that really wait."""
    ledger = gate.ledger
    assert isinstance(ledger, Ledger)
    return ledger.taken, ledger.waiting, len(gate._waiting)


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
    assert books(gate) == (0, 0, 0)


async def test_a_lease_is_held_while_inside() -> None:
    """And given back once, also when the stream failed."""
    gate = gate_of(concurrent=1)
    async with gate.lease():
        assert books(gate) == (1, 0, 0)
    with pytest.raises(KeyError):
        async with gate.lease():
            raise KeyError
    assert books(gate) == (0, 0, 0)


async def test_leaving_twice_gives_back_once() -> None:
    """A lease that was not held, or no more, gives nothing back."""
    gate = gate_of(concurrent=2)
    lease = gate.lease()
    await lease.__aexit__(None, None, None)
    await lease.__aenter__()
    for _ in range(2):
        await lease.__aexit__(None, None, None)
    assert books(gate) == (0, 0, 0)


@pytest.mark.parametrize(("queue", "reason"), [(0, Reason.CONCURRENCY), (1, Reason.QUEUE_FULL)])
async def test_a_full_house_refuses(queue: int, reason: Reason) -> None:
    """503 with the reason's own word and a time to come back; nothing is booked for it."""
    gate = gate_of(concurrent=1, queue=queue)
    async with held(gate, 1):
        waiting = [Stream(gate) for _ in range(queue)]
        await turns()
        with pytest.raises(Refusal) as refused:
            async with gate.lease():
                pytest.fail("let in")
        assert (refused.value.reason, refused.value.status) == (reason, 503)
        assert refused.value.retry_after is not None and 1.0 <= refused.value.retry_after <= 60.0
        assert "use" in refused.value.message
        assert books(gate) == (1, queue, queue)
        for stream in waiting:
            stream.task.cancel()
            await stream.end()


async def test_the_queue_is_served_in_the_order_of_arrival() -> None:
    """Also around those who leave it, and nobody who comes later overtakes."""
    gate = gate_of(concurrent=1, queue=10)
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
    gate = gate_of(concurrent=1, queue=1, max_wait=0.02)
    async with held(gate, 1):
        started = time.monotonic()
        with pytest.raises(Refusal) as refused:
            async with gate.lease():
                pytest.fail("let in")
        assert refused.value.reason is Reason.QUEUE_TIMEOUT
        assert refused.value.retry_after == 1.0
        assert 0.02 <= time.monotonic() - started < 1
        assert books(gate) == (1, 0, 0)


async def test_no_patience_at_all() -> None:
    """A deadline that has passed when it is looked at is a timeout, not an error."""
    gate = gate_of(concurrent=1, queue=1, max_wait=0.0)
    async with held(gate, 1):
        with pytest.raises(Refusal) as refused:
            await gate.enter()
        assert refused.value.reason is Reason.QUEUE_TIMEOUT
        assert books(gate) == (1, 0, 0)


async def test_leaving_the_queue_frees_the_place() -> None:
    """The next one may wait there, and the slot goes to whoever still waits."""
    gate = gate_of(concurrent=1, queue=1)
    async with held(gate, 1) as (first,):
        leaver = Stream(gate)
        await turns()
        leaver.task.cancel()
        await leaver.end()
        assert leaver.task.cancelled()
        assert books(gate) == (1, 0, 0)
        stayer = Stream(gate)
        await turns()
        first.go.set()
        await stayer.holds()
        await stayer.end()


@pytest.mark.parametrize("others", [0, 1])
async def test_leaving_in_the_moment_of_the_grant_passes_the_slot_on(others: int) -> None:
    """The slot was granted and the task was cancelled before it could run: the next one has it, or nobody."""
    gate = gate_of(concurrent=1, queue=5)
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
            assert books(gate) == (1, 0, 0)
            await stream.end()
        assert books(gate) == (0, 0, 0)


async def test_cancelled_exactly_between_grant_and_wake() -> None:
    """Nothing runs between the two: the books say one, then pass it on."""
    gate = gate_of(concurrent=1, queue=5)
    await gate.enter()
    unlucky, heir = Stream(gate), Stream(gate)
    await turns()
    gate.leave()
    assert books(gate) == (1, 1, 1)
    unlucky.task.cancel()
    await heir.holds()
    assert not unlucky.held.is_set() and unlucky.task.cancelled()
    await heir.end()
    assert books(gate) == (0, 0, 0)


async def test_cancelled_exactly_before_the_grant() -> None:
    """The task was cancelled and has not run yet when a slot comes: the slot goes to the next, and only there."""
    gate = gate_of(concurrent=1, queue=5)
    await gate.enter()
    unlucky, heir = Stream(gate), Stream(gate)
    await turns()
    unlucky.task.cancel()
    gate.leave()
    assert books(gate) == (1, 0, 0)
    await heir.holds()
    await heir.end()
    await unlucky.end()
    assert books(gate) == (0, 0, 0)


async def test_all_cancelled_before_the_grant() -> None:
    """With nobody left to have it the slot is free."""
    gate = gate_of(concurrent=1, queue=5)
    await gate.enter()
    unlucky = [Stream(gate) for _ in range(3)]
    await turns()
    for stream in unlucky:
        stream.task.cancel()
    gate.leave()
    assert books(gate) == (0, 0, 0)
    for stream in unlucky:
        await stream.end()
    assert books(gate) == (0, 0, 0)


async def test_a_timeout_in_the_moment_of_the_grant_passes_the_slot_on() -> None:
    """The deadline fires while the grant is on its way: refused, and the slot is the next one's."""
    now = 0.0
    gate = gate_of(concurrent=1, queue=5, max_wait=0.05, clock=lambda: now)
    await gate.enter()
    unlucky = Stream(gate)
    await turns()
    # The timeout's callback cancels the task; the grant comes in the same turn, before the task can run.
    timeout: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.05, timeout.set_result, None)
    await timeout
    gate.leave()
    outcome = await unlucky.end()
    assert outcome is None or (isinstance(outcome, Refusal) and outcome.reason is Reason.QUEUE_TIMEOUT)
    assert books(gate) == (0, 0, 0)


async def test_no_slot_leaks_under_a_thousand_random_cancels() -> None:
    """Arrivals, ends and cancellations at every moment: never above the limit, and in the end all is free."""
    choose = random.Random(20)
    gate = gate_of(concurrent=4, queue=6, max_wait=30.0)
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
        taken, waiting, line = books(gate)
        most = max(most, taken)
        assert 0 <= taken <= 4
        assert 0 <= waiting <= 6 and line <= 6
    assert most == 4
    for stream in streams:
        stream.go.set()
    for stream in streams + leaving:
        await stream.end()
    assert books(gate) == (0, 0, 0)
