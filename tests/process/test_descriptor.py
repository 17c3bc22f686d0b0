"""`--fd`: a listening socket that was handed down."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys

import pytest
from stage import DONE, Client, serving

pytestmark = pytest.mark.anyio


async def test_serves_on_it() -> None:
    """Connections that waited on the socket before the gateway was there are served."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        client = Client(*await asyncio.open_connection(*listening.getsockname()))
        client.post("/v1/chat/completions", {"model": "demo-n2", "messages": [], "stream": True})
        async with serving("--fd", str(listening.fileno()), pass_fds=(listening.fileno(),)) as gateway:
            assert await client.head() == 200
            assert (await client.body()).endswith(DONE)
            client.close()
            gateway.process.terminate()
            assert await gateway.exit() == 0


def test_open_to_the_world_needs_a_word() -> None:
    """A socket that others can reach, while `keys` are unset: wrong use, and the line says what was expected."""
    with socket.socket() as listening:
        listening.bind(("0.0.0.0", 0))
        listening.listen()
        command = [
            sys.executable,
            "-m",
            "streamgate",
            "serve",
            "--admin",
            "127.0.0.1:0",
            "--fd",
            str(listening.fileno()),
        ]
        ended = subprocess.run(command, pass_fds=(listening.fileno(),), capture_output=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert "keys" in json.loads(ended.stdout.splitlines()[0])["error"]


def test_taken_port() -> None:
    """An address in use is a failure with one clear line, not a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "streamgate", "serve", "--admin", "127.0.0.1:0", "--listen", listen]
        ended = subprocess.run(command, capture_output=True, timeout=20, check=False)
    assert ended.returncode == 1
    last = json.loads(ended.stdout.splitlines()[-1])
    assert last["event"] == "startup_failed" and listen in last["error"]
    assert not ended.stderr
