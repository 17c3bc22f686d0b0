"""What admission says of itself at a scrape: slots, the queue, shedding, the store, the keys file; and no names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text
from stage import Client, Peer, Stage, delta

from streamgate.observe.exposition import Exposition
from streamgate.server import Server
from tests.redis_server import RedisServer, redis_server

pytestmark = pytest.mark.anyio

PATIENCE = 10.0  # s
NAMES = ("acme-key", "acme-tenant", "night-key", "night-tenant", "small-key", "small-tenant")  # none is part of a word


class Seen:
    """One scrape, by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [sample for family in parse_text(text) for sample in family.samples]

    def __call__(self, metric: str, /, **labels: str) -> float:
        """The sum over all samples with these labels."""
        return sum(each.value for each in self.of(metric) if labels.items() <= each.labels.items())

    def of(self, metric: str) -> list[Any]:
        return [each for each in self.samples if each.name == f"streamgate_{metric}"]

    def slots(self, level: str, name: str) -> tuple[float, float]:
        """In use, and how many there are."""
        return self("slots_used", level=level, name=name), self("slots_limit", level=level, name=name)


async def scraped(server: Server) -> Seen:
    body, _ = await Exposition(server.observer, kept=0.0)("")
    return Seen(body.decode())


async def shows(server: Server, what: Callable[[Seen], object]) -> Seen:
    """Scrape until it does."""
    async with asyncio.timeout(PATIENCE):
        while not what(seen := await scraped(server)):
            pass
    return seen


async def endless(peer: Peer) -> None:
    peer.stream(delta("a"))
    await peer.closed()


def key(who: str, **more: Any) -> dict[str, Any]:
    return {"name": f"{who}-key", "tenant": f"{who}-tenant", "sha256": sha256(who.encode()).hexdigest()} | more


async def asked(stage: Stage, server: Server, who: str) -> Client:
    """A request under way, with this one's key."""
    return await stage.chat(server, "llama-8b", f"authorization: Bearer {who}")


async def crowded(stage: Stage) -> tuple[Server, list[Client]]:
    """Two slots, both in use, one of them by a key that may have no second one."""
    upstream = await stage.upstream(endless)
    server = await stage.gateway(
        upstreams=[{"name": "gpu", "url": upstream.url, "limits": {"concurrent": 3}}],
        routes=[{"models": ["llama-*"], "upstreams": ["gpu"], "limits": {"concurrent": 4}}],
        keys=[key("acme"), key("night", priority="batch"), key("small", limits={"concurrent": 1})],
        tenants=[{"name": "acme-tenant", "limits": {"concurrent": 40, "requests_per_minute": 900}}],
        limits={"concurrent": 2, "queue": 5, "max_wait": 30},
    )
    running = [await asked(stage, server, "small"), await asked(stage, server, "acme")]
    assert [await each.head() for each in running] == [200, 200]
    return server, running


async def test_slots_and_queue_show_as_they_are(stage: Stage) -> None:
    """Two slots used of each level's limit, three waiting in two classes, one refused by its own limit."""
    server, running = await crowded(stage)
    refused = await asked(stage, server, "small")
    assert await refused.head() == 429
    waiting = [await asked(stage, server, who) for who in ("acme", "acme", "night")]
    seen = await shows(server, lambda seen: seen("queue_waiting") == 3 and seen("queue_oldest_seconds") > 0.05)
    assert seen.slots("global", "gateway") == (2, 2)
    assert seen.slots("model", "llama-*") == (2, 4)
    assert seen.slots("upstream", "gpu") == (2, 3)
    assert len(seen.of("slots_used")) == len(seen.of("slots_limit")) == 3
    assert [seen("queue_waiting", priority=name) for name in ("interactive", "batch")] == [2, 1]
    assert (seen("queue_limit"), seen("queue_max_wait_seconds")) == (5, 30)
    assert (seen("streams_active"), seen("streams_active", phase="queued")) == (5, 3)
    assert seen("requests_rejected_total") == seen("requests_rejected_total", reason="concurrency") == 1
    assert seen("queue_wait_seconds_count", priority="interactive") == seen("queue_wait_seconds_count") == 2
    assert [name for name in NAMES if name in seen.text] == []
    for each in running:
        each.close()
    seen = await shows(server, lambda seen: seen("queue_waiting") == 1)
    for each in waiting:
        each.close()
    seen = await shows(server, lambda seen: seen("slots_used") == 0 == seen("queue_waiting"))
    assert seen("queue_oldest_seconds") == 0
    assert [name for name in NAMES if name in seen.text] == []


