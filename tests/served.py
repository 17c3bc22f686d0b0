"""`streamgate serve` before a demo upstream, both as processes, for tests that are not async themselves."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from tests.ports import free_port

PATIENCE = 20.0  # s


class Served:
    """A running gateway: the URLs of its ports, and clients that hold their streams open."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, admin: str, stack: contextlib.ExitStack) -> None:
        self.process = process
        self.url = url
        self.admin = admin
        self._stack = stack
        self.client = stack.enter_context(httpx.Client(base_url=url, timeout=PATIENCE))

    def chat(self, model: str, request_id: str) -> httpx.Response:
        """A stream whose head has come; it is read no further until somebody does."""
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "a prompt nobody may see"}]}
        headers = {"x-request-id": request_id, "authorization": "Bearer a-key-nobody-may-see"}
        stream = self.client.stream("POST", "/v1/chat/completions", json=body, headers=headers)
        return self._stack.enter_context(stream)

    def streams(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = httpx.get(f"{self.admin}/streams", timeout=PATIENCE).json()["streams"]
        return rows


@contextlib.contextmanager
def served(*arguments: str, play: str | None = None, **environment: str) -> Iterator[Served]:
    """Start both, wait until the gateway is ready, end them whatever happens. `play`: the script for every model."""
    with contextlib.ExitStack() as stack:
        upstream = f"http://127.0.0.1:{started_demo(stack, play)}"
        command = [sys.executable, "-m", "streamgate", "serve", "--listen", "127.0.0.1:0", "--upstream", upstream]
        process = stack.enter_context(
            subprocess.Popen(
                [*command, "--admin", "127.0.0.1:0", *arguments], stdout=subprocess.PIPE, env=os.environ | environment
            )
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        ready = next(line for line in map(json.loads, process.stdout) if line["event"] == "ready")
        yield Served(process, ready["url"], ready["admin"], stack)


def started_demo(stack: contextlib.ExitStack, play: str | None) -> int:
    """The demo upstream's port."""
    port = free_port()
    command = [sys.executable, "-m", "streamgate.demo", "--port", str(port), *(("--play", play) if play else ())]
    process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    stack.callback(process.kill)
    wait_until(lambda: listens(port))
    return port


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except ConnectionRefusedError:
        return False
    return True


def wait_until(true: Callable[[], object]) -> None:
    """For what other processes do, which tell nobody: each look is an exchange with them, so this does not spin."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "not in time"
