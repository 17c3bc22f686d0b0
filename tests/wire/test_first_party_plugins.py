"""The plugins that come with the gateway, each on a whole one, by configuration alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import structlog
from stage import DONE, FINISH, Client, Peer, Scripted, Stage, delta

from streamgate.server import Server
from tests.wire.test_cancellation import balanced
from tests.wire.test_metrics import scraped, shows
from tests.wire.test_plugins import error_of, key, read, refusal, said, saying, talk

pytestmark = pytest.mark.anyio

Until = Callable[..., Awaitable[None]]
PLUGINS = Path(__file__).parents[2] / "plugins"
TWO = [{"models": ["*"], "upstreams": ["up0", "up1"], "balance": "in_order"}]
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}\n\n'
CARD = "4111 1111 1111 1111"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they are installed or not."""
    for folder in PLUGINS.iterdir():
        monkeypatch.syspath_prepend(folder)


def use(name: str, **settings: Any) -> dict[str, Any]:
    kinds = {"guard_classifier": "streamgate_guard:ClassifierGuard", "audit": "streamgate_audit:Audit"}
    kind = kinds.get(name) or f"streamgate_{name}:{''.join(map(str.title, name.split('_')))}"
    return {"use": kind, "name": name, "settings": settings}


async def chat(stage: Stage, server: Server, text: str = "hi", *headers: str, stream: bool = True) -> Client:
    client = await stage.client(server)
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}
    client.post("/v1/chat/completions", body, *headers)
    return client


async def resets(peer: Peer) -> None:
    peer.reset()


# ---------------------------------------------------------------- redact


async def test_redact(stage: Stage) -> None:
    """In what is asked and in what is answered, however tokens cut it; not in metrics or logs either."""
    words = ["Your card ", "4111 11", "11 1111", " 1111", " and ann@ex", "ample.org", "."]
    upstream = await stage.upstream(saying(*talk(*words)))
    with structlog.testing.capture_logs() as lines:
        server = await stage.gateway(upstream, plugins=[use("redact")])
        body = await read(await chat(stage, server, f"{CARD}, bob@example.org"))
        seen = await shows(server, lambda seen: seen("streams_total") == 1)
    assert said(body) == "Your card [card] and [email]." and body.endswith(DONE)
    assert json.loads(upstream.peers[0].body)["messages"][0]["content"] == "[card], [email]"
    assert seen("plugin_redact_redacted_total", pattern="card") == 2
    assert seen("plugin_redact_redacted_total", pattern="email") == 2
    for hidden in ("4111", "ann@", "bob@"):
        assert hidden not in str(lines) and hidden not in str(seen.samples)


async def test_redact_in_a_whole_answer(stage: Stage) -> None:
    """Without `stream` as well."""

    async def script(peer: Peer) -> None:
        message = {"role": "assistant", "content": f"It is {CARD}."}
        peer.answer(200, json.dumps({"choices": [{"index": 0, "message": message}]}).encode())

    server = await stage.gateway(await stage.upstream(script), plugins=[use("redact")])
    answer = json.loads(await read(await chat(stage, server, stream=False)))
    assert answer["choices"][0]["message"]["content"] == "It is [card]."


async def test_redact_trusts_some_upstreams(stage: Stage) -> None:
    """They come first for what is to be hidden, and get it as it came; the next try gets it redacted."""
    upstreams = [await stage.upstream(saying(*talk("a"))), await stage.upstream(resets)]
    server = await stage.gateway(*upstreams, routes=TWO, plugins=[use("redact", trusted=["up1"])])
    assert said(await read(await chat(stage, server, "bob@example.org"))) == "a"
    sent = [json.loads(upstream.peers[0].body)["messages"][0]["content"] for upstream in upstreams]
    assert sent == ["[email]", "bob@example.org"]
    assert said(await read(await chat(stage, server, "hello"))) == "a"
    assert len(upstreams[1].peers) == 1, "nothing to hide: in the ordinary order"


