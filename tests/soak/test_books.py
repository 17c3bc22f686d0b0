"""Two thousand random abuses, by upstreams and clients at once: afterwards the books balance and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from stage import Client, Stage

from streamgate import demo
from streamgate.server import Server
from tests.soak.test_aborts import alive
from tests.wire import raw_requests
from tests.wire.conftest import stage
from tests.wire.test_faults import ROWS, Level, kept, outcomes, question, serves
from tests.wire.test_request_policy import BODIES

__all__ = ["stage"]  # the fixture

pytestmark = pytest.mark.anyio

ALIKE = 24  # abuses under way at once
MODELS = sorted(
    {row.model for row in ROWS} | {"demo-n4-t5", "demo-t0-flood2000000", "demo-n4-t0-stale", "demo-n2-twice"}
)
# Which clock ends a stream is not asked here; that many end, quickly, is.
HURRIED = {"first_token": 0.15, "idle": 0.15, "connect": 0.15, "answer": 0.15, "send": 0.3}

PATHS = ["/v1/chat/completions"] * 6 + [
    "/v1/completions",
    "/v1/messages",
    "/api/chat",
    "/v1/models",
    "/none",
]

Abuse = Callable[[Stage, Server, random.Random], Awaitable[None]]


class Leaving(NamedTuple):
    """When a client goes, and how."""

    after: str  # "all": it reads everything; "head", "piece"; or "" for some milliseconds
    how: Callable[[Client], None]


async def asking(stage: Stage, server: Server, chance: random.Random) -> None:
    """Some model on some path, streaming or not; the client reads all, or leaves at some point, in some way."""
    client = await stage.client(server)
    path = chance.choice(PATHS)
    body = question(chance.choice(MODELS), stream=chance.random() < 0.8)
    client.post(path, body | {"prompt": "x", "input": "x"})
    leaving = Leaving(chance.choice(["all", "all", "head", "piece", ""]), chance.choice([Client.close, Client.reset]))
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await until_leaving(client, leaving, chance.random() * 0.03)
    leaving.how(client)


async def until_leaving(client: Client, leaving: Leaving, seconds: float) -> None:
    if leaving.after == "":
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await asyncio.wait([never], timeout=seconds)
        return
    await client.head()
    if leaving.after == "piece" and "transfer-encoding" in client.headers:
        await client.piece()
    elif leaving.after == "all":
        await client.body()


async def never_reading(stage: Stage, server: Server, chance: random.Random) -> None:
    """A client with a small window that takes nothing, until it is cut or leaves."""
    client = await stage.client(server, receive_buffer=4096)
    client.writer.transport.pause_reading()
    client.post(PATHS[0], question("demo-t0-flood2000000", stream=True))
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await asyncio.wait([never], timeout=chance.random() * 0.5)
    client.reset()


async def malformed(stage: Stage, server: Server, chance: random.Random) -> None:
    """A row of the table of raw requests, or a bad body."""
    if chance.random() < 0.5:
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        with contextlib.suppress(asyncio.IncompleteReadError):
            await raw_requests.send((host, int(port)), chance.choice(raw_requests.ROWS))
        return
    client = await stage.client(server)
    client.post(chance.choice(PATHS), chance.choice(BODIES).body)
    assert 400 <= await client.head() < 500
    client.close()


async def half_a_request(stage: Stage, server: Server, chance: random.Random) -> None:
    """A client that leaves while it sends."""
    client = await stage.client(server)
    raw = raw_requests.head(raw_requests.LENGTH) + raw_requests.BODY
    client.send(raw[: chance.randrange(len(raw))])
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await asyncio.wait([never], timeout=chance.random() * 0.02)
    chance.choice([Client.close, Client.reset])(client)


ABUSES: list[Abuse] = [asking] * 14 + [malformed] * 4 + [half_a_request] * 3 + [never_reading]


@pytest.fixture
async def upstreams(anyio_backend: Any) -> AsyncIterator[list[demo.DemoUpstream]]:
    async with await demo.start() as first, await demo.start() as second:
        yield [first, second]


async def abused(
    stage: Stage, upstreams: list[demo.DemoUpstream], count: int, seed: int, until: Callable[..., Awaitable[None]]
) -> None:
    """Run so many abuses, some at once; then look at the books."""
    before = alive()
    clocks = HURRIED | {"heartbeat": 0.02, "early_commit": 0.05, "stall": 0.05}
    limits = {"concurrent": 16, "queue": 4, "max_wait": 0.05, "max_event": 65536}
    urls = [upstream.url for upstream in upstreams]
    server = await stage.gateway(*urls, clocks=clocks, limits=limits, edge={"head_timeout": 0.2, "body_timeout": 0.2})
    level = Level()
    chance = random.Random(seed)
    todo = iter([(chance.choice(ABUSES), random.Random(chance.random())) for _ in range(count)])

    async def worker() -> None:
        for abuse, own in todo:
            await abuse(stage, server, own)

    async with asyncio.TaskGroup() as group:
        for _ in range(ALIKE):
            group.create_task(worker())
    for client in stage._clients:
        client.writer.transport.abort()
    await level.restored(server, until)
    counts = server.observer.statistics()
    assert counts["started"] == counts["ended"] > count / 3
    assert "internal_error" not in outcomes(server), outcomes(server)
    assert len(outcomes(server)) >= 7
    for upstream in upstreams:
        await upstream.wait_idle()
    await until(lambda: sum(up.connections_now for up in upstreams) == kept(server), 2)
    assert alive() == before
    await serves(stage, server.url)


@pytest.mark.parametrize("seed", [1, 2])
async def test_two_hundred_abuses(stage: Stage, upstreams: list[demo.DemoUpstream], seed: int, until: Any) -> None:
    """A tenth of the soak's count, on every run."""
    await abused(stage, upstreams, 200, seed, until)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
async def test_two_thousand_abuses(stage: Stage, upstreams: list[demo.DemoUpstream], seed: int, until: Any) -> None:
    """Started is the sum of outcomes, opened is closed and pooled, and nothing is left of any of it."""
    await abused(stage, upstreams, 2000, seed, until)
