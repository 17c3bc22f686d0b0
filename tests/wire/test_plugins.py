"""Plugins on a whole gateway: what each hook may do, as clients, upstreams and the books see it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import openai
import pytest
from plugin_samples import MADE, Answers, Ends, Holds, told
from stage import DONE, ERROR, FINISH, Client, Peer, Scripted, Stage, delta

from streamgate.hooks import Ended, Text
from streamgate.server import Server
from tests.wire.test_cancellation import balanced, seen_closed
from tests.wire.test_metrics import scraped
from tests.wire.test_outcomes import STORIES

pytestmark = pytest.mark.anyio

Until = Callable[..., Awaitable[None]]
BOTH = ("", "Waiting")  # a plugin with plain chunk hooks, and the same one that waits in them: see `way`
TWO = [{"models": ["*"], "upstreams": ["up0", "up1"], "balance": "in_order"}]
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def forgetting() -> None:
    MADE.clear()


@pytest.fixture
def way(anyio_backend: Any) -> str:
    """Where both are not worth both loops: plain hooks on uvloop, waiting ones on asyncio's own."""
    return BOTH[not anyio_backend[1]["use_uvloop"]]


def use(*kinds: str, **more: Any) -> list[dict[str, Any]]:
    """These samples, in this order."""
    return [{"use": f"plugin_samples:{kind}"} | more for kind in kinds]


def saying(*frames: bytes) -> Callable[[Peer], Awaitable[None]]:
    """An upstream that streams these, each in a chunk of its own, and then takes the next request."""

    async def script(peer: Peer) -> None:
        while True:
            peer.stream()
            for frame in frames:
                peer.chunk(frame)
            peer.end()
            await peer.request()

    return script


def talk(*words: str) -> list[bytes]:
    return [delta(), *(delta(word) for word in words), FINISH, DONE]


async def nobody(peer: Peer) -> None:
    raise AssertionError("nobody should have asked this upstream")


async def read(client: Client) -> bytes:
    """A whole answer of a status 200."""
    status = await client.head()
    body = await client.body()
    assert status == 200, body
    return body


def said(body: bytes) -> str:
    """The text of a streamed chat."""
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for each in events for choice in each["choices"])


def error_of(body: bytes) -> dict[str, Any]:
    """The error that a body is, or the one at the end of a stream."""
    error: dict[str, Any] = json.loads(body.strip().split(b"\n\n")[-1].removeprefix(b"data: "))["error"]
    return error


async def asked(stage: Stage, server: Server, *headers: str, stream: bool = True, model: str = "m") -> Client:
    client = await stage.client(server)
    client.post("/v1/chat/completions", {"model": model, "messages": MESSAGES, "stream": stream}, *headers)
    return client


async def refusal(client: Client) -> tuple[int, str]:
    """Status and code."""
    status = await client.head()
    return status, error_of(await client.body())["code"]


def key(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": sha256(f"sg-{name}".encode()).hexdigest(), **more}


# ---------------------------------------------------------------- authenticate


async def test_a_plugin_says_who_is_asking(stage: Stage) -> None:
    """Its identity has its tenant's limits; whom it does not know the gateway's own keys judge."""
    upstream = await stage.upstream(seen_talking)
    server = await stage.gateway(
        upstream,
        keys=[key("mine")],
        tenants=[{"name": "acme", "limits": {"concurrent": 1}}],
        plugins=use("Door", "Ends"),
    )
    first = await asked(stage, server, "x-who: acme")
    assert await first.head() == 200
    assert await refusal(await asked(stage, server, "x-who: acme")) == (429, "concurrency")
    assert await (await asked(stage, server, "x-who: other")).head() == 200
    assert await (await asked(stage, server, "authorization: Bearer sg-mine")).head() == 200
    assert await refusal(await asked(stage, server, "authorization: Bearer sg-wrong")) == (401, "invalid_api_key")
    assert MADE["door"].seen == [("POST", "/v1/chat/completions", "127.0.0.1")] * 5
    ends = [await MADE["ends"].next() for _ in range(2)]
    assert [(end.tenant, end.reason) for end in ends] == [("acme", "concurrency"), ("", "auth")]


async def seen_talking(peer: Peer) -> None:
    peer.stream(delta("a"))
    await seen_closed(peer)


async def test_an_identity_s_models(stage: Stage) -> None:
    """It may use those that the plugin names, as globs, and is shown those alone."""
    routes = [{"models": ["m", "other"], "upstreams": ["up0"]}]
    server = await stage.gateway(
        await stage.upstream(saying(*talk("a"))), keys=[key("mine")], routes=routes, plugins=use("Door")
    )
    badge = ("x-who: acme", "x-models: o*")
    assert await refusal(await asked(stage, server, *badge)) == (403, "model_not_allowed")
    assert said(await read(await asked(stage, server, *badge, model="other"))) == "a"
    client = await stage.client(server)
    client.send(b"GET /v1/models HTTP/1.1\r\nhost: g\r\nx-who: acme\r\nx-models: o*\r\n\r\n")
    assert [each["id"] for each in json.loads(await read(client))["data"]] == ["other"]


@pytest.mark.parametrize(
    ("who", "kind", "code"),
    [
        ("stranger", openai.AuthenticationError, "unknown_badge"),
        ("banned", openai.PermissionDeniedError, "banned"),
    ],
)
async def test_sdks_understand_a_refusal(stage: Stage, who: str, kind: type[openai.APIStatusError], code: str) -> None:
    """By its status; code and message are the plugin's; no upstream is asked."""
    server = await stage.gateway(await stage.upstream(nobody), plugins=use("Door", "Ends"))
    async with sdk(server, {"x-who": who}) as client:
        with pytest.raises(kind) as raised:
            await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)  # type: ignore[arg-type]
    assert raised.value.code == code and "badge" in raised.value.message
    end = await MADE["ends"].next()
    assert (end.reason, end.code, end.outcome) == ("plugin", code, "")