# ---------------------------------------------------------------- guard

CANARY = {"name": "canary", "regex": "CANARY-[0-9a-f]{8}", "longest": 15}


@pytest.mark.parametrize("mode", ["block", "watch"])
async def test_guard(stage: Stage, mode: str, until: Until) -> None:
    """The stream ends on a pattern that tokens cut; to SDKs that is an error, and in the books plugin_abort."""
    upstream = await stage.upstream(saying(*talk("Here: ", "CANA", "RY-0123", "4567", " and more")))
    server = await stage.gateway(upstream, plugins=[use("guard", patterns=[CANARY], mode=mode)])
    body = await read(await chat(stage, server))
    shown = said(body.rpartition(b"data: ")[0])
    assert error_of(body)["code"] == "guard" and DONE not in body
    assert shown in {"block": ("", "Here: "), "watch": ("Here: CANARY-0123", "Here: CANARY-0123456")}[mode]
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        stream = await client.chat.completions.create(model="m", messages=[], stream=True)
        with pytest.raises(openai.APIError, match="rule about its content"):
            [chunk async for chunk in stream]
    seen = await shows(server, lambda seen: seen("streams_total", outcome="plugin_abort") == 2)
    assert seen("plugin_guard_stopped_total", pattern="canary") == 2
    await balanced(server, until)


