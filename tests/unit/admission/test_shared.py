"""Limits shared through a real Redis: nothing exceeded, nothing lost, nobody waits long for a store that is away."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from anyio.lowlevel import checkpoint

from streamgate.admission.claim import Bound, Claim, Level, Limits
from streamgate.admission.remote import Answer, Remote, Verdict
from streamgate.admission.shared import SharedLimits
from streamgate.admission.shared_places import Places
from streamgate.admission.shared_rounds import BATCH
from streamgate.admission.shared_scripts import GIVE_BACK, RENEW, TAKE
from streamgate.store import Script, Store
from tests.redis_server import RedisServer, redis_server

pytestmark = pytest.mark.anyio

Until = Callable[..., Any]
LOOK = Script("local used = {} for i, key in ipairs(KEYS) do used[i] = redis.call('ZCARD', key) end return used")


@pytest.fixture
def server(need: Callable[[str], str], tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(need("redis-server"), tmp_path) as started:
        yield started


@asynccontextmanager
async def replica(
    server: RedisServer,
    timeout: float = 2.0,  # noqa: ASYNC109 - the store's
    **options: Any,
) -> AsyncIterator[SharedLimits]:
    async with Store(server.url, timeout=timeout) as store, SharedLimits(store, **options) as limits:
        yield limits


def bound(level: Level, name: str = "", concurrent: int = 0, requests: int = 0, tokens: int = 0) -> Bound:
    limits = Limits(concurrent=concurrent, requests_per_minute=requests, tokens_per_minute=tokens)
    return Bound(level, name, limits)


def claim_of(concurrent: int = 0, requests: int = 0, tokens: int = 0) -> Claim:
    return Claim(shared=(bound(Level.GLOBAL, "", concurrent, requests, tokens),))


def levels(tenant: int = 3, everybody: int = 5, whose: str = "t", **upstreams: int) -> Claim:
    return Claim(
        own=(bound(Level.KEY, "k"), bound(Level.TENANT, whose, tenant)),
        shared=(bound(Level.GLOBAL, "", everybody),),
        upstreams=tuple(bound(Level.UPSTREAM, name, limit) for name, limit in upstreams.items()),
    )


async def answers(limits: SharedLimits, claim: Claim, leases: Sequence[str], tokens: int = 0) -> list[Answer]:
    return [(await limits.take(lease, claim, tokens, ())).answer for lease in leases]


async def first_free(limits: SharedLimits, claim: Claim, within: float) -> float:
    """Seconds until a lease could be taken; each try is an exchange with Redis."""
    began = time.monotonic()
    while (await limits.take("first free", claim, 0, ())).answer is not Answer.TAKEN:
        assert time.monotonic() - began < within, "not in time"
    return time.monotonic() - began


# ---------------------------------------------------------------- taking


async def test_two_replicas_share_one_limit(server: RedisServer, until: Until) -> None:
    """What one replica took the other cannot; what one gave back the other can."""
    claim = claim_of(concurrent=2)
    async with replica(server) as one, replica(server) as other:
        remote: Remote = one
        assert await remote.take("a", claim, 0, ()) == Verdict(Answer.TAKEN)
        assert await other.take("a", claim, 0, ()) == Verdict(Answer.TAKEN)  # another lease, of the same name
        assert await other.take("b", claim, 0, ()) == Verdict(Answer.FULL, claim.shared[0])
        one.give_back("a", claim)
        one.give_back("a", claim)
        await until(lambda: server.slots("global:") == 1)
        assert (await other.take("b", claim, 0, ())).answer is Answer.TAKEN
        assert (other.takes, other.denials) == (3, 1)
    assert server.all_slots() == 0


async def test_namespaces_share_nothing(server: RedisServer) -> None:
    """Gateways of different namespaces do not know each other; a namespace has no braces."""
    claim = claim_of(concurrent=1)
    async with replica(server, namespace="a") as one, replica(server, namespace="b") as other:
        assert await answers(one, claim, "xy") == [Answer.TAKEN, Answer.FULL]
        assert await answers(other, claim, "xy") == [Answer.TAKEN, Answer.FULL]
        assert server.slots("global:", "a") == server.slots("global:", "b") == 1
    with pytest.raises(ValueError, match="namespace"):
        Places("{}")


async def test_no_limits_no_redis() -> None:
    """A claim without limits is granted without asking anybody."""
    limits = SharedLimits(Store("redis://127.0.0.1:1"), down="closed")
    assert await limits.take("a", Claim(own=(bound(Level.KEY, "k"),)), 5, ["u"]) == Verdict(Answer.TAKEN)
    assert await limits.move("a", Claim(), "v")
    limits.settle(Claim(), 5)
    limits.give_back("a", Claim())
    assert limits.takes == 0


async def test_all_levels_or_none(server: RedisServer) -> None:
    """The answer names the level that denied, and then nothing was taken at any level, nor charged to a rate."""
    claim = levels(tenant=3, everybody=5, a=1)
    rated = Claim(own=(bound(Level.TENANT, "r", 0, 10, 100),), shared=claim.shared, upstreams=claim.upstreams)
    async with replica(server) as limits:
        assert await limits.take("1", claim, 0, ["a"]) == Verdict(Answer.TAKEN, upstream="a")
        assert await limits.take("2", claim, 0, ["a"]) == Verdict(Answer.FULL, claim.upstreams[0])
        assert await limits.take("3", rated, 50, ["a"]) == Verdict(Answer.FULL, claim.upstreams[0])
        assert [server.slots(where) for where in ("tenant:t", "global:", "upstream:a")] == [1, 1, 1]
        assert not server.client.exists("{streamgate:default}:rates:tenant:r")
        free = levels(tenant=3, everybody=5)
        assert await answers(limits, free, "456") == [Answer.TAKEN, Answer.TAKEN, Answer.FULL]
        assert await limits.take("7", free, 0, ()) == Verdict(Answer.FULL, claim.own[1])


async def test_the_preferred_upstream_with_room(server: RedisServer) -> None:
    """The first of the order that has room is chosen; one without a limit always has; without any, it is full."""
    claim = levels(tenant=0, everybody=0, a=1, b=1)
    async with replica(server) as limits:
        taken = [await limits.take(str(n), claim, 0, ["b", "a"]) for n in range(3)]
        assert [verdict.upstream for verdict in taken] == ["b", "a", ""]
        assert taken[2] == Verdict(Answer.FULL, claim.upstreams[1])
        assert await limits.take("4", claim, 0, ["b", "free", "a"]) == Verdict(Answer.TAKEN, upstream="free")
        assert await limits.take("5", claim, 0, ()) == Verdict(Answer.FULL, claim.upstreams[0])


async def test_full_before_rate(server: RedisServer) -> None:
    """When no upstream has room: full, if one of them is; else the rate that has room first."""
    full, slow, slower = (
        bound(Level.UPSTREAM, name, *limits) for name, limits in {"f": (1,), "s": (0, 2), "t": (0, 1)}.items()
    )
    async with replica(server) as limits:
        either = Claim(upstreams=(full, slow, slower))
        assert await answers(limits, either, "1234") == [Answer.TAKEN] * 4
        assert await limits.take("5", either, 0, ["t", "f", "s"]) == Verdict(Answer.FULL, full)
        verdict = await limits.take("6", Claim(upstreams=(slower, slow)), 0, ())
        assert (verdict.answer, verdict.bound) == (Answer.RATE, slow)
        assert 29 < verdict.retry_after <= 30


class Crowd:
    """Streams of two replicas with a thread and a loop each: how many run under each cap, now and at most."""

    CAPS: ClassVar[dict[str, int]] = {"tenant:t": 4, "tenant:s": 4, "global:": 6, "upstream:a": 3, "upstream:b": 4}

    def __init__(self, server: RedisServer, seed: int) -> None:
        self.server = server
        self.seed = seed
        self.claims = [levels(tenant=4, everybody=6, a=3, b=4, whose=whose) for whose in "ts"]
        self.running = dict.fromkeys(self.CAPS, 0)
        self.most = dict.fromkeys(self.CAPS, 0)
        self.denials = 0
        self._lock = threading.Lock()

    def count(self, claim: Claim, upstream: str, step: int) -> None:
        with self._lock:
            for where in (f"tenant:{claim.own[1].name}", "global:", f"upstream:{upstream}"):
                self.running[where] += step
                self.most[where] = max(self.most[where], self.running[where])

    async def stream(self, limits: SharedLimits, lease: str, chance: random.Random) -> None:
        claim, order = chance.choice(self.claims), chance.sample(["a", "b"], 2)
        verdict = await limits.take(lease, claim, 0, order)
        if verdict.answer is not Answer.TAKEN:
            return
        self.count(claim, verdict.upstream, 1)
        try:
            over = asyncio.Event()
            asyncio.get_running_loop().call_later(chance.random() * 0.02, over.set)
            await over.wait()
        finally:
            self.count(claim, verdict.upstream, -1)
            limits.give_back(lease, claim)

    async def replica(self, number: int) -> None:
        """A thousand streams, twenty at once, six of them cancelled at some moment."""
        chance = random.Random(self.seed * 10 + number)
        loop = asyncio.get_running_loop()
        async with replica(self.server, timeout=10.0) as limits:
            for turn in range(50):
                streams = [loop.create_task(self.stream(limits, f"{turn}.{n}", chance)) for n in range(20)]
                for each in chance.sample(streams, 6):
                    loop.call_later(chance.random() * 0.02, each.cancel)
                await asyncio.wait(streams)
                assert not [each for each in streams if not each.cancelled() and each.exception()]
            assert (limits.takes, limits.failed_open, limits.held) == (1000, 0, 0)
            self.denials += limits.denials

    async def watch(self, done: asyncio.Event) -> None:
        """What Redis itself counts, as often as it can be asked."""
        async with Store(self.server.url, timeout=10.0) as store:
            while not done.is_set():
                used = await store.run(LOOK, [f"{{streamgate:default}}:slots:{where}" for where in self.CAPS], [])
                assert all(count <= cap for count, cap in zip(used, self.CAPS.values(), strict=True)), used


@pytest.mark.parametrize("seed", [1, 2])
async def test_caps_hold_under_any_interleaving(server: RedisServer, seed: int) -> None:
    """2,000 takes of two replicas, cancelled at random: caps are reached, none is exceeded, and nothing is left."""
    crowd, done = Crowd(server, seed), asyncio.Event()
    watching = asyncio.get_running_loop().create_task(crowd.watch(done))
    await asyncio.gather(*(asyncio.to_thread(asyncio.run, crowd.replica(number)) for number in range(2)))
    done.set()
    await watching
    assert all(most <= crowd.CAPS[where] for where, most in crowd.most.items()), crowd.most
    assert crowd.denials > 500
    assert set(crowd.running.values()) == {0}
    assert server.all_slots() == 0


# ---------------------------------------------------------------- living and dying


async def test_renewed_while_it_lives(server: RedisServer, until: Until) -> None:
    """A lease outlives its time to live for as long as it is held, and is not renewed after it."""
    claim = claim_of(concurrent=1)
    async with replica(server, ttl=0.3) as one, replica(server, ttl=0.3) as other:
        assert await answers(one, claim, "a") == [Answer.TAKEN]
        await until(lambda: one.renewals >= 8)
        assert await answers(other, claim, "b") == [Answer.FULL]
        one.give_back("a", claim)
        await first_free(other, claim, within=0.25)


async def test_many_are_renewed_in_batches(server: RedisServer, until: Until) -> None:
    """More leases than one script takes are renewed, and given back, all of them."""
    claim = claim_of(concurrent=10_000)
    count = 2 * BATCH + 10
    async with replica(server, ttl=3.0) as limits:
        await asyncio.gather(*(limits.take(str(n), claim, 0, ()) for n in range(count)))
        await until(lambda: limits.renewals >= count)
        assert server.slots("global:") == count
        for n in range(count):
            limits.give_back(str(n), claim)
        await until(lambda: server.slots("global:") == 0)


async def test_a_killed_replica(server: RedisServer) -> None:
    """The slots of a replica that vanished are free within the lease's time to live."""
    claim = claim_of(concurrent=1)
    async with replica(server, ttl=1.0) as other:
        async with Store(server.url) as store:
            killed = SharedLimits(store, ttl=1.0)  # never started: nothing renews, nothing gives back
            assert await answers(killed, claim, "a") == [Answer.TAKEN]
        assert 0.7 < await first_free(other, claim, within=1.3) < 1.2


