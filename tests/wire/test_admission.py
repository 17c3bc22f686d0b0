"""Admission on the wire: each limit at each level, what clients are told, and that nothing is left of any of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

import anthropic
import openai
import pytest
import structlog
from anyio.lowlevel import checkpoint
from stage import DONE, FINISH, Client, Peer, Scripted, Stage, delta

from streamgate.admission.claim import Level
from streamgate.admission.ledger import Ledger
from streamgate.server import Server

pytestmark = pytest.mark.anyio

CONCURRENT, REQUESTS, TOKENS = "concurrent", "requests_per_minute", "tokens_per_minute"
ROOMY = {CONCURRENT: 100, REQUESTS: 1000, TOKENS: 1_000_000}
OWN = (Level.TENANT, Level.KEY)
OTHERS: Mapping[Level, tuple[str, str]] = MappingProxyType(
    {  # who is not concerned when that of (mine, m) is reached: a key and a model
        Level.TENANT: ("foreign", "m"),
        Level.KEY: ("ours", "m"),
        Level.MODEL: ("mine", "other"),
        Level.UPSTREAM: ("mine", "other"),
    }
)
Until = Callable[..., Awaitable[None]]


def key(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": sha256(f"sg-{name}".encode()).hexdigest(), **more}


def levels(**limits: Mapping[str, float]) -> dict[str, Any]:
    """A configuration of two keys of one tenant and one of another, and of two models at two upstreams."""

    def at(level: Level) -> dict[str, float]:
        return dict(limits.get(level.name.lower(), ROOMY))

    return {
        "limits": {"queue": 0} | at(Level.GLOBAL),
        "tenants": [{"name": "acme", "limits": at(Level.TENANT)}],
        "keys": [key("mine", tenant="acme", limits=at(Level.KEY)), key("ours", tenant="acme"), key("foreign")],
        "routes": [
            {"models": ["m"], "upstreams": ["up0"], "limits": at(Level.MODEL)},
            {"models": ["other"], "upstreams": ["up1"]},
        ],
        "up0": at(Level.UPSTREAM),
    }


class Gates:
    """Starts gateways with admission, and knows which."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.servers: list[Server] = []

    async def open(self, *upstreams: Scripted, up0: Mapping[str, float] = ROOMY, **settings: Any) -> Server:
        """`up0`: the limits of the first upstream."""
        listed = [{"name": f"up{number}", "url": each.url} for number, each in enumerate(upstreams)]
        listed[0]["limits"] = up0
        self.servers.append(await self.stage.gateway(**{"upstreams": listed} | settings))
        return self.servers[-1]

    async def chat(self, server: Server, who: str = "mine", model: str = "m", **more: Any) -> Client:
        return await self.stage.chat(server, model, f"authorization: Bearer sg-{who}", **more)


@pytest.fixture
async def gates(stage: Stage, until: Until) -> AsyncIterator[Gates]:
    """After each test all clients leave, and every count is 0."""
    opened = Gates(stage)
    yield opened
    for client in stage._clients:
        client.writer.transport.abort()
    for server in opened.servers:
        await until(lambda server=server: server.observer.statistics()["live"] == 0)
        at_rest(server.gateway.gate.ledger)


def at_rest(ledger: Ledger) -> None:
    """Nothing is held or waited for anywhere."""
    queue = ledger.queue
    assert (ledger.taken, ledger.waiting, len(queue.lines)) == (0, 0, 0)
    assert {count.used for count in ledger.register.counts.values()} <= {0}
    assert not any(count.parked for count in ledger.register.counts.values())
    assert all(tenant.leases == 0 for tenant in ledger.register.tenants.values())
    assert all(rank.held == rank.waiting == 0 for rank in queue.ranks.values())
    assert queue.filled == sum(rank.quota for rank in queue.ranks.values())


def used(server: Server, level: Level, name: str) -> int:
    return server.gateway.gate.ledger.register.counts[level, name].used


Shown = dict[tuple[Level, str], tuple[int, float, float]]