def sdk(server: Server, headers: dict[str, str] | None = None) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0, default_headers=headers)


# ---------------------------------------------------------------- on_request


async def test_a_changed_request_goes_another_way(stage: Stage) -> None:
    """Its model is routed anew, under the alias that is there; body and headers are as the plugin left them."""
    upstreams = [await stage.upstream(nobody), await stage.upstream(saying(*talk("a")))]
    routes = [{"models": ["m"], "upstreams": ["up0"]}, {"models": ["other"], "upstreams": ["up1"], "as": "real"}]
    server = await stage.gateway(*upstreams, routes=routes, plugins=use("Rewrites", "Ends"))
    await read(await asked(stage, server, "x-model: other", "user-agent: me", "x-request-id: r1"))
    peer = upstreams[1].peers[0]
    assert json.loads(peer.body) == {"model": "real", "user": "rewritten", "messages": MESSAGES, "stream": True}
    assert b"openai-beta: by-plugin" in peer.head.lower() and b"user-agent" not in peer.head.lower()
    assert MADE["rewrites"].seen == [("m", True, "/v1/chat/completions", "r1")]
    end = await MADE["ends"].next()
    assert (end.outcome, end.model, end.upstream) == ("completed", "other", "up1")


@pytest.mark.parametrize(
    ("model", "refused"), [("other", (403, "model_not_allowed")), ("nowhere", (403, "model_not_allowed"))]
)
async def test_a_changed_request_is_checked_again(stage: Stage, model: str, refused: tuple[int, str]) -> None:
    """A plugin gives nobody a model that the key may not use."""
    routes = [{"models": ["m", "other"], "upstreams": ["up0"]}]
    keys = [key("mine", models=["m"])]
    server = await stage.gateway(await stage.upstream(nobody), routes=routes, keys=keys, plugins=use("Rewrites"))
    mine = "authorization: Bearer sg-mine"
    assert await refusal(await asked(stage, server, mine, f"x-model: {model}")) == refused


async def test_a_model_that_does_not_exist(stage: Stage) -> None:
    """A plugin that asks for one gets the client a 404."""
    routes = [{"models": ["m"], "upstreams": ["up0"]}]
    server = await stage.gateway(await stage.upstream(nobody), routes=routes, plugins=use("Rewrites"))
    assert await refusal(await asked(stage, server, "x-model: nowhere")) == (404, "model_not_found")


async def test_a_refused_request(stage: Stage) -> None:
    """It never becomes a stream: no place is taken, no upstream asked; the answer is as the plugin says."""
    server = await stage.gateway(await stage.upstream(nobody), plugins=use("Answers", "Ends"))
    client = await asked(stage, server, "x-answer: refuse")
    assert await refusal(client) == (429, "too_eager")
    assert client.headers["retry-after"] == "7" and client.headers["x-eager"] == "very"
    end = await MADE["ends"].next()
    assert (end.reason, end.code, end.status, end.outcome) == ("plugin", "too_eager", 429, "")
    assert server.observer.tally.rejected.cells == {("/v1/chat/completions", "plugin"): 1}
    assert not server.observer.tally.started.cells


# ---------------------------------------------------------------- answers of a plugin


async def test_a_plugin_answers_in_one_body(stage: Stage, way: str) -> None:
    """A stream like any other in the books, but without an upstream; text hooks after it see its text."""
    server = await stage.gateway(await stage.upstream(nobody), plugins=use("Answers", f"Hides{way}", "Ends"))
    client = await asked(stage, server, "x-answer: json", stream=False)
    answer = json.loads(await read(client))
    assert answer["choices"][0]["message"]["content"] == "a [hidden] of my own"
    assert client.headers["content-type"] == "application/json" and "x-request-id" in client.headers
    end = await MADE["ends"].next()
    assert (end.outcome, end.upstream, end.status) == ("completed", "", 200)
    await finished(server)


async def test_a_plugin_answers_with_events(stage: Stage, way: str) -> None:
    """With its headers; they pass the hooks of the plugins after it, not of those before."""
    plugins = use(f"Edits{way}", "Answers", f"Hides{way}", "Ends")
    server = await stage.gateway(await stage.upstream(nobody), plugins=plugins)
    client = await asked(stage, server, "x-answer: list")
    body = await read(client)
    assert said(body) == "a [hidden] of my own" and body.endswith(DONE)
    assert client.headers["content-type"].startswith("text/event-stream") and client.headers["x-own"] == "yes"
    assert MADE[f"edits{way and '_waiting'}"].seen == []
    end = await MADE["ends"].next()
    assert (end.outcome, end.finish_reason, end.events) == ("completed", "stop", 5)
    await finished(server)