async def test_closing_gives_back(server: RedisServer) -> None:
    """What a replica still holds when it is closed is free at once."""
    claim = claim_of(concurrent=2, tokens=100)
    async with replica(server) as other:
        async with replica(server) as one:
            assert await answers(one, claim, "ab", tokens=10) == [Answer.TAKEN] * 2
        assert server.slots("global:") == 0
        assert await answers(other, claim, "ab") == [Answer.TAKEN] * 2


async def test_who_waits_elsewhere_is_woken(server: RedisServer) -> None:
    """A slot that comes free at a limit wakes the other replicas, and not the one that gave it back."""
    claim = claim_of(concurrent=1)
    async with replica(server) as one, replica(server) as other, asyncio.timeout(10):
        woken = {limits: asyncio.Event() for limits in (one, other)}
        for limits, event in woken.items():
            limits.on_freed(event.set)
            await event.wait()  # the subscription is there
            event.clear()
        assert await answers(one, claim, "a") == [Answer.TAKEN]
        one.give_back("a", claim)
        await woken[other].wait()
        assert not woken[one].is_set()


async def test_nobody_is_woken_for_nothing(server: RedisServer, until: Until) -> None:
    """Below the limit nobody can be waiting, so nothing is said; many messages at once are one call."""
    claim = claim_of(concurrent=2)
    async with replica(server) as one, replica(server) as other, asyncio.timeout(10):
        woken: asyncio.Queue[None] = asyncio.Queue()
        other.on_freed(lambda: woken.put_nowait(None))
        await woken.get()
        assert await answers(one, claim, "a") == [Answer.TAKEN]
        one.give_back("a", claim)
        await until(lambda: server.slots("global:") == 0)
        assert "cmdstat_publish" not in server.client.info("commandstats")
        pipeline = server.client.pipeline()
        for _ in range(50):
            pipeline.publish("{streamgate:default}:freed", "somebody")
        pipeline.execute()
        await woken.get()
        assert woken.qsize() < 10