def shown(server: Server) -> Shown:
    """All that is counted: slots in use, and when all requests and tokens of a minute will be there again."""
    counts = server.gateway.gate.ledger.register.counts
    return {at: (each.used, each.requests._full_at, each.tokens._full_at) for at, each in counts.items()}


def unchanged(server: Server, before: Shown) -> bool:
    """Nothing was taken or charged since; a bucket that was full at either time is full."""
    now = time.monotonic()
    full = {at: (used, max(now, a), max(now, b)) for at, (used, a, b) in before.items()}
    return shown(server).keys() == full.keys() and all(
        (used, max(now, a), max(now, b)) == pytest.approx(full[at], rel=0, abs=1e-6)
        for at, (used, a, b) in shown(server).items()
    )


# ---------------------------------------------------------------- what upstreams do


class Talking:
    """Streams that begin, and end when they are told to, with the usage that the test says."""

    def __init__(self, usage: tuple[int, int] | None = None) -> None:
        self.usage = usage
        self.asked: list[dict[str, Any]] = []
        self.go = asyncio.Semaphore(0)

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.asked.append(json.loads(peer.body))
            if not self.asked[-1].get("stream"):
                await peer.closed()
                return
            peer.stream(delta("hello"))
            await self._told(peer)
            if self.usage is not None:
                prompt, completion = self.usage
                tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
                peer.chunk(b"data: " + json.dumps({"choices": [], "usage": tokens}).encode() + b"\n\n")
            peer.chunk(FINISH, DONE)
            peer.end()
            await peer.request()

    async def _told(self, peer: Peer) -> None:
        await self.go.acquire()

    def end(self, count: int = 1) -> None:
        for _ in range(count):
            self.go.release()


class AtOnce(Talking):
    """They end by themselves."""

    async def _told(self, peer: Peer) -> None:
        return


async def begun(client: Client) -> Client:
    """It has its slot, and its first token."""
    assert await client.head() == 200, await client.body()
    assert b"hello" in await client.piece()
    return client


async def whole(client: Client) -> Client:
    assert await client.head() == 200, await client.body()
    assert DONE in await client.body()
    return client


class Refused(NamedTuple):
    status: int
    code: str
    message: str
    seconds: int
    milliseconds: int
    headers: Mapping[str, str]


async def refused(client: Client) -> Refused:
    """It is an answer in the family's form, which says when to come back: in both headers the same."""
    status = await client.head()
    assert status in (429, 503)
    error = json.loads(await client.body())["error"]
    headers = client.headers
    told = Refused(
        status, error["code"], error["message"], int(headers["retry-after"]), int(headers["retry-after-ms"]), headers
    )
    assert 0 <= told.seconds * 1000 - told.milliseconds < 1000 and told.seconds <= 60
    assert not any(name in told.message for name in ("acme", "ours", "foreign", "mine", "up0"))
    return told


# ---------------------------------------------------------------- each limit at each level


@pytest.mark.parametrize("level", Level)
async def test_streams_at_once(stage: Stage, gates: Gates, level: Level) -> None:
    """One stream is all there is: the next is refused and takes nothing, others are let in; then there is room."""
    talking = Talking()
    upstreams = [await stage.upstream(talking), await stage.upstream(AtOnce())]
    server = await gates.open(*upstreams, **levels(**{level.name.lower(): ROOMY | {CONCURRENT: 1}}))
    first = await begun(await gates.chat(server))
    before = shown(server)
    told = await refused(await gates.chat(server))
    assert (told.status, told.code) == (429 if level in OWN else 503, "concurrency")
    assert unchanged(server, before)
    if level in OTHERS:
        await begun(await gates.chat(server, *OTHERS[level]))
    talking.end()
    assert DONE in await first.body()
    await begun(await gates.chat(server))