async def test_sdks_read_a_plugin_s_answer(stage: Stage) -> None:
    """Streamed or not, it is an answer to them."""
    server = await stage.gateway(await stage.upstream(nobody), plugins=use("Answers"))
    async with sdk(server, {"x-answer": "list"}) as client:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)  # type: ignore[arg-type]
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    async with sdk(server, {"x-answer": "json"}) as client:
        answer = await client.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
    assert (text, answer.choices[0].message.content) == ("a secret of my own", "a secret of my own")


async def test_a_plugin_s_pace(stage: Stage) -> None:
    """An async iterable is asked for the next event when it has one: what it gave is not held back."""
    server = await stage.gateway(await stage.upstream(nobody), plugins=use("Answers"))
    client = await asked(stage, server, "x-answer: paced")
    assert await client.head() == 200
    for event in told("a", "b"):
        assert await client.piece() == event.encode().replace(b"\r\n", b"\n")
        MADE["answers"].go.release()
    assert await client.piece() == b""
    await asyncio.wait_for(MADE["answers"].closed.wait(), 5)


@pytest.mark.parametrize("answer", ["paced", "flood"])
async def test_a_client_that_leaves_closes_the_iterable(stage: Stage, answer: str, until: Until) -> None:
    """Whether it waits for its next event, or has more than the client takes: then it is asked for no more."""
    server = await stage.gateway(await stage.upstream(nobody), plugins=use("Answers", "Ends"))
    client = await stage.client(server, receive_buffer=4096)
    client.post("/v1/chat/completions", {"model": "m", "messages": [], "stream": True}, f"x-answer: {answer}")
    assert await client.head() == 200
    await client.piece()
    sample: Answers = MADE["answers"]
    if answer == "flood":
        client.writer.transport.pause_reading()
        (blocked,) = server.gateway.relay.running
        await until(lambda: blocked.outlet is not None and blocked.outlet.blocked_at)
        assert len(sample.seen) < 2000
    client.reset()
    await asyncio.wait_for(sample.closed.wait(), 1)
    assert (await MADE["ends"].next()).outcome == "client_closed"
    await balanced(server, until)


async def test_a_plugin_s_answer_waits_for_a_slow_client(stage: Stage, until: Until) -> None:
    """Its iterable is not asked for what nobody takes; when the client reads again, the rest comes, whole."""
    server = await stage.gateway(await stage.upstream(nobody), plugins=use("Answers"))
    client = await stage.client(server, receive_buffer=4096)
    client.post("/v1/chat/completions", {"model": "m", "messages": [], "stream": True}, "x-answer: long")
    client.writer.transport.pause_reading()
    await until(lambda: server.gateway.relay.running)
    (record,) = server.gateway.relay.running
    await until(lambda: record.outlet is not None and record.outlet.blocked_at)
    assert record.events < 500
    client.writer.transport.resume_reading()
    body = await read(client)
    assert len(said(body)) == 500 * 4096 and body.endswith(DONE)


async def test_an_answer_with_an_error_status(stage: Stage) -> None:
    """It is no stream: it goes out as it is, and is counted as a refusal."""
    server = await stage.gateway(await stage.upstream(nobody), plugins=use("Answers", "Ends"))
    client = await asked(stage, server, "x-answer: error")
    assert await client.head() == 418
    assert json.loads(await client.body()) == {"error": {"message": "I am a teapot."}}
    assert client.headers["x-kettle"] == "on" and client.headers["content-type"] == "application/json"
    end = await MADE["ends"].next()
    assert (end.reason, end.status, end.outcome) == ("plugin", 418, "")
    assert not server.observer.tally.started.cells


@pytest.mark.parametrize(
    ("answer", "code", "outcome"),
    [("unfinished", "upstream_truncated", "truncated"), ("broken", "plugin_failed", "internal_error")],
)
async def test_an_answer_that_is_not_whole(stage: Stage, answer: str, code: str, outcome: str) -> None:
    """Without a terminator, or by an iterable that raises: the client is told, and not what was raised."""
    server = await stage.gateway(await stage.upstream(nobody), plugins=use("Answers", "Ends"))
    body = await read(await asked(stage, server, f"x-answer: {answer}"))
    assert error_of(body)["code"] == code and DONE not in body and b"users" not in body
    assert (await MADE["ends"].next()).outcome == outcome
    await finished(server)


async def test_an_iterable_that_raises_is_counted(stage: Stage) -> None:
    """Against the plugin whose answer it is, and the hook that gave it."""
    server = await stage.gateway(await stage.upstream(nobody), plugins=use("Ends", "Answers"))
    await read(await asked(stage, server, "x-answer: broken"))
    assert (await scraped(server))("plugin_errors_total", plugin="answers", hook="on_request", reason="error") == 1


