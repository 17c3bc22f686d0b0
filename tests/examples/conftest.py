"""Examples are run as their readers run them: `python examples/NAME.py PORT`, a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import pytest

from tests.ports import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 20.0  # s until it listens; the slowest imports a database driver on a busy machine

Running = Callable[..., AbstractContextManager[str]]


@contextlib.contextmanager
def running_example(name: str, **environment: str) -> Iterator[str]:
    """Start the example, give its base URL once it listens, end it with SIGTERM and expect a clean exit."""
    port = free_port()
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), str(port)]
    with tempfile.TemporaryFile("w+") as output:  # a pipe that nobody reads would fill up and stop it
        process = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_for_port(port, process, output)
            yield f"http://127.0.0.1:{port}"
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=15)
            said = all_of(output)
            assert code in {0, -signal.SIGTERM}, said  # uvicorn raises the signal again when it is done
            assert "Traceback" not in said, said
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def all_of(output: IO[str]) -> str:
    output.seek(0)
    return output.read()


def wait_for_port(port: int, process: subprocess.Popen[bytes], output: IO[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except ConnectionRefusedError:
            assert process.poll() is None, f"it ended: {all_of(output)}"
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.02)  # noqa: TID251 - a process that starts tells nobody when it listens
        else:
            return


@pytest.fixture
def running() -> Running:
    """`with running("numbers") as url:` - the example as a process; keyword arguments are environment variables."""
    return running_example
