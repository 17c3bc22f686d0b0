"""GET /v1/models: the names that may be asked for, and what the upstreams have behind the globs."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from stage import Peer, Scripted, Stage

from streamgate.server import Server

pytestmark = pytest.mark.anyio


class Engine:
    """An upstream that lists models, and remembers who asked."""

    def __init__(self, *names: str) -> None:
        self.listed = json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})
        self.status = 200
        self.heads: list[bytes] = []
        self.hold: asyncio.Event | None = None

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.heads.append(peer.head)
            if self.hold is not None:
                await self.hold.wait()
            peer.answer(self.status, self.listed.encode())
            await peer.request()


async def get(stage: Stage, server: Server, path: str = "/v1/models", *lines: str) -> tuple[int, Any]:
    client = await stage.client(server)
    client.send("\r\n".join([f"GET {path} HTTP/1.1", "host: gateway", *lines, "", ""]).encode())
    status = await client.head()
    assert client.headers["x-request-id"] == client.headers["request-id"]
    assert client.headers["content-type"] == "application/json"
    return status, json.loads(await client.body())


async def names(stage: Stage, server: Server, *lines: str) -> list[str]:
    status, body = await get(stage, server, "/v1/models", *lines)
    assert status == 200
    assert body.keys() == {"object", "data"} and body["object"] == "list"
    assert all(model.keys() == {"id", "object", "created", "owned_by"} for model in body["data"])
    return [model["id"] for model in body["data"]]


async def test_exact_names_need_no_upstream(stage: Stage) -> None:
    """Names and aliases come from the configuration, in its order, each once; nobody is asked."""
    engine = Engine("anything")
    routes = [
        {"models": ["llama-70b", "llama-8b"], "upstreams": ["up0"]},
        {"models": ["gpt-4", "llama-8b"], "as": "llama-70b", "upstreams": ["up0"]},
    ]
    server = await stage.gateway(await stage.upstream(engine), routes=routes)
    assert await names(stage, server) == ["llama-70b", "llama-8b", "gpt-4"]
    assert not engine.heads
    assert server.observer.statistics() == {"active": 0, "live": 0, "started": 0, "ended": 0, "rejected": 0}


async def test_globs_are_asked_for(stage: Stage) -> None:
    """Of an upstream's models those that a route would send to it, and no others."""
    llama, rest = Engine("llama-8b", "llama-70b", "mistral"), Engine("gpt-4", "llama-8b", "qwen", "gemma")
    routes = [
        {"models": ["llama-*"], "upstreams": ["up0"]},
        {"models": ["gpt-4"], "upstreams": ["up0"]},
        {"models": ["q?en", "gem*"], "upstreams": ["up1"]},
    ]
    server = await stage.gateway(await stage.upstream(llama), await stage.upstream(rest), routes=routes)
    assert sorted(await names(stage, server)) == ["gemma", "gpt-4", "llama-70b", "llama-8b", "qwen"]


async def test_without_routes(stage: Stage) -> None:
    """Every model of every upstream, each once."""
    server = await stage.gateway(await stage.upstream(Engine("a", "b")), await stage.upstream(Engine("b", "c")))
    assert await names(stage, server) == ["a", "b", "c"]


