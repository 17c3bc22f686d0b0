"""Ten thousand clients that leave, in every phase: how soon the upstream sees it, and that nothing is left of them."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from stage import Peer, Scripted, Stage

from streamgate.edge.outlet import EdgeOutlet
from streamgate.relay.passage import Passage
from streamgate.server import Server
from streamgate.upstream.client import Exchange
from tests.wire.conftest import stage
from tests.wire.test_cancellation import LEAVE, PHASES, one_abort
from tests.wire.test_faults import Level, outcomes

__all__ = ["stage"]  # the fixture

pytestmark = pytest.mark.anyio

# What one stream is made of: a leak of anything holds one of these.
PARTS = (Passage, EdgeOutlet, Exchange, Peer)


class Engine:
    """An upstream that does what the phase says, and keeps nothing of those that left."""

    def __init__(self) -> None:
        self.scripted: Scripted | None = None
        self.phase = next(iter(PHASES))

    async def __call__(self, peer: Peer) -> None:
        assert self.scripted is not None
        try:
            await PHASES[self.phase][0](peer)
        finally:
            peer.writer.transport.abort()
            self.scripted.peers.remove(peer)


async def started(stage: Stage) -> tuple[Engine, Scripted, Server]:
    engine = Engine()
    engine.scripted = await stage.upstream(engine)
    return engine, engine.scripted, await stage.gateway(engine.scripted)


async def leave_many(stage: Stage, count: int, until: Callable[..., Awaitable[None]]) -> None:
    """So many aborts, spread over phases and ways; the books, tasks, descriptors and objects are as at the start."""
    before = alive()
    engine, upstream, server = await started(stage)
    level = Level()
    ways = [(phase, how) for phase in PHASES for how in LEAVE]
    told: Counter[str] = Counter()
    for number in range(count):
        engine.phase, how = ways[number % len(ways)]
        await one_abort(stage, server, upstream, engine.phase, how)
        told["client_closed" if PHASES[engine.phase][2] else "client_gave_up"] += 1
    await until(lambda: server.observer.statistics()["ended"] == count)
    assert outcomes(server) == told
    await level.restored(server, until)
    books = server.gateway.upstreams.statistics()["up0"]
    assert (books.opened, books.closed) == (count, count)
    assert alive() == before


def alive() -> int:
    """Parts of streams that the collector cannot free."""
    gc.collect()
    return sum(isinstance(each, PARTS) for each in gc.get_objects())


async def test_a_thousand_aborts(stage: Stage, until: Any) -> None:
    """A tenth of the soak's count, on every run."""
    await leave_many(stage, 1000, until)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_ten_thousand_aborts(stage: Stage, until: Any) -> None:
    """Zero leaked tasks, descriptors, connections, slots."""
    await leave_many(stage, 10_000, until)


@pytest.mark.soak
@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", LEAVE)
@pytest.mark.parametrize("phase", PHASES)
async def test_how_soon(stage: Stage, phase: str, how: str, until: Any) -> None:
    """The upstream sees the close within 50 ms at the 99th percentile of 200 tries."""
    engine, upstream, server = await started(stage)
    engine.phase = phase
    level = Level()
    lags = sorted([await one_abort(stage, server, upstream, phase, how) for _ in range(200)])
    print(f"{phase}, {how}: p50 {lags[100] * 1000:.2f} ms, p99 {lags[197] * 1000:.2f} ms")  # noqa: T201 - for the report
    assert lags[197] <= 0.05
    await level.restored(server, until)


@pytest.mark.soak
@pytest.mark.timeout(120)
async def test_many_at_once(stage: Stage, until: Any) -> None:
    """Two hundred clients that leave in the same moment: every upstream sees it within a second."""
    engine, upstream, server = await started(stage)
    engine.phase = "mid-stream"
    level = Level()
    clients = [await stage.chat(server) for _ in range(200)]
    for client in clients:
        await client.head()
        await client.piece()
    assert len(upstream.peers) == 200
    for number, client in enumerate(clients):
        (client.close if number % 2 else client.reset)()
    await until(lambda: not upstream.peers, 1)
    await level.restored(server, until)
