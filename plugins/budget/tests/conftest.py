"""What the tests of this plugin share: a gateway of plain values, requests and their ends, a real Redis."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from streamgate.hooks import Ended, Headers, Request, Stream
from tests.redis_server import RedisServer, redis_server


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every test marked `anyio` runs on asyncio's own loop and on uvloop."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


class Series:
    """One metric of any kind, or the log: what it was told last, and how often."""

    def __init__(self, values: Counter[str], name: str) -> None:
        self._values = values
        self._name = name

    def inc(self, amount: float = 1.0, /, **labels: str) -> None:
        self._values[self._name] += amount

    def set(self, value: float, /, **labels: str) -> None:
        self._values[self._name] = value


class Gateway:
    """A facade whose clock stands still until it is set."""

    name = "budget"

    def __init__(self) -> None:
        self.values: Counter[str] = Counter()  # metrics by name
        self.lines: list[tuple[str, dict[str, object]]] = []  # of the log
        self.at = 1_772_366_400.0  # 2026-03-01T12:00:00Z
        self.metrics = self.log = self

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at

    def counter(self, name: str, text: str, labels: Any = ()) -> Series:
        return Series(self.values, name)

    gauge = counter

    def warning(self, event: str, **values: object) -> None:
        self.lines.append((event, values))

    error = warning


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


class Tokens(NamedTuple):
    input: int
    output: int
    cached_input: int = 0
    cache_write: int = 0
    reasoning: int = 0


def stream_of(tenant: str) -> Stream:
    facts: Any = SimpleNamespace(tenant=tenant)
    return Stream(facts)


def request_of(
    model: str = "m", path: str = "/v1/chat/completions", method: str = "POST", body: bytes = b""
) -> Request:
    return Request(method=method, path=path, model=model, stream=True, headers=Headers(), body=body)


def ended_of(gateway: Gateway, tenant: str = "acme", usage: Any = None, **more: Any) -> Ended:
    facts: dict[str, Any] = {
        "id": "r", "outcome": "completed", "tenant": tenant, "method": "POST", "path": "/v1/chat/completions",
        "model": "m", "upstream": "u", "stream": stream_of(tenant), "status": 200, "attempts": 1, "at": gateway.at,
        "duration": 1.0,
    }  # fmt: skip
    return Ended(**(facts | {"usage": usage} | more))


class Made(NamedTuple):
    """How tests make what hooks are given."""

    stream: Callable[[str], Stream] = stream_of
    request: Callable[..., Request] = request_of
    ended: Callable[..., Ended] = ended_of
    tokens: type[Tokens] = Tokens


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    program = shutil.which("redis-server")
    if program is None:
        assert os.environ.get("CI") != "true", "redis-server is not installed, and CI must have it"
        pytest.skip("redis-server is not installed")
    with redis_server(program, tmp_path) as started:
        yield started
