"""Whatever happens in whichever turn of the loop, the gate lets in as many as it may and loses no slot."""

from __future__ import annotations

import asyncio
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from streamgate.admission.gate import Gate
from streamgate.admission.ledger import Ledger, Limits
from streamgate.errors import Refusal

# What happens next: one arrives, the n-th of those alive ends or is cancelled, or the loop turns once.
STEPS = st.lists(
    st.one_of(
        st.just(("arrive", 0)),
        st.just(("turn", 0)),
        st.tuples(st.sampled_from(["end", "cancel"]), st.integers(0, 5)),
    ),
    max_size=40,
)


async def lived(limits: Limits, steps: list[tuple[str, int]]) -> None:
    loop = asyncio.get_running_loop()
    ledger = Ledger(limits)
    gate = Gate(ledger, time.monotonic)
    arrivals: list[int] = []
    inside: list[int] = []

    async def stream(number: int, go: asyncio.Event) -> None:
        try:
            async with gate.lease():
                inside.append(number)
                assert not limits.concurrent or len(inside) <= limits.concurrent
                assert [n for n in arrivals if n < number] == [], "one who came earlier still waits"
                arrivals.remove(number)
                try:
                    await go.wait()
                finally:
                    inside.remove(number)
        except Refusal:
            arrivals.remove(number)
            raise

    async def turn() -> None:
        turned = loop.create_future()
        loop.call_soon(turned.set_result, None)
        await turned

    alive: list[tuple[asyncio.Task[None], asyncio.Event]] = []
    everyone: list[asyncio.Task[None]] = []
    for number, (step, which) in enumerate(steps):
        if step == "arrive":
            arrivals.append(number)
            go = asyncio.Event()
            alive.append((loop.create_task(stream(number, go), name=str(number)), go))
            everyone.append(alive[-1][0])
        elif step == "turn":
            await turn()
        elif alive:
            task, go = alive.pop(which % len(alive))
            if step == "end":
                go.set()
            else:
                task.cancel()
                gone = int(task.get_name())
                arrivals.remove(gone) if gone in arrivals else None
        assert 0 <= ledger.waiting <= limits.queue
        assert not limits.concurrent or 0 <= ledger.taken <= limits.concurrent
    for _, go in alive:
        go.set()
    results = await asyncio.wait_for(asyncio.gather(*everyone, return_exceptions=True), 2)
    unexpected = [each for each in results if not isinstance(each, Refusal | asyncio.CancelledError | None)]
    assert unexpected == []
    assert (ledger.taken, ledger.waiting, len(gate._waiting), inside) == (0, 0, 0, [])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2), st.integers(0, 4), STEPS)
def test_no_order_of_events_loses_a_slot(concurrent: int, queue: int, steps: list[tuple[str, int]]) -> None:
    """First come, first served; never more than may be inside; all is free at the end."""
    with asyncio.Runner() as runner:
        runner.run(lived(Limits(concurrent=concurrent, queue=queue, max_wait=30.0), steps))
