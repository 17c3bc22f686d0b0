"""A real process and real signals: what was promised to streams, newcomers and whoever waits for the exit."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import time
from collections.abc import AsyncIterator

import pytest
from stage import DONE, Client, Process, serving

from streamgate import demo

pytestmark = pytest.mark.anyio


@pytest.fixture
async def upstream() -> AsyncIterator[demo.DemoUpstream]:
    started = await demo.start()
    yield started
    await started.aclose()


async def all_started(clients: list[Client]) -> None:
    for client in clients:
        assert await client.head() == 200
        await client.piece()


async def test_all_arrive_whole(upstream: demo.DemoUpstream) -> None:
    """SIGTERM with 50 streams in flight: all arrive whole, exit 0; open connections get 503, new ones are refused."""
    async with serving("--upstream", upstream.url, "--drain-timeout", "20") as gateway:
        idle = await gateway.client()
        idle.post("/v1/chat/completions", {"model": "demo-n1", "messages": []})
        assert await idle.head() == 200
        await idle.body()
        clients = [await gateway.chat("demo-n40-t50") for _ in range(50)]
        await all_started(clients)
        gateway.signal(signal.SIGTERM)
        await refused(gateway)
        idle.post("/v1/chat/completions", {"model": "demo-n1", "messages": []})
        assert await idle.head() == 503
        assert idle.headers["connection"] == "close" and "retry-after" in idle.headers
        assert json.loads(await idle.body())["error"]["code"] == "gateway_draining"
        bodies = await asyncio.gather(*(client.body() for client in clients))
        assert all(body.endswith(DONE) for body in bodies)
        for client in [idle, *clients]:
            client.close()
        assert await gateway.exit() == 0
        outcomes = [line["outcome"] for line in gateway.lines if line["event"] == "stream_finished"]
        assert outcomes.count("completed") == 50 or len(outcomes) >= 50


async def refused(gateway: Process) -> None:
    """Wait until a new connection is refused."""
    deadline = time.monotonic() + 5
    while True:
        assert time.monotonic() < deadline
        try:
            client = await gateway.client()
        except (ConnectionRefusedError, ConnectionResetError):  # reset: it was still waiting to be accepted
            return
        client.close()


async def test_the_rest_is_told(upstream: demo.DemoUpstream) -> None:
    """With too little grace the streams that are left get an error event, and the exit code is 3."""
    async with serving("--upstream", upstream.url, "--drain-timeout", "0.3") as gateway:
        clients = [await gateway.chat("demo-n1000-t50") for _ in range(5)]
        await all_started(clients)
        gateway.signal(signal.SIGTERM)
        for client in clients:
            last = (await client.body()).strip().split(b"\n\n")[-1]
            assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "gateway_draining"
            client.close()
        assert await gateway.exit() == 3
        assert [line["outcome"] for line in gateway.lines if line["event"] == "stream_finished"] == ["drained"] * 5


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_second_signal(upstream: demo.DemoUpstream, second: signal.Signals) -> None:
    """A second signal ends it within 1 s, error events included."""
    async with serving("--upstream", upstream.url, "--drain-timeout", "60") as gateway:
        client = await gateway.chat("demo-n1000-t50")
        await all_started([client])
        gateway.signal(signal.SIGTERM)
        await refused(gateway)
        asked = time.monotonic()
        gateway.signal(second)
        assert b"gateway_draining" in await client.body()
        client.close()
        assert await gateway.exit() == 3
        assert time.monotonic() - asked < 1


async def test_hangup_is_survived(upstream: demo.DemoUpstream) -> None:
    """SIGHUP is logged and cuts nothing; SIGINT then drains."""
    async with serving("--upstream", upstream.url) as gateway:
        client = await gateway.chat("demo-n5-t10")
        await all_started([client])
        gateway.signal(signal.SIGHUP)
        assert (await client.body()).endswith(DONE)
        client.close()
        gateway.signal(signal.SIGINT)
        assert await gateway.exit() == 0
        assert any(line["event"] == "reload_not_available" for line in gateway.lines)


async def test_lameduck_still_serves(upstream: demo.DemoUpstream) -> None:
    """For the lame-duck time newcomers are served, told to close, while readiness is gone."""
    async with serving("--upstream", upstream.url, "--lameduck", "3") as gateway:
        gateway.signal(signal.SIGTERM)
        admin = gateway.admin.removeprefix("http://").split(":")
        deadline = time.monotonic() + 2
        while True:
            probe = Client(*await asyncio.open_connection(*admin))
            probe.send(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            status = await probe.head()
            probe.close()
            if status == 503:
                break
            assert time.monotonic() < deadline
        client = await gateway.chat("demo-n2")
        assert await client.head() == 200
        assert client.headers["connection"] == "close"
        assert (await client.body()).endswith(DONE)
        client.close()
        assert await gateway.exit() == 0


async def test_a_slow_reader_gets_the_rest(upstream: demo.DemoUpstream) -> None:
    """What was written when the signal came still arrives, also at a client that takes its time."""
    async with serving("--upstream", upstream.url, "--drain-timeout", "20") as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((host, int(port)))
        sock.setblocking(False)
        client = Client(*await asyncio.open_connection(sock=sock, limit=1024))
        client.post("/v1/chat/completions", {"model": "demo-n20-t0-p20000", "messages": [], "stream": True})
        await client.head()
        gateway.signal(signal.SIGTERM)
        await refused(gateway)
        assert (await client.body()).endswith(DONE)
        client.close()
        assert await gateway.exit() == 0


async def test_nothing_to_drain() -> None:
    """An idle gateway with a kept connection exits at once, with 0."""
    async with serving() as gateway:
        client = await gateway.client()
        client.send(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await client.head() == 200
        asked = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert await gateway.exit() == 0
        assert time.monotonic() - asked < 2
        client.close()
    assert re.fullmatch(r"http://127.0.0.1:\d+", gateway.url)