async def test_an_answer_needs_no_upstream(stage: Stage) -> None:
    """Where a plugin answers nobody is asked to choose one."""
    plugins = use("Answers") + use("Chooses", settings={"names": []})
    server = await stage.gateway(await stage.upstream(nobody), plugins=plugins)
    assert said(await read(await asked(stage, server, "x-answer: list"))) == "a secret of my own"
    assert MADE["chooses"].seen == []


async def finished(server: Server) -> None:
    """One stream, counted once; nothing is held."""
    counts = server.observer.statistics()
    assert counts["started"] == counts["ended"] == 1
    assert server.gateway.gate.ledger.taken == 0


# ---------------------------------------------------------------- choose_upstream, on_upstream_request, on_open


@pytest.mark.parametrize(
    ("names", "answered"), [(["up1", "up0"], "up1"), (["up1"], "up1"), (["up0"], "up0"), (["up0", "up1"], "up0")]
)
async def test_upstreams_as_a_plugin_orders_them(stage: Stage, names: list[str], answered: str) -> None:
    """The first it names is the first tried."""
    upstreams = [await stage.upstream(saying(*talk(f"up{number}"))) for number in range(2)]
    plugins = use("Chooses", settings={"names": names})
    server = await stage.gateway(*upstreams, routes=TWO, plugins=plugins)
    assert said(await read(await stage.chat(server))) == answered
    assert MADE["chooses"].seen == [["up0", "up1"]]


async def test_an_upstream_that_a_plugin_left_out_is_not_tried(stage: Stage) -> None:
    """Not even when the ones it left in fail."""
    upstreams = [await stage.upstream(resets), await stage.upstream(nobody)]
    plugins = use("Chooses", settings={"names": ["up0"]})
    server = await stage.gateway(*upstreams, routes=TWO, plugins=plugins)
    assert await refusal(await stage.chat(server)) == (502, "upstream_reset")
    assert not upstreams[1].peers


async def test_the_slots_of_one_that_was_left_out_are_no_help(stage: Stage) -> None:
    """With a slot at each upstream, the second request for the same one is refused, and the free one stays free."""
    begun = asyncio.Event()

    async def long(peer: Peer) -> None:
        peer.stream(delta("a"))
        begun.set()
        await peer.closed()

    upstreams = [await stage.upstream(long), await stage.upstream(nobody)]
    limited = [
        {"name": f"up{number}", "url": each.url, "limits": {"concurrent": 1}} for number, each in enumerate(upstreams)
    ]
    plugins = use("Chooses", settings={"names": ["up0"]})
    server = await stage.gateway(upstreams=limited, routes=TWO, plugins=plugins)
    first = await stage.chat(server)
    await asyncio.wait_for(begun.wait(), 5)
    assert await refusal(await stage.chat(server)) == (503, "concurrency")
    assert not upstreams[1].peers and len(upstreams[0].peers) == 1
    first.reset()


async def resets(peer: Peer) -> None:
    peer.reset()


async def test_no_upstream_left(stage: Stage) -> None:
    """A 503 that says when to come back, and no stream."""
    plugins = use("Chooses", settings={"names": []}) + use("Ends")
    server = await stage.gateway(await stage.upstream(nobody), plugins=plugins)
    client = await stage.chat(server)
    assert await refusal(client) == (503, "no_upstream")
    assert client.headers["retry-after"] == "1"
    assert (await MADE["ends"].next()).reason == "no_upstream"
    assert not server.observer.tally.started.cells and server.gateway.gate.ledger.taken == 0


async def test_each_try_is_shown(stage: Stage) -> None:
    """Headers and body of each try are the plugin's to change, the second one's from the start."""
    upstreams = [await stage.upstream(role_then_reset), await stage.upstream(saying(*talk("a")))]
    server = await stage.gateway(*upstreams, routes=TWO, plugins=use("Signs", "Ends"))
    assert said(await read(await asked(stage, server, "user-agent: me"))) == "a"
    for number, upstream in enumerate(upstreams):
        head, body = upstream.peers[0].head.lower(), json.loads(upstream.peers[0].body)
        assert b"x-try: %d up%d" % (number + 1, number) in head and b"user-agent" not in head
        assert body == {"model": "m", "messages": MESSAGES, "stream": True, "try": number + 1}
    assert MADE["signs"].seen == [("up0", 1), ("up1", 2)]
    end = await MADE["ends"].next()
    assert (end.outcome, end.attempts, end.upstream) == ("completed", 2, "up1")


async def role_then_reset(peer: Peer) -> None:
    peer.stream(delta())
    await peer.writer.drain()
    peer.reset()