@pytest.mark.parametrize("unit", [REQUESTS, TOKENS])
@pytest.mark.parametrize("level", Level)
async def test_so_many_a_minute(stage: Stage, gates: Gates, level: Level, unit: str) -> None:
    """What is used up comes back with time: the refusal says when, to the millisecond, and takes nothing."""
    upstreams = [await stage.upstream(AtOnce((90, 10))), await stage.upstream(AtOnce())]
    limits = {level.name.lower(): ROOMY | {unit: 1 if unit == REQUESTS else 100}}
    server = await gates.open(*upstreams, **levels(**limits))
    began = time.monotonic()
    await whole(await gates.chat(server))
    before = shown(server)
    asked = time.monotonic()
    told = await refused(await gates.chat(server))
    late = time.monotonic()
    assert (told.status, told.code) == (429 if level in OWN else 503, "rate")
    assert unchanged(server, before)
    # One request is a minute's worth; of the tokens, those that this one is estimated at.
    due = 60.0 if unit == REQUESTS else 60.0 * estimate() / 100
    assert began + due - late - 0.01 <= told.milliseconds / 1000 <= due + 0.01 and asked < late
    if level in OTHERS:
        await whole(await gates.chat(server, *OTHERS[level]))


def estimate() -> int:
    """A quarter of the body's bytes."""
    return len(json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True})) // 4


@pytest.mark.parametrize("level", Level)
async def test_a_stream_s_whole_time(stage: Stage, gates: Gates, level: Level, until: Until) -> None:
    """A stream that is longer ends with the words for it; the smallest of all levels holds."""
    upstreams = [await stage.upstream(Talking()), await stage.upstream(AtOnce())]
    longest = {each.name.lower(): {"max_duration": 0.15 if each is level else 30.0} for each in Level}
    server = await gates.open(*upstreams, **levels(**longest), clocks={"total": 20.0})
    began = time.monotonic()
    client = await begun(await gates.chat(server))
    body = await client.body()
    assert json.loads(body.split(b"\n")[-3].removeprefix(b"data: "))["error"]["code"] == "deadline"
    assert 0.1 < time.monotonic() - began < 5.0
    await until(lambda: server.observer.statistics()["live"] == 0)
    assert {at[-1] for at in server.observer.tally.ended.cells} == {"deadline"}
    answer = await stage.client(server)
    answer.post("/v1/chat/completions", {"model": "m", "messages": []}, "authorization: Bearer sg-mine")
    assert await answer.head() == 504, "the same without `stream: true`"


# ---------------------------------------------------------------- what clients are told


RATES = {REQUESTS: 10, TOKENS: 6000}


async def test_what_is_left_is_in_the_headers(stage: Stage, gates: Gates) -> None:
    """Of the own level that is nearest to its limit: on success before the stream's tokens, and on refusals."""
    upstream = await stage.upstream(AtOnce((900, 100)))
    settings = levels(key=RATES | {CONCURRENT: 1}, tenant={REQUESTS: 1000, TOKENS: 1_000_000})
    server = await gates.open(upstream, upstream, **settings)
    first = (await whole(await gates.chat(server))).headers
    assert limits_in(first) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": str(6000 - estimate()),
    }
    assert 5.9 <= seconds(first["x-ratelimit-reset-requests"]) <= 6.0
    assert 0 < seconds(first["x-ratelimit-reset-tokens"]) <= estimate() / 100
    second = (await whole(await gates.chat(server))).headers
    left = int(second["x-ratelimit-remaining-tokens"])
    assert 6000 - 1000 - estimate() <= left < 6000 - 900 - estimate(), "what the first really used, less what came back"
    foreign = await whole(await gates.chat(server, "foreign"))
    assert limits_in(foreign.headers) == {}


def limits_in(headers: Mapping[str, str]) -> dict[str, str]:
    """Without the times."""
    return {name: value for name, value in headers.items() if name.startswith("x-ratelimit-") and "reset" not in name}


def seconds(duration: str) -> float:
    return float(duration[:-2]) / 1000 if duration.endswith("ms") else float(duration.removesuffix("s"))


