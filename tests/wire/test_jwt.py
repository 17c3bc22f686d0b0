"""Tokens on the wire: a real issuer, the official SDK, and what becomes of both when the issuer goes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import structlog
from stage import Stage

from streamgate import demo
from streamgate.admission import jwks
from streamgate.control.config import Config, effective
from streamgate.server import Server
from tests.tokens import AUDIENCE, ISSUER, Issuer, Served, served

pytestmark = pytest.mark.anyio

OURS, OTHERS = Issuer(), Issuer()
KEY = "sg-a-key-of-ours"


@pytest.fixture
async def upstream(anyio_backend: Any) -> AsyncIterator[demo.DemoUpstream]:
    async with await demo.start() as started:
        yield started


@pytest.fixture
def issuer() -> Iterator[Served]:
    with served(OURS.jwks("rsa", "ec")) as started:
        yield started


def settings(source: str, **more: Any) -> dict[str, Any]:
    tree = {
        "jwt": {"issuer": ISSUER, "audience": AUDIENCE, "jwks": source, "claims": {"models": "models"}} | more,
        "keys": [{"name": "static", "key": "${KEY}"}],
    }
    built = Config.built(tree, {"KEY": KEY})
    return {"jwt": built.jwt, "keys": built.keys}


async def asked(server: Server, key: str, model: str = "demo-n1") -> Any:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        return await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])


async def test_a_token_lets_its_tenant_in(stage: Stage, upstream: demo.DemoUpstream, issuer: Served) -> None:
    """Beside keys; the keys of its issuer are fetched once, and neither token nor key goes up or into a log."""
    server = await stage.gateway(upstream.url, **settings(issuer.url))
    tokens = [OURS.token("rsa", models=["demo*"]), OURS.token("ec", sub="bob", models=["demo-n1"])]
    with structlog.testing.capture_logs() as lines:
        for key in (*tokens, KEY, tokens[0]):
            assert (await asked(server, key)).choices
    assert [line["fields"]["tenant"] for line in lines if line["event"] == "stream_finished"] == [
        "alice",
        "bob",
        "static",
        "alice",
    ]
    assert issuer.asked == 1
    seen = repr(lines) + repr([request.raw for request in upstream.received]) + repr(server.gateway.relay.policy)
    assert not any(key.rpartition(".")[2] in seen for key in (*tokens, KEY))


async def test_the_sdk_raises_what_is_meant(stage: Stage, upstream: demo.DemoUpstream, issuer: Served) -> None:
    """A foreign, expired or misdirected token is an AuthenticationError; for other models, a PermissionDeniedError."""
    server = await stage.gateway(upstream.url, **settings(issuer.url))
    refused = [
        (OTHERS.token(models=[]), openai.AuthenticationError, "invalid_api_key"),
        (OURS.token(models=["*"], exp=time.time() - 3600), openai.AuthenticationError, "expired_api_key"),
        (OURS.token(models=["*"], aud="elsewhere"), openai.AuthenticationError, "invalid_api_key"),
        (OURS.token(), openai.AuthenticationError, "invalid_api_key"),
        ("a.b.c", openai.AuthenticationError, "invalid_api_key"),
        ("sg-unknown", openai.AuthenticationError, "invalid_api_key"),
        (OURS.token(models=["other"]), openai.PermissionDeniedError, "model_not_allowed"),
        (OURS.token(models=[]), openai.PermissionDeniedError, "model_not_allowed"),
    ]
    for token, kind, code in refused:
        with pytest.raises(kind) as caught:
            await asked(server, token)
        assert caught.value.code == code
        assert token not in str(caught.value)
    assert not upstream.received


async def test_an_issuer_that_goes(
    stage: Stage, upstream: demo.DemoUpstream, issuer: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its keys are known: 503 and when to come back, for tokens only. After that nobody notices."""
    monkeypatch.setattr(jwks, "SPACING", 0.0)
    server = await stage.gateway(upstream.url, **settings(issuer.url))
    token = OURS.token(models=["*"])
    issuer.status = 500
    with structlog.testing.capture_logs() as lines:
        async with httpx.AsyncClient(base_url=server.url, headers={"authorization": f"Bearer {token}"}) as client:
            answer = await client.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "issuer_unavailable")
    assert 1 <= int(answer.headers["retry-after"]) <= 60 and int(answer.headers["retry-after-ms"]) >= 1000
    said = [line for line in lines if line["event"] == "jwks_unavailable"]
    assert said and said[0]["error"] == "HTTPError" and said[0]["jwks"] in issuer.url
    assert (await asked(server, KEY)).choices
    issuer.status = 200
    assert (await asked(server, token)).choices
    issuer.status = 500
    assert (await asked(server, OURS.token("ec", models=["*"]))).choices
    assert server.observer.tally.rejected.cells == {("/v1/models", "auth"): 1}


async def test_an_issuer_that_changes_its_keys(
    stage: Stage, upstream: demo.DemoUpstream, issuer: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that names a new key makes us ask; the old key's tokens end."""
    server = await stage.gateway(upstream.url, **settings(issuer.url, algorithms=["RS256", "ES256", "EdDSA"]))
    old, new = OURS.token(models=["*"]), OURS.token("ed", models=["*"])
    assert (await asked(server, old)).choices
    issuer.body = OURS.jwks("ed")
    with pytest.raises(openai.AuthenticationError):
        await asked(server, new)
    assert issuer.asked == 1
    monkeypatch.setattr(jwks, "SPACING", 0.0)
    assert (await asked(server, new)).choices
    with pytest.raises(openai.AuthenticationError):
        await asked(server, old)


async def test_keys_of_an_issuer_in_a_file(stage: Stage, upstream: demo.DemoUpstream, tmp_path: Path) -> None:
    """Where the gateway reaches no issuer."""
    (tmp_path / "jwks.json").write_bytes(OURS.jwks())
    server = await stage.gateway(upstream.url, **settings(str(tmp_path / "jwks.json")))
    assert (await asked(server, OURS.token("ec", models=["*"]))).choices
    assert KEY not in effective(server.config)
