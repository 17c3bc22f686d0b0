"""Clients that stop reading: memory stays bounded, each is ended by the send clock, and its socket is gone."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest
from stage import Process, serving

from streamgate import demo

pytestmark = pytest.mark.anyio

SEND = 2.0  # s: the send clock


def memory(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def sockets(port: int) -> int:
    """TCP sockets whose local port is this one, listening ones left out; in whatever state."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for row in rows if int(row[1].split(":")[1], 16) == port and row[3] != "0A")


def deaf_client(gateway: Process, model: str) -> socket.socket:
    """Asks for a stream and never reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = gateway.url.removeprefix("http://").split(":")
    client.connect((host, int(port)))
    body = b'{"model":"%b","messages":[],"stream":true}' % model.encode()
    client.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )
    return client


async def never_reading(clients: int) -> None:
    upstream = await demo.start()
    try:
        async with serving("--upstream", upstream.url, environment={"STREAMGATE_CLOCKS__SEND": str(SEND)}) as gateway:
            port = int(gateway.url.rpartition(":")[2])
            before = memory(gateway.process.pid)
            deaf = [deaf_client(gateway, "demo-flood50000000") for _ in range(clients)]
            ended = asyncio.get_running_loop().create_future()
            peak = before
            began = time.monotonic()
            while sockets(port):
                peak = max(peak, memory(gateway.process.pid))
                # Blocked at once; the clock; 2 s for the sockets; and what it takes to get 50 MB going for so many.
                assert time.monotonic() - began < SEND + 2 + clients / 20
                await asyncio.wait([ended], timeout=0.05)
            assert time.monotonic() - began >= SEND
            assert peak - before < 64 * 1024 * clients + 20_000_000, f"{(peak - before) / 1e6:.1f} MB"
            for each in deaf:
                each.close()
            gateway.process.terminate()
            assert await gateway.exit() == 0
            outcomes = [line["outcome"] for line in gateway.lines if line["event"] == "stream_finished"]
            assert outcomes == ["slow_client"] * clients
    finally:
        await upstream.aclose()


async def test_never_reading() -> None:
    """20 clients of 50 MB each (200 in the soak suite)."""
    await never_reading(20)


@pytest.mark.soak
async def test_200_never_reading() -> None:
    """200 clients of 50 MB each: memory grows by less than 64 KiB for each, and 20 MB."""
    await never_reading(200)