@pytest.mark.parametrize(("level", "kind"), [("key", "RateLimitError"), ("global", "InternalServerError")])
async def test_what_the_sdks_make_of_it(stage: Stage, gates: Gates, level: str, kind: str) -> None:
    """429 is a RateLimitError and 503 an InternalServerError, with the code, and the headers for who looks at them."""
    talking = Talking()
    upstream = await stage.upstream(talking)
    limits = {"key": RATES, "tenant": {}} | {level: RATES | {CONCURRENT: 1}}
    server = await gates.open(upstream, upstream, **levels(**limits))
    first = await begun(await gates.chat(server))
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sg-mine", max_retries=0) as client:
        with pytest.raises(getattr(openai, kind)) as caught:
            await client.chat.completions.create(model="m", stream=True, messages=[{"role": "user", "content": "hi"}])
        assert caught.value.code == "concurrency"
        headers = caught.value.response.headers
        assert headers["retry-after"] == "1" and headers["x-ratelimit-remaining-requests"] == "9"
        talking.end(2)
        await first.body()
        raw = await client.chat.completions.with_raw_response.create(
            model="m", stream=True, messages=[{"role": "user", "content": "hi"}]
        )
        assert raw.headers["x-ratelimit-limit-requests"] == "10" and raw.headers["x-ratelimit-reset-requests"]
        assert [chunk.id async for chunk in raw.parse()]
    first = await begun(await gates.chat(server))
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="sg-mine", max_retries=0) as client:
        with pytest.raises(getattr(anthropic, kind)) as caught_too:
            await client.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
        expected = "rate_limit_error" if level == "key" else "overloaded_error"
        assert caught_too.value.body["error"]["type"] == expected
        headers = caught_too.value.response.headers
        assert "retry-after-ms" in headers and headers["x-ratelimit-limit-tokens"] == "6000"


async def test_an_upstream_s_own_limits_are_nobody_s_business(stage: Stage, gates: Gates) -> None:
    """They are of the gateway's key: a client that has limits here reads its own, and of one kind only."""

    async def script(peer: Peer) -> None:
        peer.answer(
            200, b'{"choices":[]}', b"x-ratelimit-remaining-requests: 77777", b"x-ratelimit-limit-tokens: 88888"
        )

    server = await gates.open(await stage.upstream(script), keys=[key("mine", limits={REQUESTS: 5})])
    client = await stage.client(server)
    client.post("/v1/chat/completions", {"model": "m", "messages": []}, "authorization: Bearer sg-mine")
    assert await client.head() == 200
    assert limits_in(client.headers) == {"x-ratelimit-limit-requests": "5", "x-ratelimit-remaining-requests": "4"}


# ---------------------------------------------------------------- tokens


def tokens_left(server: Server) -> int:
    return server.gateway.gate.ledger.register.counts[Level.KEY, "mine"].tokens.remaining(time.monotonic())


PER_MINUTE = 1000  # one comes back in 60 ms


async def metered(stage: Stage, gates: Gates, script: Callable[[Peer], Awaitable[None]], **more: Any) -> Server:
    keys = [key("mine", limits={TOKENS: PER_MINUTE})]
    return await gates.open(await stage.upstream(script), keys=keys, retry={"attempts": 0}, **more)


async def answer_of(stage: Stage, server: Server, path: str = "/v1/chat/completions") -> tuple[int, int]:
    """A request without `stream: true`: its status, and what it was estimated at."""
    client = await stage.client(server)
    body = {"model": "m", "messages": [], "user": "x" * 400}
    client.post(path, body, "authorization: Bearer sg-mine")
    status = await client.head()
    await client.body()
    return status, len(json.dumps(body)) // 4


async def settled(server: Server, expected: int, until: Until) -> None:
    """So many were used, give or take what came back meanwhile."""
    await until(lambda: server.observer.statistics()["live"] == 0)
    left = PER_MINUTE - expected
    assert left <= tokens_left(server) <= min(PER_MINUTE, left + 20), (tokens_left(server), left)


@pytest.mark.parametrize("usage", [(1, 2), (300, 400)])
async def test_tokens_are_those_that_the_upstream_counted(
    stage: Stage, gates: Gates, usage: tuple[int, int], until: Until
) -> None:
    """Fewer or more than the estimate, at the end."""
    server = await metered(stage, gates, AtOnce(usage))
    await whole(await gates.chat(server))
    await settled(server, sum(usage), until)


