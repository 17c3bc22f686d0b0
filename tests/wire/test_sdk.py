"""The official OpenAI SDK through the gateway: what it hears is what it would have heard without."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from stage import Stage

from streamgate import demo

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell me"}]}


@pytest.fixture
async def upstream(anyio_backend: Any) -> AsyncIterator[demo.DemoUpstream]:
    async with await demo.start() as started:
        yield started


async def text(url: str, model: str, **more: Any) -> tuple[str, Any, str | None]:
    """A streamed chat: the text, the usage, the finish reason."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-none", max_retries=0) as client:
        pieces, usage, reason = [], None, None
        stream = await client.chat.completions.create(model=model, stream=True, **ASK, **more)
        async for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                pieces.append(choice.delta.content or "")
                reason = choice.finish_reason or reason
        return "".join(pieces), usage, reason


async def test_same_text_and_usage(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """Text identical to the direct call, usage present when asked for and absent when not."""
    server = await stage.gateway(upstream.url)
    usage_too = {"stream_options": {"include_usage": True}}
    direct = await text(upstream.url, "demo-n30", **usage_too)
    through = await text(server.url, "demo-n30", **usage_too)
    assert through == direct
    assert through[1].completion_tokens == 30
    assert (await text(server.url, "demo-n30"))[1] is None


async def test_answer_without_stream(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """An answer in one piece, and the request id in both of its names."""
    server = await stage.gateway(upstream.url)
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-none", max_retries=0) as client:
        answer = await client.chat.completions.create(model="demo-n5", **ASK)
        assert answer._request_id is not None
        assert answer.usage is not None and answer.usage.completion_tokens == 5
        assert [model.id async for model in client.models.list()]
        vectors = await client.embeddings.create(model="demo", input=["a", "b"])
        assert len(vectors.data) == 2


@pytest.mark.parametrize("fault", ["errorevent3", "reset3", "eof3", "cleaneof3", "half", "donenofinish"])
async def test_fault_in_the_stream_raises(stage: Stage, upstream: demo.DemoUpstream, fault: str) -> None:
    """Whatever goes wrong after the first token, the SDK raises: it never takes a truncated answer for a whole one."""
    server = await stage.gateway(upstream.url)
    with pytest.raises(openai.APIError):
        await text(server.url, f"demo-n10-t20-{fault}")


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("demo-status401", openai.APIStatusError),
        ("demo-status400", openai.BadRequestError),
        ("demo-status422", openai.UnprocessableEntityError),
        ("demo-status500", openai.InternalServerError),
        ("demo-status429", openai.RateLimitError),
        ("nobody", openai.NotFoundError),
    ],
)
async def test_error_classes(
    stage: Stage, upstream: demo.DemoUpstream, model: str, kind: type[openai.APIStatusError]
) -> None:
    """A status before the first byte reaches the SDK as the exception of that status."""
    routes = [{"models": ["demo*"], "upstreams": ["up0"]}]
    server = await stage.gateway(upstream.url, routes=routes, retry={"attempts": 0})
    with pytest.raises(kind):
        await text(server.url, model)


async def test_keys(stage: Stage, upstream: demo.DemoUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a list of keys: the right one passes and stays here, a wrong one is an AuthenticationError."""
    from streamgate.control.config import load

    monkeypatch.setenv("CLIENT_KEY", "sk-right")
    environ = {"CLIENT_KEY": "sk-right", "STREAMGATE_KEYS": "[{name: team, key: '${CLIENT_KEY}'}]"}
    keys = load(None, environ, {"upstream": (upstream.url,)}).keys
    server = await stage.gateway(upstream.url, keys=keys)
    for key, kind in (("sk-right", None), ("sk-wrong", openai.AuthenticationError), ("sk-schl\u00fcssel", Exception)):
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
            if kind is None:
                assert (await client.chat.completions.create(model="demo-n2", **ASK)).choices
                continue
            with pytest.raises(kind):
                await client.chat.completions.create(model="demo-n2", **ASK)
    assert b"sk-right" not in b"".join(request.raw for request in upstream.received)