# ---------------------------------------------------------------- rates


async def test_requests_per_minute(server: RedisServer) -> None:
    """Of many requests at several replicas exactly the limit is let in, and the rest is told when there is room."""
    claim = claim_of(requests=120)
    async with replica(server) as one, replica(server) as other:
        began = time.monotonic()
        verdicts = await asyncio.gather(
            *(limits.take(str(n), claim, 0, ()) for n in range(100) for limits in (one, other))
        )
        filled = (time.monotonic() - began) * 2
        taken = sum(verdict.answer is Answer.TAKEN for verdict in verdicts)
        assert 120 <= taken <= 120 + filled
        denied = [verdict for verdict in verdicts if verdict.answer is Answer.RATE]
        assert {verdict.bound for verdict in denied} == {claim.shared[0]}
        said = (await one.take("late", claim, 0, ())).retry_after
        assert 0 < said <= 0.5
        assert await first_free(other, claim, within=1.0) == pytest.approx(said, abs=0.1)


async def test_tokens_per_minute(server: RedisServer, until: Until) -> None:
    """Tokens are charged as estimated, and corrected by what was really used, in either direction."""
    claim = claim_of(tokens=6000)
    async with replica(server) as one, replica(server) as other:
        assert (await one.take("a", claim, 4000, ())).answer is Answer.TAKEN
        verdict = await other.take("b", claim, 4000, ())
        assert verdict.answer is Answer.RATE
        assert 19 < verdict.retry_after <= 20
        one.settle(claim, -3000)
        await until(lambda: held_tokens(server) > 4900)
        assert (await other.take("b", claim, 4000, ())).answer is Answer.TAKEN
        other.settle(claim, 4000)
        await until(lambda: held_tokens(server) < 0)
        assert (await one.take("c", claim, 1, ())).retry_after == pytest.approx(30, abs=0.7)
        one.settle(claim, 0)