async def test_without_a_count_each_event_is_one(stage: Stage, gates: Gates, until: Until) -> None:
    """Beside the estimate of the prompt."""
    server = await metered(stage, gates, AtOnce())
    await whole(await gates.chat(server))
    await settled(server, estimate() + 3, until)


async def test_an_answer_in_one_piece(stage: Stage, gates: Gates, until: Until) -> None:
    """By its usage, or by the estimate when it has none."""

    async def script(peer: Peer) -> None:
        peer.answer(200, answers.pop())
        await peer.request()
        peer.answer(200, answers.pop())

    answers = [
        b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":8,"total_tokens":15}}',
        b'{"choices":[{"finish_reason":"stop"}]}',
    ]
    server = await metered(stage, gates, script)
    status, estimated = await answer_of(stage, server)
    assert status == 200
    await settled(server, estimated, until)
    assert (await answer_of(stage, server))[0] == 200
    await settled(server, estimated + 15, until)


@pytest.mark.parametrize("status", [400, 500])
async def test_an_error_costs_no_tokens(stage: Stage, gates: Gates, status: int, until: Until) -> None:
    """Nothing was generated."""

    async def script(peer: Peer) -> None:
        peer.answer(status, b'{"error":{"message":"no"}}')

    server = await metered(stage, gates, script)
    assert (await answer_of(stage, server))[0] == status
    await settled(server, 0, until)


async def test_who_leaves_pays_for_what_came(stage: Stage, gates: Gates, until: Until) -> None:
    """The prompt's estimate and the events; one that has seen nothing pays nothing."""

    async def silent(peer: Peer) -> None:
        await peer.closed()

    server = await metered(stage, gates, Talking())
    client = await begun(await gates.chat(server))
    client.reset()
    await settled(server, estimate() + 1, until)
    server = await metered(stage, gates, silent)
    client = await gates.chat(server)
    await until(lambda: server.gateway.gate.ledger.taken == 1)
    client.reset()
    await settled(server, 0, until)


# ---------------------------------------------------------------- the queue


async def test_who_waits_gets_the_next_slot(stage: Stage, gates: Gates, until: Until) -> None:
    """Up to the queue's length; the one after is told, at once, that the queue is full."""
    talking = Talking()
    server = await gates.open(await stage.upstream(talking), keys=KEYS, limits={"concurrent": 1, "queue": 1})
    first = await begun(await gates.chat(server))
    second = await gates.chat(server)
    await until(lambda: server.gateway.gate.ledger.waiting == 1)
    told = await refused(await gates.chat(server))
    assert (told.status, told.code) == (503, "queue_full")
    talking.end()
    await first.body()
    await begun(second)


KEYS = [key("mine", tenant="acme"), key("foreign")]


async def test_who_waits_too_long(stage: Stage, gates: Gates, until: Until) -> None:
    """It is told after `max_wait`, and its place is free."""
    server = await gates.open(
        await stage.upstream(Talking()), keys=KEYS, limits={"concurrent": 1, "queue": 1, "max_wait": 0.1}
    )
    await begun(await gates.chat(server))
    server.gateway.gate.ledger.register.counts[Level.GLOBAL, ""].ended(0.01)  # so that it expects to get one
    began = time.monotonic()
    told = await refused(await gates.chat(server))
    assert (told.status, told.code) == (503, "queue_timeout")
    assert 0.1 <= time.monotonic() - began < 3
    assert server.gateway.gate.ledger.waiting == 0


async def test_who_would_wait_too_long_need_not(stage: Stage, gates: Gates, until: Until) -> None:
    """When slots are known to be kept for longer than `max_wait`, the answer comes at once and says how long."""
    talking = Talking()
    server = await gates.open(
        await stage.upstream(talking), keys=KEYS, limits={"concurrent": 1, "queue": 5, "max_wait": 4.0}
    )
    await begun(await gates.chat(server))
    server.gateway.gate.ledger.register.counts[Level.GLOBAL, ""].ended(30.0)
    began = time.monotonic()
    told = await refused(await gates.chat(server))
    assert (told.status, told.code, told.milliseconds) == (503, "queue_timeout", 30_000)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("how", [Client.reset, Client.close])
