"""Keys on the wire: what the official SDKs make of refusals, keys that change under traffic, keys that never show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import structlog
from stage import DONE, FINISH, Peer, Stage, delta, serving

from streamgate import demo
from streamgate.control.config import Config, effective, load
from streamgate.server import Server

pytestmark = pytest.mark.anyio

RIGHT, LIMITED, EXPIRED, WRONG, FOREIGN, FILED = (
    f"sg-{word}-{'x' * 30}" for word in ("right", "limited", "expired", "wrong", "foreign", "filed")
)
SECRETS = (RIGHT, LIMITED, EXPIRED, WRONG, FOREIGN, FILED)
ENV = {"RIGHT": RIGHT, "LIMITED": LIMITED, "EXPIRED": EXPIRED}
KEYS: list[dict[str, Any]] = [
    {"name": "right", "key": "${RIGHT}", "tenant": "acme"},
    {"name": "limited", "sha256": sha256(LIMITED.encode()).hexdigest(), "models": ["demo-n1*"]},
    {"name": "expired", "key": "${EXPIRED}", "expires": "2020-01-01"},
]
ROUTES = [
    {"models": ["demo-n1-t1"], "upstreams": ["up0"], "limits": {"max_body": 1000}},
    {"models": ["demo*"], "upstreams": ["up0"]},
]
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell me"}]}


@pytest.fixture
async def upstream(anyio_backend: Any) -> AsyncIterator[demo.DemoUpstream]:
    async with await demo.start() as started:
        yield started


async def keyed(stage: Stage, *upstreams: Any, **more: Any) -> Server:
    """A gateway with these keys: references are resolved as in a file."""
    built = Config.built({"keys": KEYS} | more, ENV)
    return await stage.gateway(*upstreams, **{name: getattr(built, name) for name in {"keys", *more}})


async def chat(server: Server, key: str, model: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        assert (await client.chat.completions.create(model=model, **ASK)).choices


async def message(server: Server, key: str, model: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key=key, max_retries=0) as client:
        await client.messages.create(model=model, max_tokens=5, **ASK)


REFUSED = [
    (WRONG, "demo-n1", "AuthenticationError", "invalid_api_key"),
    (FOREIGN, "demo-n1", "AuthenticationError", "invalid_api_key"),
    (EXPIRED, "demo-n1", "AuthenticationError", "expired_api_key"),
    (LIMITED, "demo-n2", "PermissionDeniedError", "model_not_allowed"),
    (LIMITED, "nothing-like-it", "PermissionDeniedError", "model_not_allowed"),
]


@pytest.mark.parametrize(("key", "model", "kind", "code"), REFUSED)
async def test_the_sdks_raise_what_is_meant(
    stage: Stage, upstream: demo.DemoUpstream, key: str, model: str, kind: str, code: str
) -> None:
    """A wrong, foreign or expired key is an AuthenticationError, a key for other models a PermissionDeniedError; and
    nothing goes up."""
    server = await keyed(stage, upstream.url, routes=ROUTES)
    with pytest.raises(getattr(openai, kind)) as caught:
        await chat(server, key, model)
    assert caught.value.code == code
    with pytest.raises(getattr(anthropic, kind)) as caught_too:
        await message(server, key, model)
    assert caught_too.value.body["error"]["type"] in ("authentication_error", "permission_error")
    assert not upstream.received
    reason = "auth" if kind == "AuthenticationError" else "forbidden"
    cells = server.observer.tally.rejected.cells
    assert cells == {("/v1/chat/completions", reason): 1, ("/v1/messages", reason): 1}


async def test_a_good_key_passes_and_stays_here(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """By either SDK's header; the upstream sees none of it, and the record names the tenant."""
    server = await keyed(stage, upstream.url, routes=ROUTES)
    with structlog.testing.capture_logs() as lines:
        await chat(server, RIGHT, "demo-n2")
        await chat(server, LIMITED, "demo-n1")
    assert [line["fields"]["tenant"] for line in lines if line["event"] == "stream_finished"] == ["acme", "limited"]
    raw = b"".join(request.raw for request in upstream.received)
    assert raw and not any(secret.encode() in raw for secret in SECRETS)