async def test_a_request_larger_than_the_bucket(server: RedisServer) -> None:
    """It starts when the bucket is full, and the debt is waited for by the next."""
    claim = claim_of(tokens=600)
    async with replica(server) as limits:
        assert (await limits.take("a", claim, 900, ())).answer is Answer.TAKEN
        assert 89 < (await limits.take("b", claim, 900, ())).retry_after <= 90


async def test_an_upstreams_tokens_are_settled(server: RedisServer, until: Until) -> None:
    """The bucket of the upstream that was used is settled: the one named, or the only one."""
    first, second = (bound(Level.UPSTREAM, name, 0, 0, 1000) for name in "ab")
    async with replica(server) as limits:
        limits.settle(Claim(upstreams=(first,)), 400)
        limits.settle(Claim(upstreams=(first, second)), 300, "b")
        limits.settle(Claim(upstreams=(first, second)), 50)
        await until(lambda: held_tokens(server, "upstream:b") is not None)
        await until(lambda: held_tokens(server, "upstream:a") is not None)
        assert (held_tokens(server, "upstream:a"), held_tokens(server, "upstream:b")) == (600, 700)


def held_tokens(server: RedisServer, where: str = "global:") -> float | None:
    held = server.client.hget(f"{{streamgate:default}}:rates:{where}", "t")
    return None if held is None else float(held)