class Classifier:
    """Flags what has `bad` in it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            text = json.loads(peer.body)["text"]
            self.asked.append(text)
            peer.answer(200, json.dumps({"flagged": "bad" in text}).encode())
            await peer.request()


@pytest.mark.parametrize("mode", ["block", "watch"])
async def test_guard_by_a_classifier(stage: Stage, mode: str, until: Until) -> None:
    """What it flags stops the stream, what it passes goes on; the last window is asked about, too."""
    judge = Classifier()
    url = f"{(await stage.upstream(judge)).url}/check"
    words = [[*"all is well in here, all of it"], [*"all is well but the end is bad"]]
    upstreams = [await stage.upstream(saying(*talk(*each))) for each in words]
    routes = [{"models": ["m"], "upstreams": ["up0"]}, {"models": ["other"], "upstreams": ["up1"]}]
    plugin = use("guard_classifier", url=url, window=16, overlap=4, mode=mode)
    server = await stage.gateway(*upstreams, routes=routes, plugins=[plugin])
    body = await read(await stage.chat(server))
    assert said(body) == "all is well in here, all of it" and body.endswith(DONE)
    stopped = await read(await stage.chat(server, "other"))
    assert error_of(stopped)["code"] == "guard" and DONE not in stopped
    if mode == "block":
        assert "bad" not in said(stopped.rpartition(b"data: ")[0])
    seen = await shows(server, lambda seen: seen("streams_total") == 2)
    assert seen("plugin_guard_classifier_checks_total", verdict="flagged") == 1
    assert seen("plugin_guard_classifier_checks_total") == len(judge.asked) >= 4
    await balanced(server, until)


# ---------------------------------------------------------------- budget


async def test_budget(stage: Stage, tmp_path: Path) -> None:
    """Charged by usage, told when it is low, refused when it is spent; another gateway with the same file knows."""
    upstream = await stage.upstream(saying(delta("a"), FINISH, USAGE, DONE))
    budget = use("budget", limits=[{"tokens": 15, "period": "month"}], sqlite=str(tmp_path / "spent.db"))
    server = await stage.gateway(upstream, plugins=[budget])
    first = await chat(stage, server)
    assert said(await read(first)) == "a" and "x-streamgate-budget-remaining" not in first.headers
    await shows(server, lambda seen: seen("plugin_budget_tokens_total") == 12)
    low = await chat(stage, server)
    assert said(await read(low)) == "a"
    assert low.headers["x-streamgate-budget-remaining"].startswith("3; unit=tokens; period=month; reset=")
    await shows(server, lambda seen: seen("plugin_budget_tokens_total") == 24)
    spent = await chat(stage, server)
    assert await refusal(spent) == (429, "budget_exceeded")
    assert 1 <= int(spent.headers["retry-after"]) <= 60
    assert len(upstream.peers) <= 2 and (await scraped(server))("requests_rejected_total", reason="plugin") == 1
    again = await stage.gateway(upstream, plugins=[budget])
    assert await refusal(await chat(stage, again)) == (429, "budget_exceeded")


# ---------------------------------------------------------------- audit


@pytest.mark.parametrize("content", ["none", "plain"])
async def test_audit(stage: Stage, tmp_path: Path, content: str, until: Until) -> None:
    """One line for each request: a stream, one that was cut, one that was refused; after redact, what redact left."""
    file = tmp_path / "audit.jsonl"
    words = talk("Ask ann@ex", "ample.org")
    upstreams = [await stage.upstream(saying(*words[:-2], USAGE, *words[-2:])), await stage.upstream(cut)]
    routes = [{"models": ["m"], "upstreams": ["up0"]}, {"models": ["cut"], "upstreams": ["up1"]}]
    plugins = [use("redact"), use("audit", file=str(file), content=content)]
    server = await stage.gateway(*upstreams, routes=routes, plugins=plugins)
    await read(await chat(stage, server, "I am bob@example.org"))
    await read(await stage.chat(server, "cut"))
    assert await refusal(await stage.chat(server, "nowhere")) == (404, "model_not_found")
    await until(lambda: file.exists() and file.read_bytes().count(b"\n") == 3)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    went = [(line.get("outcome"), line.get("reason"), line["status"], line["model"]) for line in lines]
    assert went == [
        ("completed", None, 200, "m"),
        ("truncated", None, 200, "cut"),
        (None, "not_found", 404, "nowhere"),
    ]
    assert lines[0]["usage"]["output"] == 3 and lines[0]["upstream"] == "up0" and lines[0]["client"] == "127.0.0.1"
    assert b"@" not in file.read_bytes()
    if content == "plain":
        assert lines[0]["answer"][0]["text"] == "Ask [email]" and "I am [email]" in lines[0]["request"]["text"]
    else:
        assert "answer" not in lines[0] and "request" not in lines[0]


async def cut(peer: Peer) -> None:
    peer.stream(delta("a"))
    peer.end()


# ---------------------------------------------------------------- record_replay


async def test_record_replay(stage: Stage, tmp_path: Path) -> None:
    """What an upstream said once is served again without it, event for event; what was never asked is not there."""
    upstream = await stage.upstream(saying(*talk("one ", "two")))
    server = await stage.gateway(upstream, plugins=[use("record_replay", directory=str(tmp_path), speed=0)])
    recorded = await read(await chat(stage, server))
    await shows(server, lambda seen: seen("plugin_record_replay_recorded_total") == 1)
    assert await read(await chat(stage, server)) == recorded
    assert len(upstream.peers) == 1 and (await scraped(server))("plugin_record_replay_replayed_total") == 1
    nowhere = "http://127.0.0.1:1"
    offline = await stage.gateway(
        nowhere, plugins=[use("record_replay", directory=str(tmp_path), speed=0, mode="replay")]
    )
    assert await read(await chat(stage, offline)) == recorded
    assert await refusal(await chat(stage, offline, "something else")) == (404, "no_cassette")
    assert await refusal(await chat(stage, offline, stream=False)) == (404, "not_a_stream")
    async with openai.AsyncOpenAI(base_url=f"{offline.url}/v1", api_key="-", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "hi"}]
        stream = await client.chat.completions.create(model="m", messages=messages, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "one two"


# ---------------------------------------------------------------- header_auth


async def test_header_auth(stage: Stage) -> None:
    """A listed proxy's word is an identity with its tenant's limits; everybody else needs a key."""

    async def talking(peer: Peer) -> None:
        peer.stream(delta("a"))
        await peer.closed()

    server = await stage.gateway(
        await stage.upstream(talking),
        keys=[key("mine")],
        tenants=[{"name": "acme", "limits": {"concurrent": 1}}],
        plugins=[use("header_auth", networks=["127.0.0.1"], models="x-auth-models")],
    )
    acme = "x-auth-tenant: acme"
    assert await (await chat(stage, server, "hi", acme)).head() == 200
    assert await refusal(await chat(stage, server, "hi", acme)) == (429, "concurrency")
    assert await refusal(await chat(stage, server)) == (401, "invalid_api_key")
    assert await refusal(await chat(stage, server, "hi", acme, "x-auth-tenant: other")) == (401, "identity_unclear")
    assert await refusal(await chat(stage, server, "hi", acme, "x-auth-models: gpt-*")) == (403, "model_not_allowed")
    assert (await scraped(server))("plugin_header_auth_identified_total") == 3


@pytest.mark.parametrize(
    ("untrusted", "told"), [("ignore", (401, "invalid_api_key")), ("refuse", (403, "identity_not_trusted"))]
)
async def test_header_auth_from_elsewhere(stage: Stage, untrusted: str, told: tuple[int, str]) -> None:
    """Headers of somebody who is not listed are nothing, or a reason to refuse."""
    plugin = use("header_auth", networks=["10.0.0.0/8"], untrusted=untrusted)
    server = await stage.gateway("http://127.0.0.1:1", keys=[key("mine")], plugins=[plugin])
    assert await refusal(await chat(stage, server, "hi", "x-auth-tenant: acme")) == told
    assert (await scraped(server))("plugin_header_auth_spoofed_total") == 1


# ---------------------------------------------------------------- together


@pytest.fixture
async def everything(stage: Stage, tmp_path: Path) -> tuple[Server, Scripted, Path]:
    file = tmp_path / "audit.jsonl"
    upstream = await stage.upstream(saying(delta("Ask ann@ex"), delta("ample.org"), FINISH, USAGE, DONE))
    plugins = [
        use("header_auth", networks=["127.0.0.1"]),
        use("record_replay", directory=str(tmp_path), speed=0, mode="record"),
        use("redact"),
        use("guard", patterns=[CANARY]),
        use("guard_classifier", url=f"{(await stage.upstream(Classifier())).url}/"),
        use("budget", limits=[{"tokens": 1000}], sqlite=str(tmp_path / "spent.db")),
        use("audit", file=str(file), content="plain"),
    ]
    return await stage.gateway(upstream, plugins=plugins), upstream, file


async def test_all_of_them(stage: Stage, everything: tuple[Server, Scripted, Path], until: Until) -> None:
    """In one gateway, twenty streams at once: each plugin does its part, and the books balance."""
    server, upstream, file = everything
    clients = [await chat(stage, server, f"{n}: bob@example.org", f"x-auth-tenant: t{n % 4}") for n in range(20)]
    bodies = await asyncio.gather(*(read(client) for client in clients))
    assert {said(body) for body in bodies} == {"Ask [email]"}
    assert all(body.endswith(USAGE + DONE) for body in bodies)
    assert all(b"[email]" in peer.body and b"bob@" not in peer.body for peer in upstream.peers)
    await until(lambda: file.exists() and file.read_bytes().count(b"\n") == 20)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert sorted(line["tenant"] for line in lines) == sorted(f"t{n % 4}" for n in range(20))
    assert b"ann@" not in file.read_bytes() and b"bob@" not in file.read_bytes()
    seen = await shows(server, lambda seen: seen("plugin_record_replay_recorded_total") == 20)
    assert seen("plugin_budget_tokens_total") == 240 and seen("plugin_errors_total") == 0
    await balanced(server, until)
