"""The gate before a store that several replicas share: the store has the last word, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from anyio.lowlevel import checkpoint
from ledgers import claim, gateway, streams

from streamgate.admission.claim import Bound, Claim, Level, Limits
from streamgate.admission.gate import ASK_AGAIN, Gate, Lease, QueueSettings
from streamgate.admission.remote import Answer, Verdict
from streamgate.errors import Reason, Refusal

pytestmark = pytest.mark.anyio

MINE = claim(gateway(3))
FULL = Verdict(Answer.FULL, MINE.shared[0])
TAKEN = Verdict(Answer.TAKEN)


class Store:
    """Answers with what it is told to, in order, then always TAKEN; keeps the books of what is taken."""

    def __init__(self, *verdicts: Verdict | BaseException) -> None:
        self.verdicts = list(verdicts)
        self.held: dict[str, str] = {}
        self.asked: list[tuple[str, ...]] = []
        self.settled: list[int] = []
        self.movable = True
        self.wake: Callable[[], None] = lambda: None
        self.closed = asyncio.Event()
        self.closed.set()

    async def take(self, lease: str, claim: Claim, tokens: int, order: Sequence[str]) -> Verdict:
        self.asked.append(tuple(order))
        await self.closed.wait()
        verdict = self.verdicts.pop(0) if self.verdicts else Verdict(Answer.TAKEN, upstream=order[0] if order else "")
        if isinstance(verdict, BaseException):
            raise verdict
        if verdict.answer is Answer.TAKEN:
            assert lease not in self.held
            self.held[lease] = verdict.upstream
        return verdict

    async def move(self, lease: str, claim: Claim, upstream: str) -> bool:
        await self.closed.wait()
        if self.movable:
            self.held[lease] = upstream
        return self.movable

    def give_back(self, lease: str, claim: Claim) -> None:
        del self.held[lease]

    def settle(self, claim: Claim, tokens: int, upstream: str = "") -> None:
        self.settled.append(tokens)

    def on_freed(self, wake: Callable[[], None]) -> None:
        self.wake = wake


def gate_of(store: Store, *, queue: int = 5, max_wait: float = 10.0) -> Gate:
    return Gate(QueueSettings(queue=queue, max_wait=max_wait), time.monotonic, store)


def used(gate: Gate) -> int:
    return sum(count.used for count in gate.ledger.register.counts.values())


def empty(gate: Gate, store: Store) -> bool:
    gate.close()
    return (gate.ledger.taken, gate.ledger.waiting, used(gate), store.held) == (0, 0, 0, {})


async def turns() -> None:
    for _ in range(5):
        await checkpoint()


@asynccontextmanager
async def entering(gate: Gate, claim: Claim = MINE, order: Sequence[str] = ()) -> AsyncIterator[asyncio.Task[Lease]]:
    """One that tries to get in; it is out again afterwards, however far it came."""
    lease = gate.lease(claim, order=lambda: order)
    task = asyncio.get_running_loop().create_task(lease.__aenter__())
    await turns()
    yield task
    task.cancel()
    await asyncio.wait([task])
    await lease.__aexit__(None, None, None)


async def test_taken_here_and_there() -> None:
    """And given back at both."""
    gate = gate_of(store := Store())
    async with gate.lease(MINE, tokens=5) as lease:
        assert store.held == {lease.name: ""} and gate.ledger.taken == 1
        lease.settle(25)
        lease.settle(99)
    assert store.settled == [20]
    assert empty(gate, store)


async def test_full_here_is_not_asked_there() -> None:
    """A replica alone never has more than the limit, whatever the store says."""
    gate = gate_of(store := Store(), queue=0)
    one = claim(gateway(1))
    async with gate.lease(one):
        with pytest.raises(Refusal):
            await gate.lease(one).__aenter__()
        assert len(store.asked) == 1
    assert empty(gate, store)


@pytest.mark.parametrize(
    ("verdict", "status", "reason", "code"),
    [
        (Verdict(Answer.FULL, Bound(Level.KEY, "k", Limits()), 3.0), 429, Reason.CONCURRENCY, "concurrency"),
        (Verdict(Answer.FULL, Bound(Level.TENANT, "k", Limits())), 429, Reason.CONCURRENCY, "concurrency"),
        (Verdict(Answer.RATE, Bound(Level.KEY, "k", Limits()), 3.0), 429, Reason.RATE, "rate"),
        (Verdict(Answer.RATE, Bound(Level.MODEL, "m", Limits()), 3.0), 503, Reason.RATE, "rate"),
        (Verdict(Answer.RATE), 503, Reason.RATE, "rate"),
        (Verdict(Answer.UNAVAILABLE), 503, Reason.OVERLOAD, "limits_unavailable"),
    ],
)
async def test_denied_there(verdict: Verdict, status: int, reason: Reason, code: str) -> None:
    """What is not waited for is refused, and the local books are as before."""
    gate = gate_of(store := Store(verdict))
    mine = claim(gateway(3), own=[Bound(Level.KEY, "k", Limits(concurrent=1, requests_per_minute=5))])
    with pytest.raises(Refusal) as refused:
        await gate.lease(mine).__aenter__()
    assert (refused.value.status, refused.value.reason, refused.value.code) == (status, reason, code)
    assert refused.value.retry_after == (verdict.retry_after or 1.0)
    quota = gate.quota(mine)
    assert quota is not None and quota.remaining_requests == 5
    assert empty(gate, store)


async def test_full_there_is_waited_for() -> None:
    """Whoever comes later queues behind without asking; when something comes free one asks, then all."""
    gate = gate_of(store := Store(FULL, FULL))
    async with entering(gate) as first, entering(gate) as second:
        assert len(store.asked) == 1 and gate.ledger.waiting == 2
        store.wake()
        await turns()
        assert len(store.asked) == 2 and gate.ledger.waiting == 2
        store.wake()
        await turns()
        assert first.done() and second.done() and len(store.held) == 2
    assert empty(gate, store)


async def test_it_asks_again_by_itself() -> None:
    """At the latest after a quarter of a second, when nobody said that something came free."""
    gate = gate_of(store := Store(FULL, FULL))
    started = time.monotonic()
    async with gate.lease(MINE):
        assert time.monotonic() - started + 0.02 >= ASK_AGAIN * 2
    assert len(store.asked) == 3
    assert empty(gate, store)


async def test_an_own_stream_that_ends_makes_one_ask() -> None:
    """What came free here may be had by who waits here."""
    gate = gate_of(store := Store(TAKEN, FULL))
    lease = await gate.lease(MINE).__aenter__()
    async with entering(gate) as waiting:
        assert gate.ledger.waiting == 1
        await lease.__aexit__(None, None, None)
        await turns()
        assert waiting.done()
    assert empty(gate, store)


async def test_without_a_queue_full_there_is_refused() -> None:
    """503, and nothing is kept."""
    gate = gate_of(store := Store(FULL), queue=0)
    with pytest.raises(Refusal) as refused:
        await gate.lease(MINE).__aenter__()
    assert (refused.value.reason, refused.value.status) == (Reason.CONCURRENCY, 503)
    assert empty(gate, store)


async def test_a_wait_for_the_store_has_an_end() -> None:
    """The deadline is that of the queue."""
    gate = gate_of(store := Store(FULL, FULL), max_wait=0.05)
    with pytest.raises(Refusal) as refused:
        await gate.lease(MINE).__aenter__()
    assert refused.value.reason is Reason.QUEUE_TIMEOUT
    assert empty(gate, store)


async def test_who_was_there_before_keeps_its_place() -> None:
    """Two that were granted here and refused there are first again, in their order, when the queue has filled up."""
    gate = gate_of(store := Store(FULL), queue=3)
    async with entering(gate) as a, entering(gate) as b, entering(gate) as c:
        store.closed.clear()
        store.verdicts = [FULL]
        store.wake()
        await turns()
        assert gate.ledger.waiting == 2
        async with entering(gate) as late:
            assert gate.ledger.waiting == 3
            store.closed.set()
            await turns()
            assert gate.ledger.waiting == 3 and isinstance(late.exception(), Refusal)
        assert [task.done() for task in (a, b, c)] == [False] * 3
        gate.ledger.log = []
        store.wake()
        await turns()
        assert [note.number for note in gate.ledger.log if note.what == "grant"] == [1, 2, 3]
    assert empty(gate, store)


UPSTREAMS = claim(upstreams=[streams(Level.UPSTREAM, 1, name) for name in "ab"])


async def test_the_store_chooses_among_those_with_room() -> None:
    """Those that are full here are not in question."""
    gate = gate_of(store := Store(Verdict(Answer.TAKEN, upstream="b")))
    async with gate.lease(UPSTREAMS, order=lambda: "ab") as first:
        assert (first.upstream, first.seat is not None and first.seat.name) == ("b", "b")
        async with gate.lease(UPSTREAMS, order=lambda: "ba") as second:
            assert second.upstream == "a"
    assert store.asked == [("a", "b"), ("a",)]
    assert empty(gate, store)


async def test_an_upstream_that_was_taken_here_meanwhile() -> None:
    """The store's slot is given back, and it asks again for what there is."""
    gate = gate_of(store := Store(Verdict(Answer.TAKEN, upstream="b")))
    store.closed.clear()
    async with entering(gate, UPSTREAMS, "ab") as first:
        gate.arrive(other := gate.lease(UPSTREAMS, order=lambda: "b"))
        store.closed.set()
        await turns()
        assert first.result().upstream == "a" and store.asked == [("a", "b"), ("a",)]
        gate.ledger.withdraw(other, 0.0)
    assert empty(gate, store)


