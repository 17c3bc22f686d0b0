"""Two gateway processes with one Redis: one set of limits, whichever of the three dies."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.redis_server import RedisServer, redis_server
from tests.served import Served, served, wait_until

FOREVER = "demo-n100000-t50"  # the demo's script: a token every 50 ms
SHORT = "demo-n2-t0"
CONCURRENT = 4
TTL = 1.0  # s


@pytest.fixture
def server(need: Callable[[str], str], tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(need("redis-server"), tmp_path) as started:
        yield started


class Pair:
    """Two gateways that share `CONCURRENT` streams; requests are numbered, and streams stay open."""

    def __init__(self, stack: ExitStack, folder: Path, server: RedisServer, down: str) -> None:
        config = folder / "config.yaml"
        config.write_text(
            f"limits: {{concurrent: {CONCURRENT}, store: '{server.url}', lease_ttl: {TTL}, store_down: {down}}}\n"
        )
        self.gateways = [stack.enter_context(served("--config", str(config))) for _ in range(2)]
        self._number = 0

    def status(self, gateway: Served, model: str = SHORT) -> int:
        self._number += 1
        response = gateway.chat(model, f"request-{self._number}")
        if model == SHORT or response.status_code != 200:
            response.read()
        return response.status_code

    def fill(self, *counts: int) -> None:
        for gateway, count in zip(self.gateways, counts, strict=True):
            assert [self.status(gateway, FOREVER) for _ in range(count)] == [200] * count


@pytest.fixture
def pair(server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    with ExitStack() as stack:
        yield lambda down="open": Pair(stack, tmp_path, server, down)


def test_caps_hold_across_both(pair: Callable[..., Pair], server: RedisServer) -> None:
    """What one lets in the other counts; a stream that ended at one makes room at the other."""
    both = pair()
    one, other = both.gateways
    both.fill(1, 2)
    last = one.chat(FOREVER, "the-last")
    assert last.status_code == 200
    refused = other.chat(SHORT, "refused")
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    assert both.status(one) == 503
    assert server.slots("global:") == CONCURRENT
    last.close()
    wait_until(lambda: server.slots("global:") == CONCURRENT - 1)
    wait_until(lambda: both.status(other) == 200)


def test_a_killed_gateway(pair: Callable[..., Pair], server: RedisServer) -> None:
    """After `kill -9` of one, its slots are free within the lease's time to live: all of them, and no more."""
    both = pair()
    one, other = both.gateways
    both.fill(3, 1)
    assert both.status(other) == 503
    one.process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    for _ in range(3):
        wait_until(lambda: both.status(other, FOREVER) == 200)
    assert time.monotonic() - killed < TTL + 0.5
    assert both.status(other) == 503


def test_redis_dies_and_comes_back_open(pair: Callable[..., Pair], server: RedisServer) -> None:
    """Without Redis each gateway lets in what it may by itself; when Redis is back, both count what runs."""
    both = pair()
    one, _ = both.gateways
    both.fill(1, 1)
    server.kill()
    began = time.monotonic()
    both.fill(CONCURRENT - 1, 1)  # more than both together may have
    assert time.monotonic() - began < 4.0
    assert both.status(one) == 503  # its own books still hold
    server.start()
    wait_until(lambda: server.slots("global:") == CONCURRENT + 2)
    assert [both.status(gateway) for gateway in both.gateways] == [503, 503]


def test_redis_freezes_closed(pair: Callable[..., Pair], server: RedisServer) -> None:
    """Closed, newcomers are refused while Redis does not answer, streams go on, and nobody restarts anything."""
    both = pair("closed")
    one, _ = both.gateways
    both.fill(1, 1)
    server.freeze()
    try:
        for gateway in both.gateways:
            began = time.monotonic()
            refused = gateway.chat(SHORT, "frozen")
            assert time.monotonic() - began < 1.0
            assert refused.status_code == 503
            assert "limits_unavailable" in refused.read().decode()
    finally:
        server.thaw()
    wait_until(lambda: both.status(one) == 200)
    assert len(one.streams()) == 1
