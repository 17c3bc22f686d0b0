"""The example testing_endpoints: its own tests, its application, and what it says of clients without a server."""

from __future__ import annotations

import queue
import re
import runpy
import subprocess
import sys
from pathlib import Path

import anyio
import httpx
import pytest
from httpx_sse import connect_sse
from starlette.testclient import TestClient

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "testing_endpoints.py"


def test_its_tests_pass():
    """`pytest examples/testing_endpoints.py`, as it says itself."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^7 passed in ", done.stdout, re.MULTILINE), done.stdout


def test_it_serves_what_it_tests(running):
    """The application by hand: numbers with ids, and on from where the client was."""
    with running("testing_endpoints", INTERVAL="0.01") as url, httpx.Client() as client:
        for headers, expected in [({}, ["1", "2", "3"]), ({"Last-Event-ID": "7"}, ["8", "9", "10"])]:
            with connect_sse(client, "GET", f"{url}/numbers", headers=headers) as source:
                events = source.iter_sse()
                assert [next(events).id for _ in range(3)] == expected


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_transport_without_a_server_gives_no_event():
    """It takes all that the application sends, and hands nothing out while the application goes on."""
    released = anyio.Event()
    application = runpy.run_path(str(EXAMPLE))["application"]
    transport = httpx.ASGITransport(application(0.01, lambda _: released.set()))
    async with httpx.AsyncClient(transport=transport, base_url="http://example") as client:
        with anyio.move_on_after(0.3) as clock:
            async with client.stream("GET", "/numbers"):
                pytest.fail("it can stream: the example is out of date")
    assert clock.cancelled_caught
    assert released.is_set()


def test_leaving_the_test_client_is_no_disconnect():
    """It streams, and cancels the application from outside when it is left: another ending than a server's."""
    told = queue.SimpleQueue()
    application = runpy.run_path(str(EXAMPLE))["application"]
    with connect_sse(TestClient(application(0.01, told.put)), "GET", "/numbers") as source:
        events = source.iter_sse()
        assert [next(events).id for _ in range(3)] == ["1", "2", "3"]
    assert [told.get(timeout=5) for _ in range(2)] == ["released", "Ending.CANCELLED"]