async def test_an_upstream_that_is_full_there() -> None:
    """Another one with room is asked for at once; when both are full, it waits."""
    verdicts = [Verdict(Answer.FULL, bound) for bound in UPSTREAMS.upstreams]
    gate = gate_of(store := Store(*verdicts))
    async with entering(gate, UPSTREAMS, "ab") as waiting:
        assert store.asked == [("a", "b"), ("b",)] and gate.ledger.waiting == 1
        store.wake()
        await turns()
        assert waiting.result().upstream == "a"
    assert empty(gate, store)


async def test_full_without_saying_where() -> None:
    """Then it is all that is waited for."""
    gate = gate_of(store := Store(Verdict(Answer.FULL)))
    async with entering(gate, UPSTREAMS, "ab") as waiting:
        assert gate.ledger.waiting == 1
        store.wake()
        await turns()
        assert waiting.done()
    assert empty(gate, store)


@pytest.mark.parametrize("movable", [True, False])
async def test_a_failover_moves_both_slots_or_none(movable: bool) -> None:
    """Full there is as full here."""
    gate = gate_of(store := Store())
    async with gate.lease(UPSTREAMS, order=lambda: "ab") as lease:
        store.movable = movable
        assert await lease.move("b") is movable
        assert lease.upstream == store.held[lease.name] == ("b" if movable else "a")
        assert [count.used for count in gate.ledger.register.counts.values()] == ([0, 1] if movable else [1, 0])
    assert empty(gate, store)


async def test_a_cancelled_failover() -> None:
    """The local slot beside is given back; the store gives back all of a lease anyway."""
    gate = gate_of(store := Store())
    async with gate.lease(UPSTREAMS, order=lambda: "ab") as lease:
        store.closed.clear()
        moving = asyncio.get_running_loop().create_task(lease.move("b"))
        await turns()
        assert used(gate) == 2
        moving.cancel()
        await asyncio.wait([moving])
        assert lease.upstream == "a" and used(gate) == 1
    assert empty(gate, store)


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_interrupted_while_it_asks(how: str) -> None:
    """The local slots come back, and go to who waits here."""
    gate = gate_of(store := Store())
    store.closed.clear()
    one = claim(gateway(1))
    async with entering(gate, one) as first, entering(gate, one) as second:
        assert (gate.ledger.taken, gate.ledger.waiting) == (1, 1)
        if how == "cancelled":
            first.cancel()
        else:
            store.verdicts = [RuntimeError("a bug")]
        store.closed.set()
        await turns()
        assert (first.cancelled() or isinstance(first.exception(), RuntimeError)) and second.done()
    assert empty(gate, store)