# ---------------------------------------------------------------- moving


async def test_moving_to_another_upstream(server: RedisServer, until: Until) -> None:
    """A lease exchanges its upstream's slot for another's, all the rest unchanged; a full one is refused."""
    claim = levels(tenant=0, everybody=5, a=1, b=1)
    async with replica(server) as limits:
        assert (await limits.take("x", claim, 0, ["a"])).upstream == "a"
        assert (await limits.take("y", claim, 0, ["b"])).upstream == "b"
        assert not await limits.move("x", claim, "b")
        limits.give_back("y", claim)
        await until(lambda: server.slots("upstream:b") == 0)
        assert await limits.move("x", claim, "b")
        assert await limits.move("x", claim, "b")
        await until(lambda: server.slots("upstream:a") == 0)
        assert (server.slots("upstream:b"), server.slots("global:")) == (1, 1)
        assert await limits.move("x", claim, "unlimited")
        await until(lambda: server.slots("upstream:b") == 0)
        assert await limits.move("x", claim, "a")
        assert await limits.move("nobody", claim, "a")
    assert server.all_slots() == 0


async def test_moving_to_and_fro(server: RedisServer, until: Until) -> None:
    """A slot that is wanted again before it was given back is kept."""
    claim = levels(tenant=0, everybody=0, a=1, b=1)
    async with replica(server) as limits:
        await limits.take("x", claim, 0, ["a"])
        for _ in range(20):
            assert await limits.move("x", claim, "b")
            assert await limits.move("x", claim, "a")
        await until(lambda: server.slots("upstream:b") == 0)
        assert (await limits.take("y", claim, 0, ["b"])).upstream == "b"


async def test_a_cancelled_move_leaves_nothing(server: RedisServer, until: Until) -> None:
    """However a move is cancelled, and whatever is given back meanwhile, no slot remains."""
    claim = levels(tenant=0, everybody=0, a=40, b=40)
    async with replica(server) as limits:
        for turn in range(40):
            await limits.take(str(turn), claim, 0, ["a"])
            moving = asyncio.get_running_loop().create_task(limits.move(str(turn), claim, "b"))
            for _ in range(turn % 8):
                await checkpoint()
            if turn % 2:
                moving.cancel()
            limits.give_back(str(turn), claim)
            await asyncio.gather(moving, return_exceptions=True)
        await until(lambda: server.all_slots() == 0)


# ---------------------------------------------------------------- without Redis


