"""Browsers on other origins: asked before anything else, and every answer can be read by those that are allowed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from stage import Client, Stage

from streamgate import demo
from streamgate.server import Server

pytestmark = pytest.mark.anyio

APP, OTHER = "https://app.test", "https://evil.test"
CHAT = "/v1/chat/completions"
EXPOSED = {"x-request-id", "request-id", "x-upstream-request-id", "retry-after", "retry-after-ms"}


@pytest.fixture
async def upstream(anyio_backend: Any) -> AsyncIterator[demo.DemoUpstream]:
    async with await demo.start() as started:
        yield started


async def preflight(stage: Stage, server: Server, origin: str, *, path: str = CHAT, method: str = "POST") -> Client:
    client = await stage.client(server)
    lines = [
        f"OPTIONS {path} HTTP/1.1",
        "host: gateway",
        f"origin: {origin}",
        f"access-control-request-method: {method}",
        "access-control-request-headers: authorization,content-type,x-stainless-lang",
    ]
    client.send("\r\n".join([*lines, "", ""]).encode())
    await client.head()
    await client.body()
    return client


def readable(client: Client, origin: str = APP) -> None:
    """A page of that origin can read the answer, its request ids and its retry headers."""
    assert client.headers["access-control-allow-origin"] == origin
    exposed = {name.strip().lower() for name in client.headers["access-control-expose-headers"].split(",")}
    assert exposed >= EXPOSED


async def test_preflight_comes_before_auth(stage: Stage, upstream: demo.DemoUpstream, tmp_path: Path) -> None:
    """A browser sends no key with it; it is answered, with the headers that SDKs send; nothing goes up."""
    (tmp_path / "key").write_text("right")
    keys = [{"name": "team", "key": f"file:{tmp_path / 'key'}"}]
    server = await stage.gateway(upstream.url, cors={"origins": [APP]}, keys=keys)
    for path, method in ((CHAT, "POST"), ("/v1/models", "GET"), ("/v1/messages", "POST")):
        client = await preflight(stage, server, APP, path=path, method=method)
        assert client.status in (200, 204)
        assert client.headers["access-control-allow-origin"] == APP
        assert method in client.headers["access-control-allow-methods"]
        allowed = client.headers["access-control-allow-headers"].lower()
        assert "authorization" in allowed and "content-type" in allowed and "x-stainless-lang" in allowed
        assert "origin" in client.headers["vary"].lower()
    assert not upstream.connections_opened


@pytest.mark.parametrize("origin", [OTHER, "null", "https://app.test.evil.test", "http://app.test", "https://APP.test"])
async def test_other_origins(stage: Stage, upstream: demo.DemoUpstream, origin: str) -> None:
    """They are not allowed, neither before nor with the request; what they sent is served, but no page can read it."""
    server = await stage.gateway(upstream.url, cors={"origins": [APP]})
    client = await preflight(stage, server, origin)
    assert "access-control-allow-origin" not in client.headers
    client = await stage.chat(server, "demo-n2-t0", f"origin: {origin}")
    await client.head()
    await client.body()
    assert "access-control-allow-origin" not in client.headers


async def test_without_configuration(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """No origin is allowed, and a preflight is just a method that is not served."""
    server = await stage.gateway(upstream.url)
    client = await preflight(stage, server, APP)
    assert client.status == 405
    assert "access-control-allow-origin" not in client.headers


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "answer"])
@pytest.mark.parametrize("model", ["demo-n2-t0", "demo-status429-r30", "demo-resethead", "nobody"])
async def test_answers_can_be_read(stage: Stage, upstream: demo.DemoUpstream, model: str, stream: bool) -> None:
    """Streams, answers, an upstream's errors, and refusals."""
    routes = [{"models": ["demo-*"], "upstreams": ["up0"]}]
    server = await stage.gateway(upstream.url, cors={"origins": [APP]}, routes=routes, retry={"attempts": 0})
    client = await stage.chat(server, model, f"origin: {APP}", stream=stream)
    await client.head()
    assert await client.body()
    readable(client)


async def test_early_commits_can_be_read(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """Also a head that went out before the upstream had one."""
    server = await stage.gateway(upstream.url, cors={"origins": [APP]}, clocks={"early_commit": 0})
    client = await stage.chat(server, "demo-hb50-n2-t0", f"origin: {APP}")
    await client.head()
    assert (await client.body()).endswith(b"data: [DONE]\n\n")
    readable(client)


async def test_models_and_refusals_can_be_read(stage: Stage, upstream: demo.DemoUpstream, tmp_path: Path) -> None:
    """What the gateway says by itself."""
    (tmp_path / "key").write_text("right")
    keys = [{"name": "team", "key": f"file:{tmp_path / 'key'}"}]
    server = await stage.gateway(upstream.url, cors={"origins": [APP]}, keys=keys)
    client = await stage.client(server)
    for key, status in (("wrong", 401), ("right", 200)):
        client.send(f"GET /v1/models HTTP/1.1\r\nhost: a\r\norigin: {APP}\r\nx-api-key: {key}\r\n\r\n".encode())
        assert await client.head() == status
        json.loads(await client.body())
        readable(client)


async def test_every_origin(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """A star allows all, without credentials."""
    server = await stage.gateway(upstream.url, cors={"origins": ["*"]})
    client = await stage.chat(server, "demo-n2-t0", f"origin: {OTHER}")
    await client.head()
    await client.body()
    readable(client, "*")
    assert "access-control-allow-credentials" not in client.headers


async def test_no_origin(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """Programs that are no browsers notice nothing."""
    server = await stage.gateway(upstream.url, cors={"origins": [APP]})
    client = await stage.chat(server, "demo-n2-t0")
    await client.head()
    await client.body()
    assert "access-control-allow-origin" not in client.headers