async def test_the_head_as_a_plugin_wants_it(stage: Stage, way: str) -> None:
    """Status and headers, of streams and of whole answers, whether or not other hooks wait; length and id are right."""

    async def script(peer: Peer) -> None:
        peer.answer(200, b'{"id":"x","choices":[]}', b"openai-version: 1", b"openai-model: q")

    upstreams = [await stage.upstream(saying(*talk("a"))), await stage.upstream(script)]
    routes = [{"models": ["m"], "upstreams": ["up0"]}, {"models": ["other"], "upstreams": ["up1"]}]
    server = await stage.gateway(*upstreams, routes=routes, plugins=use("Dresses", f"Hides{way}"))
    streamed = await stage.chat(server)
    assert await streamed.head() == 203
    assert (await streamed.body()).endswith(DONE)
    assert streamed.headers["x-dressed"] == "up0" and "x-request-id" in streamed.headers
    whole = await asked(stage, server, stream=False, model="other")
    assert await whole.head() == 203
    assert await whole.body() == b'{"id":"x","choices":[]}'
    assert whole.headers["openai-model"] == "q" and "openai-version" not in whole.headers
    assert [status for status, _ in MADE["dresses"].seen] == [200, 200]


async def test_a_head_that_was_sent_early_is_not_shown(stage: Stage) -> None:
    """The client has it already."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await go.wait()
        await saying(*talk("a"))(peer)

    clocks = {"early_commit": 0}
    server = await stage.gateway(await stage.upstream(script), clocks=clocks, plugins=use("Dresses", "Ends"))
    client = await stage.chat(server)
    assert await client.head() == 200
    go.set()
    assert said(await client.body()) == "a"
    assert MADE["dresses"].seen == [] and "x-dressed" not in client.headers
    assert (await MADE["ends"].next()).status == 200


# ---------------------------------------------------------------- on_event, on_text


async def test_events_left_alone_pass_byte_for_byte(stage: Stage, way: str) -> None:
    """Whatever their form, the terminator among them."""
    odd = b'event: message\nid: 7\ndata:{"choices":[{"index":0,\ndata:"delta":{"content":"\xc3\xa4"}}]}\n\n'
    frames = [delta(), delta("a"), odd, FINISH, DONE]
    server = await stage.gateway(await stage.upstream(saying(*frames)), plugins=use(f"Edits{way}"))
    assert await read(await stage.chat(server)) == b"".join(frames)
    seen = MADE[f"edits{way and '_waiting'}"].seen
    assert len(seen) == 5 and seen[-1] == "[DONE]" and seen[2].startswith('{"choices":[{"index":0,\n"delta"')


@pytest.mark.parametrize("way", BOTH)
async def test_events_are_dropped_changed_and_added(stage: Stage, way: str) -> None:
    """What the plugin gives back is what the client reads, in that order."""
    frames = talk("one", " DROP", " CHANGE", " TWICE", " last")
    server = await stage.gateway(await stage.upstream(saying(*frames)), plugins=use(f"Edits{way}", "Ends"))
    body = await read(await stage.chat(server))
    more = b"event: note\ndata: more\n\n"
    expected = [delta(), delta("one"), delta(" changed"), delta(" TWICE"), more, delta(" last"), FINISH, DONE]
    assert body == b"".join(expected)
    end = await MADE["ends"].next()
    assert (end.outcome, end.bytes_out, end.events) == ("completed", len(body), 8)


@pytest.mark.parametrize("kind", ["Edits", "EditsWaiting", "Hides", "HidesWaiting"])
async def test_a_plugin_ends_a_stream(stage: Stage, kind: str, until: Until) -> None:
    """What came before is whole, then the plugin's words in an error event; the upstream is left at once."""
    upstream = await stage.upstream(until_abort)
    server = await stage.gateway(upstream, plugins=use(kind, "Ends"))
    client = await stage.chat(server)
    assert await client.head() == 200
    assert said(await client.piece()) == "one "
    peer = await upstream.arrived.get()
    asked_at = time.perf_counter()
    peer.chunk(delta("two "), delta("ABORT"), delta("three"))
    body = await client.body()
    assert said(body.rpartition(b"data: ")[0]) == "two "
    assert error_of(body)["code"] == "enough" and error_of(body)["message"] == "That is enough."
    assert DONE not in body and b"ABORT" not in body and b"three" not in body
    assert await asyncio.wait_for(peer.closed_at, 5) - asked_at < 0.1
    end = await MADE["ends"].next()
    assert (end.outcome, end.code, end.status) == ("plugin_abort", "enough", 200)
    await balanced(server, until)


async def until_abort(peer: Peer) -> None:
    peer.stream(delta("one "))
    await seen_closed(peer)


@pytest.mark.parametrize("kind", ["Edits", "EditsWaiting", "Hides", "HidesWaiting"])
async def test_sdks_hear_of_an_abort(stage: Stage, kind: str) -> None:
    """In the stream as an APIError with its code; of the very first event as a status that is not tried again."""
    upstreams = [await stage.upstream(saying(*talk("one", "ABORT"))), await stage.upstream(first_is_abort)]
    routes = [{"models": ["m"], "upstreams": ["up0"]}, {"models": ["other"], "upstreams": ["up1"]}]
    server = await stage.gateway(*upstreams, routes=routes, plugins=use(kind))
    async with sdk(server) as client:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)  # type: ignore[arg-type]
        with pytest.raises(openai.APIError, match="That is enough") as raised:
            [chunk async for chunk in stream]
        assert raised.value.code == "enough"
        with pytest.raises(openai.APIError, match="That is enough"):
            stream = await client.chat.completions.create(model="other", messages=MESSAGES, stream=True)  # type: ignore[arg-type]
            [chunk async for chunk in stream]