async def test_frozen_and_open(server: RedisServer, until: Until) -> None:
    """With a Redis that does not answer, one request waits 0.2 s, others not at all; what began counts afterwards."""
    claim = levels(tenant=0, everybody=3, a=3)
    async with replica(server, timeout=0.2) as limits:
        assert (await limits.take("before", claim, 0, ["a"])).upstream == "a"
        server.freeze()
        try:
            began = time.monotonic()
            assert await limits.take("slow", claim, 0, ["a"]) == Verdict(Answer.TAKEN, upstream="a")
            assert 0.19 < time.monotonic() - began < 0.6  # uvloop counts in milliseconds
            began = time.monotonic()
            for n in range(50):
                assert (await limits.take(str(n), claim, 0, ["a"])).answer is Answer.TAKEN
            assert time.monotonic() - began < 0.1
            assert (limits.timeouts, limits.failed_open, limits.connected) == (1, 51, False)
            for n in range(49):
                limits.give_back(str(n), claim)
            assert await limits.move("before", claim, "b")
        finally:
            server.thaw()
        await until(lambda: limits.connected and server.slots("global:") == 3)
        await until(lambda: server.slots("upstream:a") == 2)  # one has moved
        assert await answers(limits, claim, "z") == [Answer.FULL]
        for lease in ("before", "slow", "49"):
            limits.give_back(lease, claim)
        await until(lambda: server.all_slots() == 0)
        assert limits.reconnects >= 1


async def test_frozen_and_closed(server: RedisServer, until: Until) -> None:
    """Closed, nothing starts without Redis; what it executes late takes nothing."""
    claim = levels(tenant=0, everybody=1, a=1)
    async with replica(server, timeout=0.2, down="closed", ttl=30.0) as limits:
        server.freeze()
        try:
            late = await asyncio.gather(*(limits.take(str(n), claim, 0, ["a"]) for n in range(5)))
            assert late == [Verdict(Answer.UNAVAILABLE)] * 5
            assert await limits.take("x", claim, 0, ["a"]) == Verdict(Answer.UNAVAILABLE)
            assert (limits.failed_closed, limits.failed_open, limits.held) == (6, 0, 0)
        finally:
            server.thaw()
        await until(lambda: limits.connected)
        await first_free(limits, claim, within=2.0)  # as soon as the late ones are given back: not after the 30 s
        limits.give_back("first free", claim)
        await until(lambda: server.all_slots() == 0)


async def test_a_move_without_redis(server: RedisServer, until: Until) -> None:
    """Closed, a lease cannot move without Redis, and keeps what it has."""
    claim = levels(tenant=0, everybody=1, a=1, b=1)
    async with replica(server, timeout=0.2, down="closed") as limits:
        await limits.take("x", claim, 0, ["a"])
        server.freeze()
        try:
            assert not await limits.move("x", claim, "b")
        finally:
            server.thaw()
        await until(lambda: limits.connected)
        assert (await limits.take("y", claim, 0, ["a"])).answer is Answer.FULL
        limits.give_back("x", claim)
        await until(lambda: server.all_slots() == 0)


async def test_cancelled_while_frozen(server: RedisServer, until: Until) -> None:
    """A take that was cancelled and is executed afterwards leaves no slot behind."""
    claim = claim_of(concurrent=100)
    async with replica(server, timeout=5.0) as limits:
        await asyncio.gather(*(limits.take(str(n), claim, 0, ()) for n in range(10)))
        server.freeze()
        try:
            takes = [
                asyncio.get_running_loop().create_task(limits.take(f"doomed {n}", claim, 0, ())) for n in range(10)
            ]
            for _ in range(5):  # until all have been written to their sockets
                await checkpoint()
            for take in takes:
                take.cancel()
            await asyncio.wait(takes)
            assert all(take.cancelled() for take in takes)
        finally:
            server.thaw()
        await until(lambda: server.client.zcard("{streamgate:default}:gone") == 10)
        await until(lambda: server.slots("global:") == 10)
        assert limits.held == 10


async def test_what_comes_late_takes_nothing(server: RedisServer) -> None:
    """Once a lease is gone, neither a take nor a renewal of it has any effect."""
    places = Places("default")
    keys = [places.gone, b"{streamgate:default}:slots:global:"]
    async with Store(server.url, timeout=2.0) as store:
        await store.run(GIVE_BACK, keys, [60_000, places.freed, "me", 1, "x", 5, 1, "x"])
        late = await store.run(TAKE, [*keys, b"{streamgate:default}:rates:global:"], ["x", 60_000, 0, 1, 5, 0, 0])
        assert late == b"G -1 0"
        await store.run(RENEW, keys, [60_000, 2, "x", "y"])
        assert server.client.zrange(keys[1], 0, -1) == ["y"]


