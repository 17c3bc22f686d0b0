"""Whatever happens in whichever turn of the loop, the gate lets in as many as it may and loses no slot."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from streamgate.admission.claim import Bound, Claim, Level, Limits
from streamgate.admission.gate import Gate, QueueSettings
from streamgate.admission.remote import Answer, Verdict
from streamgate.errors import Refusal

# What happens next: one arrives (for which tenant), the n-th of those alive ends or is cancelled, the loop turns once.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(0, 2)),
        st.just(("turn", 0)),
        st.tuples(st.sampled_from(["end", "cancel", "answer"]), st.integers(0, 5)),
    ),
    max_size=40,
)


class Store:
    """What several replicas share, in one process: slots, some of which another replica has; answers when told to."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.held: set[str] = set()
        self.asked: list[asyncio.Future[None]] = []
        self.wake: Callable[[], None] = lambda: None
        self.quick = False

    async def take(self, lease: str, claim: Claim, tokens: int, order: Sequence[str]) -> Verdict:
        if not self.quick:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.asked.append(turn)
            await turn
        assert lease not in self.held
        if len(self.held) >= self.slots:
            return Verdict(Answer.FULL, claim.shared[0])
        self.held.add(lease)
        return Verdict(Answer.TAKEN)

    async def move(self, lease: str, claim: Claim, upstream: str) -> bool:
        raise NotImplementedError

    def give_back(self, lease: str, claim: Claim) -> None:
        self.held.remove(lease)

    def settle(self, claim: Claim, tokens: int, upstream: str = "") -> None:
        raise NotImplementedError

    def on_freed(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    def answer(self) -> None:
        for turn in self.asked:
            if not turn.done():
                turn.set_result(None)
        self.asked.clear()


async def lived(  # noqa: C901 - one story
    slots: int, queue: int, steps: list[tuple[str, int]], store: Store | None = None
) -> None:
    loop = asyncio.get_running_loop()
    gate = Gate(QueueSettings(queue=queue, max_wait=30.0), time.monotonic, store)
    ledger = gate.ledger
    shared = (Bound(Level.GLOBAL, "", Limits(concurrent=slots)),)
    claims = [
        Claim(own=(Bound(Level.TENANT, name, Limits(concurrent=3)),), shared=shared, tenant=name) for name in "abc"
    ]
    inside: Counter[str] = Counter()

    async def stream(claim: Claim, go: asyncio.Event) -> None:
        async with gate.lease(claim):
            inside[claim.tenant] += 1
            assert not slots or inside.total() <= slots
            assert inside[claim.tenant] <= 3
            assert store is None or inside.total() <= len(store.held)
            try:
                await go.wait()
            finally:
                inside[claim.tenant] -= 1

    async def turn() -> None:
        turned = loop.create_future()
        loop.call_soon(turned.set_result, None)
        await turned

    alive: list[tuple[asyncio.Task[None], asyncio.Event]] = []
    everyone: list[asyncio.Task[None]] = []

    async def happens(step: str, which: int) -> None:
        if step == "arrive":
            go = asyncio.Event()
            alive.append((loop.create_task(stream(claims[which], go)), go))
            everyone.append(alive[-1][0])
        elif step == "turn":
            await turn()
        elif step == "answer" and store is not None:
            store.answer()
        elif step in ("end", "cancel") and alive:
            task, go = alive.pop(which % len(alive))
            go.set() if step == "end" else task.cancel()

    for step, which in steps:
        await happens(step, which)
        assert 0 <= ledger.waiting <= queue
        assert not slots or 0 <= ledger.taken <= slots
    for _, go in alive:
        go.set()
    if store is not None:
        store.quick = True
        store.answer()
        store.wake()
    results = await asyncio.wait_for(asyncio.gather(*everyone, return_exceptions=True), 2)
    unexpected = [each for each in results if not isinstance(each, Refusal | asyncio.CancelledError | None)]
    assert unexpected == []
    assert (ledger.taken, ledger.waiting, inside.total()) == (0, 0, 0)
    assert all(not count.used for count in ledger.register.counts.values())
    assert store is None or not store.held
    gate.close()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2), st.integers(0, 4), STEPS)
def test_no_order_of_events_loses_a_slot(slots: int, queue: int, steps: list[tuple[str, int]]) -> None:
    """Never more than may be inside; all is free at the end."""
    with asyncio.Runner() as runner:
        runner.run(lived(slots, queue, steps))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3), st.integers(0, 4), st.integers(1, 3), STEPS)
def test_nor_with_a_store_that_answers_late(slots: int, queue: int, shared: int, steps: list[tuple[str, int]]) -> None:
    """What was taken at the store is given back there, once, whenever the cancellation came."""
    with asyncio.Runner() as runner:
        runner.run(lived(slots, queue, steps, Store(shared)))
