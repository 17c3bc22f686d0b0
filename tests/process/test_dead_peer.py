"""A client that vanishes without FIN or RST, in a network of the test's own where packets are dropped."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from stage import serving

from streamgate import demo

pytestmark = pytest.mark.anyio

SEND = 2.0
CLONE_NEWNET = 0x40000000


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def network(need: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """A namespace joined to ours by one cable: its name, and our address on the cable."""
    ip = need("ip")
    need("iptables")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    name = f"sg{os.getpid()}"
    try:
        run(ip, "netns", "add", name)
        run(ip, "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        run(ip, "addr", "add", "10.213.77.1/30", "dev", f"{name}a")
        run(ip, "link", "set", f"{name}a", "up")
        run(ip, "netns", "exec", name, ip, "addr", "add", "10.213.77.2/30", "dev", f"{name}b")
        run(ip, "netns", "exec", name, ip, "link", "set", f"{name}b", "up")
        yield name, "10.213.77.1"
    finally:
        subprocess.run([ip, "netns", "del", name], capture_output=True, check=False)
        subprocess.run([ip, "link", "del", f"{name}a"], capture_output=True, check=False)


def socket_inside(namespace: str) -> socket.socket:
    """A TCP socket that lives in another namespace: made in a thread that has moved there."""
    made: list[socket.socket] = []

    def move() -> None:
        with open(f"/run/netns/{namespace}") as handle:  # noqa: PTH123 - a descriptor is what setns takes
            assert ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET) == 0
        made.append(socket.socket())

    thread = threading.Thread(target=move)
    thread.start()
    thread.join()
    return made[0]


async def test_vanished_during_a_slow_stream(network: tuple[str, str], need: Callable[[str], str]) -> None:
    """A token each 100 ms never fills a buffer; the kernel's patience ends the stream within the send clock + 2 s."""
    namespace, address = network
    upstream = await demo.start()
    environment = {"STREAMGATE_CLOCKS__SEND": str(SEND), "STREAMGATE_KEYS": "none"}
    try:
        async with serving("--upstream", upstream.url, host=address, environment=environment) as gateway:
            client = socket_inside(namespace)
            client.connect((address, int(gateway.url.rpartition(":")[2])))
            body = b'{"model":"demo-n1000-t100","messages":[],"stream":true}'
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            dropping = [need("ip"), "netns", "exec", namespace, need("iptables"), "-I", "INPUT", "-j", "DROP"]
            await asyncio.to_thread(run, *dropping)
            vanished = time.monotonic()
            await upstream.wait_idle(timeout=SEND + 4)
            assert time.monotonic() - vanished < SEND + 2
            gateway.process.terminate()
            assert await gateway.exit() == 0
            assert [line["outcome"] for line in gateway.lines if line["event"] == "stream_finished"] == ["slow_client"]
            client.close()
    finally:
        await upstream.aclose()