async def test_killed_and_started_again_under_load(server: RedisServer, until: Until) -> None:
    """A Redis that was killed and comes back empty: no request fails, none waits long, and all leases count again."""
    claim = claim_of(concurrent=1000)
    slowest = 0.0
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(replica(server, timeout=0.25)) for _ in range(2)]
        for limits in both:
            assert await answers(limits, claim, ["long 1", "long 2"]) == [Answer.TAKEN] * 2
        stop = asyncio.Event()

        async def load(limits: SharedLimits, name: str) -> None:
            nonlocal slowest
            turn = asyncio.Event()
            while not stop.is_set():
                began = time.monotonic()
                assert (await limits.take(name, claim, 10, ())).answer is Answer.TAKEN
                slowest = max(slowest, time.monotonic() - began)
                asyncio.get_running_loop().call_later(0.002, turn.set)
                await turn.wait()
                turn.clear()
                limits.give_back(name, claim)
                limits.settle(claim, 1)

        loads = [asyncio.get_running_loop().create_task(load(limits, str(n))) for limits in both for n in range(5)]
        await until(lambda: all(limits.takes > 100 for limits in both))
        server.kill()
        await until(lambda: all(limits.failed_open > 100 for limits in both))
        server.start()
        await until(lambda: all(limits.connected for limits in both))
        before = [limits.takes for limits in both]
        await until(lambda: all(limits.takes > 100 + then for limits, then in zip(both, before, strict=True)))
        stop.set()
        await asyncio.gather(*loads)
        assert slowest < 0.6
        await until(lambda: server.slots("global:") == 4)
        assert [limits.held for limits in both] == [2, 2]
        assert all(limits.reconnects >= 1 for limits in both)
    assert server.all_slots() == 0


async def test_what_could_not_be_said_is_said_later(server: RedisServer, until: Until) -> None:
    """Leases given back and tokens settled without Redis are so when it is back; a batch sent twice counts once."""
    claim = claim_of(concurrent=10, tokens=60_000)
    async with replica(server, timeout=0.2) as limits:
        assert await answers(limits, claim, "ab", tokens=1000) == [Answer.TAKEN] * 2
        server.freeze()
        try:
            limits.give_back("a", claim)
            limits.settle(claim, 30_000)
            await until(lambda: not limits.connected)
        finally:
            server.thaw()
        await until(lambda: server.slots("global:") == 1)
        await until(lambda: limits.connected and (held_tokens(server) or 60_000) < 40_000)
        assert (held_tokens(server) or 0) > 27_000


async def test_refused_by_redis(server: RedisServer, until: Until) -> None:
    """While Redis refuses to write, requests fail open at once, and renewals are tried until they are done."""
    claim = claim_of(concurrent=10)
    async with replica(server, ttl=0.6) as limits:
        assert await answers(limits, claim, "ab") == [Answer.TAKEN] * 2
        server.client.acl_setuser("default", enabled=True, commands=["-zadd"])
        assert await answers(limits, claim, "c") == [Answer.TAKEN]
        assert limits.failed_open == 1
        await until(lambda: limits.renew_failures > 0)
        server.client.acl_setuser("default", enabled=True, commands=["+zadd"])
        await until(lambda: server.slots("global:") == 3)
        for lease in "abc":
            limits.give_back(lease, claim)
        await until(lambda: server.all_slots() == 0)


async def test_closing_without_redis(server: RedisServer) -> None:
    """Closing does not wait for a Redis that is away."""
    claim = claim_of(concurrent=10)
    async with Store(server.url, timeout=0.2) as store:
        limits = SharedLimits(store)
        limits.start()
        assert await answers(limits, claim, "ab") == [Answer.TAKEN] * 2
        server.freeze()
        try:
            began = time.monotonic()
            await limits.close(0.1)
            assert time.monotonic() - began < 0.5
        finally:
            server.thaw()


async def test_many_claims(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many claims there have been, only so many are remembered, and none is taken for another."""
    monkeypatch.setattr(Places, "REMEMBERED", 3)
    async with replica(server) as limits:
        for n in range(10):
            assert await answers(limits, claim_of(concurrent=n + 1), [str(n)]) == [Answer.TAKEN]
        assert await answers(limits, claim_of(concurrent=10), "x") == [Answer.FULL]