async def test_a_wait_is_counted_in_its_class_when_it_has_ended_well(stage: Stage) -> None:
    """The one of batch waited until a stream ended; who left the queue counts as nobody's wait."""
    server, running = await crowded(stage)
    await asked(stage, server, "night")
    await shows(server, lambda seen: seen("queue_waiting", priority="batch") == 1)
    left = await asked(stage, server, "acme")
    await shows(server, lambda seen: seen("queue_waiting") == 2 and seen("queue_oldest_seconds") > 0.05)
    left.close()
    await shows(server, lambda seen: seen("queue_waiting") == 1)
    running[0].close()
    seen = await shows(server, lambda seen: seen("queue_wait_seconds_count", priority="batch") == 1)
    assert seen("queue_wait_seconds_sum", priority="batch") > 0.05
    assert seen("queue_wait_seconds_count", priority="interactive") == 2
    assert seen("requests_rejected_total", reason="client_left") == 1


async def test_without_limits_there_are_none_and_without_a_store_nothing_is_said_of_one(stage: Stage) -> None:
    """Only the gateway's own level, without a limit; no series of a store, so that no alert takes it for down."""
    server = await stage.gateway(await stage.upstream(endless))
    assert await (await asked(stage, server, "anybody")).head() == 200
    seen = await scraped(server)
    assert seen.slots("global", "gateway") == (1, 0)
    assert len(seen.of("slots_used")) == 1
    assert seen("queue_limit") == seen("overloaded") == seen("keys_file_refused_total") == 0
    assert {each.labels["cause"] for each in seen.of("overloaded")} == {"lag", "memory"}
    assert {each.labels["priority"] for each in seen.of("queue_waiting")} == {"interactive", "batch"}
    assert not [each for each in seen.samples if "_store_" in each.name or "lease_renewals" in each.name]


async def test_shedding_shows_with_its_cause(stage: Stage) -> None:
    """While newcomers are refused, and for what."""
    server = await stage.gateway(await stage.upstream(endless), limits={"shed": {"lag": 0.2, "memory": 1}})
    server.gateway.lagged(1.0)
    seen = await scraped(server)
    assert [seen("overloaded", cause=cause) for cause in ("lag", "memory")] == [0, 1]
    server.gateway.lagged(1.0)
    assert (await scraped(server))("overloaded", cause="lag") == 1
    client = await asked(stage, server, "anybody")
    assert await client.head() == 503
    seen = await shows(server, lambda seen: seen("requests_rejected_total") == 1)
    assert seen("requests_rejected_total", reason="overload") == 1


async def test_a_keys_file_that_cannot_be_used_is_counted(stage: Stage, tmp_path: Path) -> None:
    """Once, when it has changed; its keys stay in force."""
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"- {{name: acme-key, sha256: {sha256(b'acme').hexdigest()}}}\n")
    server = await stage.gateway(await stage.upstream(endless), keys=None, keys_file=str(keys))
    assert await (await asked(stage, server, "acme")).head() == 200
    keys.write_text("- {name: acme-key}\n")
    async with asyncio.timeout(PATIENCE):
        while not (seen := await scraped(server))("keys_file_refused_total"):
            assert await (await asked(stage, server, "acme")).head() == 200
    assert seen("keys_file_refused_total") == 1


@pytest.fixture
def store(need: Callable[[str], str], tmp_path: Path) -> Any:
    with redis_server(need("redis-server"), tmp_path) as started:
        yield started


async def test_the_store_shows_up_down_and_what_came_of_asking_it(stage: Stage, store: RedisServer) -> None:
    """Asked once per request; denied for what others hold; let in without it while it is down, and that is counted."""
    shared = {"concurrent": 1, "store": store.url, "lease_ttl": 0.5, "store_timeout": 1}
    one, other = [await stage.gateway(await stage.upstream(endless), limits=shared) for _ in range(2)]
    seen = await shows(one, lambda seen: seen("limits_store_up") == 1)
    assert {each.labels["result"]: each.value for each in seen.of("limits_store_results_total")} == dict.fromkeys(
        ("denied", "timeout", "failed_open", "failed_closed"), 0
    )
    first = await asked(stage, one, "anybody")
    assert await first.head() == 200
    await shows(one, lambda seen: seen("lease_renewals_total", result="ok") > 0)
    await shows(other, lambda seen: seen("limits_store_up") == 1)
    assert await (await asked(stage, other, "anybody")).head() == 503
    seen = await scraped(other)
    assert (seen("limits_store_asked_total"), seen("limits_store_results_total", result="denied")) == (1, 1)
    store.kill()
    await shows(one, lambda seen: seen("limits_store_up") == 0)  # it renews; the other one asks for nothing
    async with asyncio.timeout(PATIENCE):  # for 0.25 s after a denial its own books say no
        while await (await asked(stage, other, "anybody")).head() != 200:
            pass
    seen = await scraped(other)
    assert (seen("limits_store_asked_total"), seen("limits_store_results_total", result="failed_open")) == (2, 1)
    assert seen("limits_store_up") == 0
    assert (await scraped(one))("lease_renewals_total", result="failed") > 0