async def test_lists_are_kept(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """For 30 s an upstream is not asked again, however many ask; after that it is."""
    engine = Engine("a")
    server = await stage.gateway(await stage.upstream(engine))
    engine.hold = asyncio.Event()
    asking = [asyncio.create_task(names(stage, server)) for _ in range(8)]  # noqa: TID251 - gathered below
    await asyncio.wait(asking, timeout=0.05)
    engine.hold.set()
    assert await asyncio.gather(*asking) == [["a"]] * 8
    assert len(engine.heads) == 1
    engine.listed = Engine("b").listed
    assert await names(stage, server) == ["a"]
    monkeypatch.setattr("streamgate.relay.models.monotonic", lambda: time.monotonic() + 29)
    assert await names(stage, server) == ["a"]
    monkeypatch.setattr("streamgate.relay.models.monotonic", lambda: time.monotonic() + 31)
    assert await names(stage, server) == ["b"]
    assert len(engine.heads) == 2


BROKEN = [b"", b"{", b"[]", b"null", b'{"data":7}', b'{"data":[1,null,{"id":2},{}]}', b'{"models":[]}', b"\xff"]


@pytest.mark.parametrize("listed", [*BROKEN, b'{"data":[{"id":"' + b"x" * 5_000_000 + b'"}]}'], ids=range(9))
async def test_a_list_that_is_none(stage: Stage, listed: bytes) -> None:
    """What an upstream says wrongly is left out, and so is a list without end."""

    async def script(peer: Peer) -> None:
        peer.answer(200, listed)
        await peer.closed()

    server = await stage.gateway(await stage.upstream(script), await stage.upstream(Engine("good")))
    assert await names(stage, server) == ["good"]


@pytest.mark.parametrize("down", ["refuses", "closes", "500", "401", "silent"])
async def test_one_upstream_is_down(stage: Stage, down: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is made of what the others have, and does not wait for ever."""

    async def script(peer: Peer) -> None:
        if down == "closes":
            await peer.close()
        elif down != "silent":
            peer.answer(int(down), b'{"data":[{"id":"bad"}]}')
        await peer.closed()

    monkeypatch.setattr("streamgate.relay.models.PATIENCE", 0.1)
    first: Scripted | str = "http://127.0.0.1:1" if down == "refuses" else await stage.upstream(script)
    server = await stage.gateway(first, await stage.upstream(Engine("good")))
    began = time.monotonic()
    assert await names(stage, server) == ["good"]
    assert time.monotonic() - began < 1
    books = server.gateway.upstreams.statistics().values()
    assert all(each.active == 0 for each in books)


async def test_the_clients_own_list(stage: Stage) -> None:
    """With `auth: client` it is asked for anew, with the key of whoever asks."""
    engine = Engine("a")
    upstream = await stage.upstream(engine)
    server = await stage.gateway(upstreams=[{"name": "up0", "url": upstream.url, "auth": "client"}])
    for key in ("one", "two", "one"):
        assert await names(stage, server, f"authorization: Bearer {key}") == ["a"]
    asked = [head.lower().partition(b"authorization: ")[2].partition(b"\r\n")[0] for head in engine.heads]
    assert asked == [b"bearer one", b"bearer two", b"bearer one"]


async def test_the_gateways_own_key(stage: Stage, tmp_path: Path) -> None:
    """An upstream with a key of ours is asked with it, and never with the client's."""
    (tmp_path / "key").write_text("sk-ours")
    engine = Engine("a")
    upstream = await stage.upstream(engine)
    auth = {"key": f"file:{tmp_path / 'key'}"}
    server = await stage.gateway(upstreams=[{"name": "up0", "url": upstream.url, "auth": auth}])
    assert await names(stage, server, "authorization: Bearer sk-mine", "cookie: a=b") == ["a"]
    head = engine.heads[0].lower()
    assert b"sk-ours" in head and b"sk-mine" not in head and b"cookie" not in head


async def test_keys(stage: Stage, tmp_path: Path) -> None:
    """The list is for those with a key."""
    (tmp_path / "key").write_text("right")
    engine = Engine("a")
    keys = [{"name": "team", "key": f"file:{tmp_path / 'key'}"}]
    server = await stage.gateway(await stage.upstream(engine), keys=keys)
    for path in ("/v1/models", "/v1/models/a"):
        status, body = await get(stage, server, path)
        assert status == 401 and body["error"]["code"] == "invalid_api_key"
    assert not engine.heads
    assert await names(stage, server, "authorization: Bearer right") == ["a"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("llama-8b", "llama-8b"),
        ("org/model", "org/model"),
        ("org%2Fmodel", "org/model"),
        ("a:b@c+d", "a:b@c+d"),
        ("with%20space", "with space"),
        ("%C5%BC%C3%B3%C5%82w", "żółw"),
    ],
)
async def test_one_model(stage: Stage, path: str, name: str) -> None:
    """By its name, percent-encoded or not."""
    server = await stage.gateway(await stage.upstream(Engine(name)))
    status, body = await get(stage, server, f"/v1/models/{path}")
    assert status == 200
    assert body == {"id": name, "object": "model", "created": 0, "owned_by": "streamgate"}


@pytest.mark.parametrize("path", ["none", "a/b", "a%00", "..", "%2e%2e/x", "A", "a%22b"])
async def test_one_model_that_is_not_there(stage: Stage, path: str) -> None:
    """404, as OpenAI says it; counted as refused."""
    server = await stage.gateway(await stage.upstream(Engine("a")))
    status, body = await get(stage, server, f"/v1/models/{path}")
    assert status == 404
    assert body["error"]["code"] == "model_not_found"
    assert server.observer.tally.rejected.cells == {("/v1/models/{id}", "not_found"): 1}


@pytest.mark.parametrize("path", ["/v1/models/", "/v1/models//", "/v1/models/" + "a" * 257, "/v1/models?a=b%20"])
async def test_paths_that_are_close(stage: Stage, path: str) -> None:
    """A query changes nothing; a name that cannot be one is not found."""
    server = await stage.gateway(await stage.upstream(Engine("a")))
    status, _ = await get(stage, server, path)
    assert status == (200 if "?" in path else 404)


async def test_a_client_that_leaves(stage: Stage, until: Any) -> None:
    """Whoever waits for the list and goes away leaves nothing behind."""
    engine = Engine("a")
    engine.hold = asyncio.Event()
    server = await stage.gateway(await stage.upstream(engine))
    client = await stage.client(server)
    client.send(b"GET /v1/models HTTP/1.1\r\nhost: gateway\r\n\r\n")
    await until(lambda: engine.heads)
    client.reset()
    engine.hold.set()
    await until(lambda: server.observer.statistics()["live"] == 0)
    assert await names(stage, server) == ["a"]