async def test_a_client_that_goes_leaves_the_queue_at_once(
    stage: Stage, gates: Gates, how: Callable[[Client], None], until: Until
) -> None:
    """Its place and its own slots are another's before anything ends; nothing of it goes up; it is no stream."""
    talking = Talking()
    upstream = await stage.upstream(talking)
    keys = [key("mine", limits={CONCURRENT: 2, REQUESTS: 100, TOKENS: 10_000})]
    server = await gates.open(upstream, keys=keys, limits={"concurrent": 1, "queue": 1})
    ledger = server.gateway.gate.ledger
    first = await begun(await gates.chat(server))
    before = shown(server)
    waiting = await gates.chat(server)
    await until(lambda: ledger.waiting == 1)
    assert used(server, Level.KEY, "mine") == 2 and used(server, Level.GLOBAL, "") == 1
    assert (await refused(await gates.chat(server))).status == 429, "who waits has its own slots"
    with structlog.testing.capture_logs() as lines:
        how(waiting)
        await until(lambda: ledger.waiting == 0, 1)
        assert unchanged(server, before)
        await until(lambda: len(server.drain) == 1)
    assert [line["fields"]["reason"] for line in lines if line["event"] == "request_rejected"] == ["client_left"]
    third = await gates.chat(server)
    await until(lambda: ledger.waiting == 1)
    talking.end()
    await first.body()
    await begun(third)
    assert len(upstream.peers) <= 2 and server.observer.statistics()["started"] == 2


async def test_a_drain_ends_the_wait(stage: Stage, gates: Gates, until: Until) -> None:
    """Who still waits when the drain's time is over hears 503 draining, and when to come back."""
    server = await gates.open(
        await stage.upstream(Talking()), keys=KEYS, limits={"concurrent": 1, "queue": 1}, drain={"timeout": 0.1}
    )
    first = await begun(await gates.chat(server))
    waiting = await gates.chat(server)
    await until(lambda: server.gateway.gate.ledger.waiting == 1)
    server.begin_drain()
    assert await server.drained() == 3
    told = await refused(waiting)
    assert (told.status, told.code, told.seconds) == (503, "gateway_draining", 1)
    assert b"gateway_draining" in await first.body()


async def test_early_words_while_waiting(stage: Stage, gates: Gates, until: Until) -> None:
    """With its head out and pings sent, one that waits in vain reads the refusal as an event."""
    server = await gates.open(
        await stage.upstream(Talking()),
        keys=KEYS,
        limits={"concurrent": 1, "queue": 1, "max_wait": 0.2},
        clocks={"early_commit": 0, "heartbeat": 0.05},
    )
    await begun(await gates.chat(server))
    server.gateway.gate.ledger.register.counts[Level.GLOBAL, ""].ended(0.01)
    client = await gates.chat(server)
    assert await client.head() == 200
    body = await client.body()
    assert body.startswith(b": ping\n")
    assert json.loads(body.split(b"\n")[-3].removeprefix(b"data: "))["error"]["code"] == "queue_timeout"


async def test_classes_in_the_queue(stage: Stage, gates: Gates, until: Until) -> None:
    """By their weights: of those who wait, one patient request has its turn among nine hurried ones that came later."""
    talking = Talking()
    classes = [{"name": "interactive", "weight": 9.0}, {"name": "batch"}]
    server = await gates.open(
        await stage.upstream(talking), keys=CLASSED, priorities=classes, limits={"concurrent": 1, "queue": 12}
    )
    await begun(await gates.chat(server))
    for number, who in enumerate(["foreign"] * 3 + ["mine"] * 9):
        await gates.chat(server, who, user=who)
        await until(lambda number=number: server.gateway.gate.ledger.waiting == number + 1)
    talking.end(13)
    await until(lambda: len(talking.asked) == 13)
    order = [asked.get("user") for asked in talking.asked[1:]]
    assert order[:10].count("foreign") == 1 and order.count("foreign") == 3