async def first_is_abort(peer: Peer) -> None:
    peer.stream(delta("ABORT"))
    await seen_closed(peer)


@pytest.mark.parametrize("way", BOTH)
async def test_text_is_seen_whole(stage: Stage, way: str) -> None:
    """However tokens cut it; nothing that may become part of a match leaves before it is known."""
    upstream = await stage.upstream(until_abort)
    server = await stage.gateway(upstream, plugins=use(f"Hides{way}", "Ends"))
    client = await stage.chat(server)
    await client.head()
    assert said(await client.piece()) == "one "
    peer = await upstream.arrived.get()
    peer.chunk(delta("a se"))
    assert said(await client.piece()) == "a "
    peer.chunk(delta("cr"))
    peer.chunk(delta("et, a secre"))
    assert said(await client.piece()) == "[hidden], a "
    peer.chunk(FINISH, DONE)
    peer.end()
    body = await client.body()
    assert said(body) == "secre" and body.endswith(FINISH + DONE), "what was held goes before the finish"
    end = await MADE["ends"].next()
    assert (end.outcome, end.finish_reason) == ("completed", "stop")


async def test_text_of_a_whole_answer(stage: Stage, way: str) -> None:
    """The same without `stream`: redaction has no hole; the length is right, and all else as it was."""
    given = b'{"id": "x", "big": 12345678901234567890, "choices": [{"index":0,"message":{"content":"my secret"}}]}'

    async def script(peer: Peer) -> None:
        peer.answer(200, given)

    server = await stage.gateway(await stage.upstream(script), plugins=use(f"Hides{way}", "Edits", "Ends"))
    client = await asked(stage, server, stream=False)
    body = await read(client)
    assert body == given.replace(b"secret", b"[hidden]")
    assert int(client.headers["content-length"]) == len(body)
    assert MADE["edits"].seen == []
    assert [text.final for text in MADE[f"hides{way and '_waiting'}"].seen] == [True]
    assert (await MADE["ends"].next()).outcome == "completed"


async def test_held_text_goes_out_before_an_error(stage: Stage, way: str) -> None:
    """A stream that breaks off releases it, with a last call."""

    async def script(peer: Peer) -> None:
        peer.stream(delta("one sec"))
        peer.end()

    server = await stage.gateway(await stage.upstream(script), plugins=use(f"Hides{way}", "Ends"))
    body = await read(await stage.chat(server))
    assert said(body.rpartition(b"data: ")[0]) == "one sec" and error_of(body)["code"] == "upstream_truncated"
    assert MADE[f"hides{way and '_waiting'}"].seen[-1] == Text(0, "content", "sec", True, "content")
    assert (await MADE["ends"].next()).outcome == "truncated"


# ---------------------------------------------------------------- tries


@pytest.mark.parametrize("first", ["reset", "error"])
async def test_only_the_try_that_counts_is_shown(stage: Stage, way: str, first: str) -> None:
    """Events of a try that failed before its first token are nobody's business."""

    async def fails(peer: Peer) -> None:
        peer.stream(delta(delta={"role": "assistant", "content": "", "first": True}))
        await peer.writer.drain()
        if first == "error":
            peer.chunk(ERROR)
        else:
            peer.reset()

    upstreams = [await stage.upstream(fails), await stage.upstream(saying(*talk("a", "b")))]
    server = await stage.gateway(*upstreams, routes=TWO, plugins=use(f"Edits{way}", f"Hides{way}", "Dresses"))
    client = await stage.chat(server)
    assert await client.head() == 203
    assert said(await client.body()) == "ab"
    seen = MADE[f"edits{way and '_waiting'}"].seen
    assert len(seen) == 5 and not any("first" in data for data in seen)
    assert [text.pending for text in MADE[f"hides{way and '_waiting'}"].seen] == ["a", "b"]
    assert len(MADE["dresses"].seen) == 1


# ---------------------------------------------------------------- on_end


@pytest.mark.parametrize("story", STORIES)
async def test_every_end_is_told_once(stage: Stage, story: str, way: str, until: Until) -> None:
    """By the outcome that the metrics count, whatever it is; and hooks change nothing of how streams end."""
    play, outcome = STORIES[story]
    server = await play(Hooked(stage, use(f"Edits{way}", f"Hides{way}", "Ends")))
    await until(lambda: server.observer.statistics()["ended"] == 1)
    ends: Ends = MADE["ends"]
    end = await ends.next()
    assert (end.outcome, end.reason) == (outcome.value, "")
    assert {key[-1]: count for key, count in server.observer.tally.ended.cells.items()} == {outcome.value: 1}
    assert ends.ends.empty()
    await balanced(server, until)


class Hooked(Stage):
    """The stage, with plugins in every gateway."""

    def __init__(self, stage: Stage, plugins: list[dict[str, Any]]) -> None:
        super().__init__(stage._stack)
        self._clients = stage._clients
        self._plugins = plugins

    async def gateway(self, *upstreams: Scripted | str, **settings: Any) -> Server:
        return await super().gateway(*upstreams, plugins=self._plugins, **settings)