async def test_models_are_those_of_the_key(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """A key sees the models it may use; another's are not there, by name neither."""
    routes = [{"models": ["demo-n1", "demo-n2", "demo-n11"], "upstreams": ["up0"]}]
    server = await keyed(stage, upstream.url, routes=routes)
    for key, names in ((RIGHT, ["demo-n1", "demo-n2", "demo-n11"]), (LIMITED, ["demo-n1", "demo-n11"])):
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
            assert [model.id async for model in client.models.list()] == names
            if key == LIMITED:
                with pytest.raises(openai.NotFoundError):
                    await client.models.retrieve("demo-n2")


async def test_a_request_that_names_no_model_is_for_any(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """So a key for some models may not send it, unless they are all that its route has."""
    routes = [{"models": ["demo*"], "upstreams": ["up0"]}]
    server = await keyed(stage, upstream.url, routes=routes)
    async with httpx.AsyncClient(base_url=server.url) as client:
        for key, status in ((LIMITED, 403), (RIGHT, 200)):
            headers = {"authorization": f"Bearer {key}"}
            answer = await client.get("/api/tags", headers=headers)
            assert (answer.status_code == 403) is (status == 403)
            upload = await client.post("/v1/audio/transcriptions", headers=headers, files={"file": b"x"})
            assert (upload.status_code == 403) is (status == 403)
    own = [*routes, {"models": ["demo-n1x"], "upstreams": ["up0"], "paths": ["/v1/audio/transcriptions"]}]
    server = await keyed(stage, upstream.url, routes=own)
    async with httpx.AsyncClient(base_url=server.url, headers={"x-api-key": LIMITED}) as client:
        assert (await client.post("/v1/audio/transcriptions", files={"file": b"x"})).status_code != 403


async def test_bodies_have_the_size_that_all_allow(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """A key's limit is judged by the declared length, and while a body is read that declares none; a route's when its
    model is known."""
    keys = [{"name": "a", "key": "${RIGHT}"}, {"name": "b", "key": "${LIMITED}", "limits": {"max_body": 300}}]
    server = await keyed(stage, upstream.url, keys=keys, routes=ROUTES)

    def body(model: str, size: int) -> bytes:
        return json.dumps({"model": model, "messages": [], "user": "x" * size}).encode()

    async def parts(content: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(content), 50):
            yield content[at : at + 50]

    cases = [
        (RIGHT, "demo-n1", 2000, 200),
        (RIGHT, "demo-n1-t1", 500, 200),
        (RIGHT, "demo-n1-t1", 1000, 413),
        (LIMITED, "demo-n1", 100, 200),
        (LIMITED, "demo-n1", 300, 413),
    ]
    async with httpx.AsyncClient(base_url=server.url) as client:
        for key, model, size, status in cases:
            headers = {"x-api-key": key, "content-type": "application/json"}
            for content in (body(model, size), parts(body(model, size))):
                answer = await client.post("/v1/chat/completions", content=content, headers=headers)
                assert answer.status_code == status, (model, size, answer.text)
                assert status == 200 or answer.json()["error"]["code"] == "body_too_large"


# ---------------------------------------------------------------- a file of keys


async def test_a_keys_file_changes_under_traffic(stage: Stage, tmp_path: Path) -> None:
    """New keys are good within a second or so, old ones end; a broken file changes nothing; streams run on."""

    async def script(peer: Peer) -> None:
        peer.stream(delta("hello"))
        await go.wait()
        peer.chunk(FINISH, DONE)
        peer.end()

    go = asyncio.Event()
    file = tmp_path / "keys.yaml"

    def write(text: str) -> None:
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").replace(file)

    write(entry(RIGHT))
    routes = [{"models": ["m"], "upstreams": ["up0"]}]
    server = await stage.gateway(await stage.upstream(script), keys=None, keys_file=str(file), routes=routes)
    running = await stage.chat(server, "m", f"authorization: Bearer {RIGHT}")
    assert await running.head() == 200 and b"hello" in await running.piece()
    with structlog.testing.capture_logs() as lines:
        async with Asking(server) as asking:
            assert await asking.status(FILED) == 401
            write(entry(FILED))
            await asking.until(FILED, lambda status: status == 200)
            assert await asking.status(RIGHT) == 401
            write(entry(FILED) + "- {name: broken, key: " + WRONG + "}\n")
            await asking.until(FILED, lambda _: "keys_file_refused" in [line["event"] for line in lines])
            assert await asking.status(FILED) == 200 and await asking.status(RIGHT) == 401
            write("[]")
            await asking.until(FILED, lambda status: status == 401)
    assert [line["event"] for line in lines if line["event"].startswith("keys_file")] == [
        "keys_file_read",
        "keys_file_refused",
        "keys_file_read",
    ]
    assert not any(secret in repr(lines) for secret in SECRETS)
    go.set()
    assert b"[DONE]" in await running.body()


def entry(key: str) -> str:
    return f'- {{name: filed, sha256: "{sha256(key.encode()).hexdigest()}"}}\n'


class Asking(httpx.AsyncClient):
    """Asks for the list of models, which is no stream; a file tells nobody that it was read, so it asks on."""

    def __init__(self, server: Server) -> None:
        super().__init__(base_url=server.url)

    async def status(self, key: str) -> int:
        return (await self.get("/v1/models", headers={"x-api-key": key})).status_code

    async def until(self, key: str, true: Callable[[int], bool]) -> None:
        deadline = time.monotonic() + 5
        while not true(await self.status(key)):
            assert time.monotonic() < deadline, "not in time"


# ---------------------------------------------------------------- never to be seen


async def test_keys_never_show(stage: Stage, upstream: demo.DemoUpstream, tmp_path: Path) -> None:
    """After every kind of refusal and success: not in any line, metric, error, list of streams, printed configuration
    or repr."""
    file = tmp_path / "keys.yaml"
    file.write_text(f'- {{name: filed, sha256: "{sha256(FILED.encode()).hexdigest()}", models: [demo-n1]}}\n')
    more = {"routes": ROUTES, "keys_file": str(file)}
    config = Config.built({"keys": KEYS} | more, ENV)
    said: list[str] = [
        effective(config),
        repr(config),
        str(config),
        repr(config.model_dump()),
        config.model_dump_json(),
    ]
    with structlog.testing.capture_logs() as lines:
        server = await keyed(stage, upstream.url, **more)
        async with httpx.AsyncClient(base_url=server.url) as client, httpx.AsyncClient() as admin:
            for key in SECRETS:
                for headers in (
                    {"authorization": f"Bearer {key}"},
                    {"x-api-key": key},
                    {"authorization": f"Bearer {key}", "x-api-key": RIGHT},
                    {"authorization": f"Basic {key}"},
                    {"authorization": key},
                ):
                    for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
                        for model in ("demo-n1", "demo-n2", "nothing"):
                            answer = await client.post(path, json={"model": model, **ASK}, headers=headers)
                            said += [answer.text, repr(answer.headers)]
                    said.append((await client.get("/v1/models", headers=headers)).text)
            said.append((await admin.get(f"{server.admin_url}/metrics")).text)
            said.append((await admin.get(f"{server.admin_url}/streams")).text)
        keys: Any = server.gateway.relay.policy.keys
        said += [repr(vars(keys)), repr(vars(keys._static)), repr(vars(keys._file)), repr(server.gateway.relay.policy)]
    said += [repr(line) for line in lines]
    assert len(lines) > 100 and any("filed" in text for text in said)
    assert [text for text in said for secret in SECRETS if secret in text] == []


async def test_keys_never_show_in_the_process(tmp_path: Path) -> None:
    """The same of all that a real gateway writes to its standard output, from the start to the end of a drain."""
    file = tmp_path / "gate.yaml"
    file.write_text(f"keys: {json.dumps(KEYS)}\nobserve: {{log_level: debug}}\n")
    async with serving("--config", str(file), environment=ENV) as process:
        async with httpx.AsyncClient(base_url=process.url) as client:
            statuses = [
                (
                    await client.post(
                        "/v1/chat/completions", json={"model": "demo-n1", **ASK}, headers={"x-api-key": key}
                    )
                ).status_code
                for key in (RIGHT, EXPIRED, WRONG)
            ]
        assert statuses == [200, 401, 401]
        process.signal(signal.SIGTERM)
        assert await process.exit() == 0
    written = json.dumps(process.lines)
    assert "expired_api_key" in written and "acme" in written
    assert not any(secret in written for secret in SECRETS)


async def test_a_new_key_works_end_to_end(stage: Stage, upstream: demo.DemoUpstream, tmp_path: Path) -> None:
    """What `streamgate key new` prints: the lines go to the configuration as they are, the key to the client."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamgate", "key", "new", "--name", "team-a",
        stdout=asyncio.subprocess.PIPE, env=dict(os.environ),
    )  # fmt: skip
    printed, _ = await asyncio.wait_for(process.communicate(), 20)
    with contextlib.suppress(AttributeError):
        process._transport.close()  # type: ignore[attr-defined]
    assert process.returncode == 0
    key, _, lines = printed.decode().partition("\n")
    (tmp_path / "gate.yaml").write_text(lines)
    config = load(tmp_path / "gate.yaml", {}, {})
    assert key.startswith("sg-") and key not in effective(config) and key not in lines
    server = await stage.gateway(upstream.url, keys=config.keys)
    await chat(server, key, "demo-n1")
    with pytest.raises(openai.AuthenticationError):
        await chat(server, key[:-1], "demo-n1")