CLASSED = [key("mine", priority="interactive"), key("foreign", priority="batch")]


async def test_a_reserve_is_kept_free(stage: Stage, gates: Gates, until: Until) -> None:
    """Half of two slots are for one class: another waits although one is free, until its own ends."""
    talking = Talking()
    classes = [{"name": "interactive", "reserved": 0.5}, {"name": "batch"}]
    server = await gates.open(
        await stage.upstream(talking), keys=CLASSED, priorities=classes, limits={"concurrent": 2, "queue": 5}
    )
    first = await begun(await gates.chat(server, "foreign"))
    second = await gates.chat(server, "foreign")
    await until(lambda: server.gateway.gate.ledger.waiting == 1)
    assert server.gateway.gate.ledger.taken == 1
    await begun(await gates.chat(server, "mine"))
    talking.end()
    await first.body()
    await begun(second)


# ---------------------------------------------------------------- upstreams


def listed(*upstreams: Scripted, **limits: int) -> list[dict[str, Any]]:
    """Their limits by name, of streams at once."""
    names = [f"up{number}" for number in range(len(upstreams))]
    return [
        {"name": name, "url": each.url, "limits": {CONCURRENT: limits.get(name, 0)}}
        for name, each in zip(names, upstreams, strict=True)
    ]


def in_order(count: int) -> list[dict[str, Any]]:
    return [{"models": ["*"], "upstreams": [f"up{number}" for number in range(count)], "balance": "in_order"}]


async def test_one_waits_for_any_of_the_upstreams(stage: Stage, gates: Gates, until: Until) -> None:
    """Two with one slot each: the third request waits, and goes to the one that comes free, whichever it is."""
    talking = [Talking(), Talking()]
    upstreams = [await stage.upstream(each) for each in talking]
    server = await gates.open(
        *upstreams, upstreams=listed(*upstreams, up0=1, up1=1), routes=in_order(2), limits={"queue": 1}
    )
    first = await begun(await gates.chat(server))
    second = await begun(await gates.chat(server))
    third = await gates.chat(server)
    await until(lambda: server.gateway.gate.ledger.waiting == 1)
    assert [len(each.asked) for each in talking] == [1, 1]
    talking[1].end()
    await second.body()
    await begun(third)
    assert [len(each.asked) for each in talking] == [1, 2]
    assert [used(server, Level.UPSTREAM, name) for name in ("up0", "up1")] == [1, 1]
    talking[0].end()
    await first.body()
    await until(lambda: used(server, Level.UPSTREAM, "up0") == 0)


async def test_a_failover_takes_its_slot_along(stage: Stage, gates: Gates, until: Until) -> None:
    """It holds one slot at the upstream that serves it; the one that failed is another's."""
    upstreams = [await stage.upstream(resets), await stage.upstream(Talking())]
    server = await gates.open(*upstreams, upstreams=listed(*upstreams, up0=1, up1=1), routes=in_order(2))
    await begun(await gates.chat(server))
    assert [used(server, Level.UPSTREAM, name) for name in ("up0", "up1")] == [0, 1]
    assert server.gateway.gate.ledger.taken == 1


async def resets(peer: Peer) -> None:
    peer.reset()


async def test_a_failover_skips_a_full_upstream(stage: Stage, gates: Gates, until: Until) -> None:
    """Of three, the first fails and the second is full: the third serves."""
    fails = asyncio.Event()

    async def first(peer: Peer) -> None:
        await fails.wait()
        peer.reset()

    talking = [Talking(), Talking()]
    upstreams = [await stage.upstream(each) for each in (first, *talking)]
    server = await gates.open(*upstreams, upstreams=listed(*upstreams, up0=1, up1=1, up2=1), routes=in_order(3))
    one = await gates.chat(server)
    await until(lambda: len(upstreams[0].peers) == 1)
    await begun(await gates.chat(server))
    fails.set()
    await begun(one)
    assert [len(each.asked) for each in talking] == [1, 1]
    assert [used(server, Level.UPSTREAM, f"up{number}") for number in range(3)] == [0, 1, 1]