async def test_an_operator_s_end_is_told(stage: Stage, until: Until) -> None:
    """Outcome killed, once."""
    upstream = await stage.upstream(seen_talking)
    server = await stage.gateway(upstream, plugins=use("HidesWaiting", "Ends"))
    client = await stage.chat(server)
    await client.head()
    await client.piece()
    (tries,) = server.gateway.relay.running.values()
    assert tries.killed()
    assert error_of(await client.body())["code"] == "killed"
    assert (await MADE["ends"].next()).outcome == "killed"
    await balanced(server, until)


async def test_what_an_end_says(stage: Stage) -> None:
    """Usage, times and names, as metrics and logs have them; the stream's state is the plugin's own."""
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}\n\n'
    frames = [delta("a"), delta("b"), FINISH, usage, DONE]
    upstream = await stage.upstream(saying(*frames))
    server = await stage.gateway(upstream, keys=[key("mine", tenant="acme")], plugins=use("Rewrites", "Ends"))
    await read(await asked(stage, server, "authorization: Bearer sg-mine", "x-request-id: r7"))
    end: Ended = await MADE["ends"].next()
    assert (end.id, end.tenant, end.client, end.method) == ("r7", "acme", "127.0.0.1", "POST")
    assert (end.path, end.model, end.upstream) == ("/v1/chat/completions", "m", "up0")
    assert (end.outcome, end.status, end.attempts, end.finish_reason) == ("completed", 200, 1, "stop")
    assert end.usage is not None and (end.usage.input, end.usage.output) == (9, 3)
    assert end.events == 5 and end.bytes_out == len(b"".join(frames))
    assert end.first_token is not None and 0 < end.first_token <= end.duration < 5
    assert 0 <= end.queued < end.duration and abs(end.at - time.time()) < 5
    assert end.stream.request is not None and end.stream.request.json is not None and end.stream.state is None


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v1/nothing", {}, ("not_found", 404)),
        ("/v1/chat/completions", b"{", ("bad_request", 400)),
        ("/v1/chat/completions", {"model": "nowhere", "messages": []}, ("not_found", 404)),
    ],
)
async def test_a_refusal_is_told_too(stage: Stage, path: str, body: Any, told: tuple[str, int]) -> None:
    """Whoever refused, and however early: once, with the reason that the metrics count."""
    routes = [{"models": ["m"], "upstreams": ["up0"]}]
    server = await stage.gateway(await stage.upstream(nobody), routes=routes, plugins=use("Ends"))
    client = await stage.client(server)
    client.post(path, body)
    assert await client.head() == told[1]
    await client.body()
    end = await MADE["ends"].next()
    assert (end.reason, end.status, end.outcome) == (*told, "")
    assert MADE["ends"].ends.empty()


async def test_who_leaves_the_queue_is_told_of(stage: Stage, until: Until) -> None:
    """A client that left before its turn was refused, in the books and to plugins; hooks that wait or not."""
    upstream = await stage.upstream(seen_talking)
    server = await stage.gateway(
        upstream, limits={"concurrent": 1, "queue": 1}, plugins=use("EditsWaiting", "Hides", "Ends")
    )
    first = await stage.chat(server)
    await first.head()
    waiting = await stage.chat(server)
    await until(lambda: server.gateway.gate.ledger.waiting == 1)
    assert await refusal(await stage.chat(server)) == (503, "queue_full")
    assert (await MADE["ends"].next()).reason == "queue_full"
    waiting.reset()
    assert (await MADE["ends"].next()).reason == "client_left"
    first.close()
    assert (await MADE["ends"].next()).outcome == "client_closed"
    await balanced(server, until)


# ---------------------------------------------------------------- waiting, draining, places


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_client_that_leaves_while_a_plugin_waits(stage: Stage, how: str, until: Until) -> None:
    """Its place and its upstream are free at once, and the plugin's wait is over."""
    upstream = await stage.upstream(seen_talking)
    server = await stage.gateway(upstream, plugins=use("Holds", "Ends", budget=30))
    lags = []
    for _ in range(10):
        before = len(MADE["holds"].seen)
        client = await stage.chat(server)
        peer = await upstream.arrived.get()
        await until(lambda before=before: len(MADE["holds"].seen) > before)
        left = time.perf_counter()
        client.reset() if how == "rst" else client.close()
        lags.append(await asyncio.wait_for(peer.closed_at, 5) - left)
        assert server.gateway.gate.ledger.taken == 0
        assert (await MADE["ends"].next()).outcome in ("client_closed", "client_gave_up")
        lags[-1] = max(lags[-1], time.perf_counter() - left)
    assert sorted(lags)[-2] < 0.05, lags
    await balanced(server, until)


