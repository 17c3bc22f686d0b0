"""What admission costs: CPU microseconds for one request that enters and leaves, in memory.

The claim has all four levels that most requests have (gateway, model, tenant, key), each with streams, requests and
tokens per minute. Run it as `python benchmarks/admission.py`; the target is 15 us.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from streamgate.admission.claim import Bound, Claim, Level, Limits, Priority
from streamgate.admission.gate import Gate, Lease, QueueSettings

TARGET = 15.0
ROUNDS = 7
WAITING = 1000
LINES = 20
PRIORITIES = (Priority(name="interactive", weight=4.0, reserved=0.1), Priority(name="batch"))
MANY = 100_000_000  # a minute: a limit that is looked at and never reached


def claim(tenant: str, priority: str, streams: int, *, upstreams: int = 0) -> Claim:
    limits = Limits(concurrent=streams, requests_per_minute=MANY, tokens_per_minute=MANY)
    loose = Limits(concurrent=MANY, requests_per_minute=MANY, tokens_per_minute=MANY)
    return Claim(
        own=(Bound(Level.KEY, tenant, loose), Bound(Level.TENANT, tenant, loose)),
        shared=(Bound(Level.GLOBAL, "", limits), Bound(Level.MODEL, "model", loose)),
        upstreams=tuple(Bound(Level.UPSTREAM, str(number), loose) for number in range(upstreams)),
        tenant=tenant,
        priority=priority,
        route="model",
    )


def claims(streams: int) -> list[Claim]:
    return [claim(f"tenant {n // 2}", PRIORITIES[n % 2].name, streams) for n in range(LINES)]


async def alone(requests: int, *, upstreams: int = 0) -> float:
    """Room for everybody."""
    gate = Gate(QueueSettings(queue=WAITING, priorities=PRIORITIES), time.monotonic)
    mine = claim("tenant", "batch", 500, upstreams=upstreams)
    order = [str(number) for number in range(upstreams)]
    began = time.process_time()
    for _ in range(requests):
        async with gate.lease(mine, tokens=300, order=lambda: order) as lease:
            lease.settle(250)
    return (time.process_time() - began) / requests


async def crowd(gate: Gate, streams: int) -> tuple[list[Claim], list[Lease], list[asyncio.Task[Lease]]]:
    """All slots in use, and a thousand who wait."""
    mine = claims(streams)
    held = [await gate.lease(mine[n % LINES]).__aenter__() for n in range(streams)]
    loop = asyncio.get_running_loop()
    waiting = [loop.create_task(gate.lease(mine[n % LINES]).__aenter__()) for n in range(WAITING)]
    await asyncio.sleep(0)
    assert gate.ledger.waiting == WAITING
    return mine, held, waiting


async def crowded(requests: int) -> float:
    """One leaves, the next of a thousand comes in, and another one joins the queue; the ledger alone, and its tasks."""
    streams = 100
    gate = Gate(QueueSettings(queue=2 * WAITING, max_wait=1e9, priorities=PRIORITIES), time.monotonic)
    mine, held, waiting = await crowd(gate, streams)
    ledger, tickets = gate.ledger, [gate.lease(mine[n % LINES], tokens=300) for n in range(requests)]
    inside: list[Lease] = list(held)
    began = time.process_time()
    for number, ticket in enumerate(tickets):
        now = time.monotonic()
        ledger.arrive(ticket, now)
        inside += ledger.leave(inside[number], now)  # type: ignore[arg-type]
    spent = time.process_time() - began
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return spent / requests


async def refused(requests: int) -> float:
    """The queue is full: the longest line is found, the wait is estimated, the newcomer is told."""
    gate = Gate(QueueSettings(queue=WAITING, max_wait=1e9, priorities=PRIORITIES), time.monotonic)
    mine, _, waiting = await crowd(gate, 100)
    leases = [gate.lease(mine[n % LINES], tokens=300) for n in range(requests)]
    began = time.process_time()
    for lease in leases:
        gate.ledger.arrive(lease, time.monotonic())
    spent = time.process_time() - began
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return spent / requests


CASES: dict[str, Callable[[], Awaitable[float]]] = {
    "enter, settle and leave, with room": lambda: alone(20_000),
    "the same, and a slot of one of 3 upstreams": lambda: alone(20_000, upstreams=3),
    f"join the queue, leave, grant; {WAITING} wait in {LINES} lines": lambda: crowded(5_000),
    f"refused; {WAITING} wait in {LINES} lines": lambda: refused(5_000),
}


def main() -> int:
    print(f"| admission, CPU us per request (target {TARGET:g}) | median of {ROUNDS} | least |\n| --- | --- | --- |")
    medians = []
    for name, case in CASES.items():
        with asyncio.Runner() as runner:
            times = [1e6 * runner.run(measured(case)) for _ in range(ROUNDS)]
        medians.append(statistics.median(times))
        print(f"| {name} | {medians[-1]:.1f} | {min(times):.1f} |")
    return int(max(medians) > TARGET)


async def measured(case: Callable[[], Awaitable[float]]) -> float:
    return await case()


if __name__ == "__main__":
    sys.exit(main())