async def test_a_failover_that_finds_all_full_stays(stage: Stage, gates: Gates, until: Until) -> None:
    """It tries again where it has its slot, and no upstream gets more than its limit."""
    fails = asyncio.Event()
    served = Talking()

    async def first(peer: Peer) -> None:
        if not fails.is_set():
            await fails.wait()
            peer.reset()
        else:
            await served(peer)

    talking = Talking()
    upstreams = [await stage.upstream(first), await stage.upstream(talking)]
    server = await gates.open(*upstreams, upstreams=listed(*upstreams, up0=1, up1=1), routes=in_order(2))
    one = await gates.chat(server)
    await until(lambda: len(upstreams[0].peers) == 1)
    await begun(await gates.chat(server))
    fails.set()
    await begun(one)
    assert (len(served.asked), len(talking.asked)) == (1, 1)
    assert not server.observer.tally.failovers.cells
    assert [used(server, Level.UPSTREAM, f"up{number}") for number in range(2)] == [1, 1]


async def test_an_upstream_that_was_left_out_is_not_asked_for_its_slot(stage: Stage, gates: Gates) -> None:
    """One that failed often is the last to be chosen, though it has room and comes first in the order."""
    upstreams = [await stage.upstream(resets), await stage.upstream(AtOnce())]
    server = await gates.open(
        *upstreams, upstreams=listed(*upstreams, up0=5, up1=5), routes=in_order(2), retry={"budget": 1.0}
    )
    for _ in range(8):
        await whole(await gates.chat(server))
    assert server.observer.tally.attempts.cells["up0", "reset"] == 5


# ---------------------------------------------------------------- the gateway's own trouble


async def test_a_late_loop_sheds(stage: Stage, gates: Gates) -> None:
    """Two late ticks and newcomers are refused, while streams go on; it takes two seconds of calm to let them in."""
    talking = Talking()
    server = await gates.open(await stage.upstream(talking), keys=KEYS, limits={"shed": {"lag": 0.5}})
    server.lag.stop()  # the test says how late it is
    first = await begun(await gates.chat(server))
    server.gateway.lagged(0.6)
    await begun(await gates.chat(server))  # one is an accident
    server.gateway.lagged(0.6)
    told = await refused(await gates.chat(server))
    assert (told.status, told.code, told.seconds) == (503, "overload", 2)
    for _ in range(7):
        server.gateway.lagged(0.01)
    server.gateway.lagged(0.3)  # not late, and not calm
    for _ in range(7):
        server.gateway.lagged(0.01)
    assert (await refused(await gates.chat(server))).code == "overload"
    server.gateway.lagged(0.01)
    await begun(await gates.chat(server))
    talking.end()
    assert DONE in await first.body()


async def test_a_loop_that_is_really_late_sheds(stage: Stage, gates: Gates) -> None:
    """The ticker that the server runs notices."""
    server = await gates.open(await stage.upstream(Talking()), keys=KEYS, limits={"shed": {"lag": 0.1}})
    deadline = time.monotonic() + 10
    while not server.gateway.pressure.overloaded:
        until = time.monotonic() + 0.4  # longer than a tick and the limit
        while time.monotonic() < until:
            pass
        await checkpoint()
        assert time.monotonic() < deadline
    assert (await refused(await gates.chat(server))).code == "overload"


async def test_a_full_memory_sheds(stage: Stage, gates: Gates, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the limit on, until a tenth of it is free again."""
    resident = 0
    monkeypatch.setattr("streamgate.app.resident", lambda: resident)
    server = await gates.open(await stage.upstream(AtOnce()), keys=KEYS, limits={"shed": {"memory": 1000}})
    server.lag.stop()
    for resident, sheds in ((999, False), (1000, True), (950, True), (899, False), (950, False)):
        server.gateway.lagged(0.0)
        client = await gates.chat(server)
        assert (await client.head() == 503) is sheds, resident
        assert (b"short of memory" in await client.body()) is sheds