async def test_a_drain_waits_for_hooked_streams(stage: Stage, way: str) -> None:
    """Those that end in time are whole, with all that plugins held."""
    upstream = await stage.upstream(until_abort)
    server = await stage.gateway(upstream, plugins=use(f"Hides{way}", f"Edits{way}", "Ends"))
    client = await stage.chat(server)
    await client.head()
    await client.piece()
    server.begin_drain()
    peer = await upstream.arrived.get()
    peer.chunk(delta("my secret sec"), FINISH, DONE)
    peer.end()
    assert await server.drained() == 0
    body = await client.body()
    assert said(body) == "my [hidden] sec" and body.endswith(DONE)
    assert (await MADE["ends"].next()).outcome == "completed"


async def test_a_drain_that_is_over_cuts_hooked_streams(stage: Stage, way: str) -> None:
    """They get what was held, and the error event."""
    upstream = await stage.upstream(until_abort)
    server = await stage.gateway(upstream, drain={"timeout": 0.1}, plugins=use(f"Hides{way}", f"Edits{way}", "Ends"))
    client = await stage.chat(server)
    await client.head()
    await client.piece()
    (await upstream.arrived.get()).chunk(delta("my sec"))
    assert said(await client.piece()) == "my "
    server.begin_drain()
    assert await server.drained() == 3
    body = await client.body()
    assert said(body.rpartition(b"data: ")[0]) == "sec" and error_of(body)["code"] == "gateway_draining"
    assert (await MADE["ends"].next()).outcome == "drained"


async def test_what_is_left_with_a_plugin_takes_no_place(stage: Stage, until: Until) -> None:
    """An upstream that is done gives its place back, whatever plugins still have to do with its last events."""
    upstream = await stage.upstream(saying(*talk("a")))
    server = await stage.gateway(
        upstream, limits={"concurrent": 1, "queue": 0}, plugins=use("Holds", routes=["slow"], budget=30)
    )
    first = await stage.chat(server, "slow")
    holds: Holds = await made("holds", until)
    await until(lambda: holds.seen and server.gateway.gate.ledger.taken == 0)
    assert said(await read(await stage.chat(server))) == "a"
    for _ in talk("a"):
        holds.go.release()
    assert said(await read(first)) == "a"


async def made(name: str, until: Until) -> Any:
    await until(lambda: name in MADE)
    return MADE[name]


async def test_a_mailbox_that_is_full_stops_the_upstream(stage: Stage, until: Until) -> None:
    """A plugin that is behind holds so many bytes and no more: the rest stays with the upstream."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        peer.stream()
        while sent < 64 << 20:
            peer.chunk(delta("x" * 4000) * 16)
            sent += 64_000
            await peer.writer.drain()

    upstream = await stage.upstream(script)
    server = await stage.gateway(upstream, plugins=use("Holds", budget=30))
    client = await stage.chat(server)
    peer = await upstream.arrived.get()
    await until(lambda: peer.writer.transport.get_write_buffer_size() and MADE["holds"].seen)
    (record,) = server.gateway.relay.running
    came: list[int] = []
    await until(lambda: came.append(record.bytes_in) or (len(came) > 20 and came[-1] == came[-20]))
    assert record.bytes_in < 512 * 1024 and sent < 16 << 20
    client.reset()
    await balanced(server, until)


# ---------------------------------------------------------------- which requests a plugin sees


async def test_a_plugin_s_own_routes(stage: Stage) -> None:
    """It is called for models that match, and for no others."""
    server = await stage.gateway(
        await stage.upstream(saying(*talk("DROP", "a secret"))),
        plugins=use("Edits", "Rewrites", "Ends", routes=["gpt-*", "m?"]),
    )
    assert said(await read(await stage.chat(server, "m"))) == "DROPa secret"
    assert [MADE[name].seen for name in ("edits", "rewrites")] == [[], []] and MADE["ends"].ends.empty()
    for model in ("m1", "gpt-4o"):
        assert said(await read(await stage.chat(server, model))) == "a secret"
        assert (await MADE["ends"].next()).model == model


async def test_a_route_s_plugins(stage: Stage) -> None:
    """A route names those that see its requests; without a word of it all do, and `[]` is none."""
    routes = [
        {"models": ["none"], "upstreams": ["up0"], "plugins": []},
        {"models": ["one"], "upstreams": ["up0"], "plugins": ["hides"]},
        {"models": ["*"], "upstreams": ["up0"]},
    ]
    server = await stage.gateway(
        await stage.upstream(saying(*talk("DROP", "a secret"))), routes=routes, plugins=use("Edits", "Hides")
    )
    texts = {model: said(await read(await stage.chat(server, model))) for model in ("none", "one", "all")}
    assert texts == {"none": "DROPa secret", "one": "DROPa [hidden]", "all": "a [hidden]"}


async def test_plugins_are_called_in_the_order_of_the_configuration(stage: Stage) -> None:
    """Each is given what the one before it gave back."""
    upstream = await stage.upstream(saying(*talk("a secret")))
    server = await stage.gateway(upstream, plugins=use("Hides", "Edits"))
    assert said(await read(await stage.chat(server))) == "a [hidden]"
    assert "a [hidden]" in MADE["edits"].seen[1]
    other = await stage.gateway(upstream, plugins=use("Edits", "Hides"))
    assert said(await read(await stage.chat(other))) == "a [hidden]"
    assert "a secret" in MADE["edits"].seen[1]
