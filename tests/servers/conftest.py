"""Servers as processes of their own, and clients that can tell a whole answer from one that was cut."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_port

HERE = Path(__file__).parent
PATIENCE = 20.0  # s until a server listens; they import much on a busy machine
ANSWER = 5.0  # s that any one answer may take

Serve = Callable[..., AbstractContextManager["Server"]]
Listen = Callable[..., AbstractContextManager["Listener"]]


class Server:
    """A server in a process group of its own, and what it and its application say on standard output."""

    def __init__(self, command: list[str], port: int, environment: dict[str, str]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        paths = [str(HERE), str(HERE.parents[1]), *environment.pop("PYTHONPATH", "").split(os.pathsep)]
        self.process = subprocess.Popen(
            command,
            env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            cwd=HERE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # its workers are ended with it
        )
        self.pid = self.process.pid
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()

    @property
    def output(self) -> str:
        with self._news:
            return "".join(self._lines)

    def said(self, text: str, within: float = ANSWER) -> str:
        """The first line with `text` in it, waited for; AssertionError with all that was said instead."""
        with self._news:
            found = self._news.wait_for(lambda: [line for line in self._lines if text in line], timeout=within)
        assert found, f"{text!r} was not said within {within} s:\n{self.output}"
        return found[0].strip()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self, within: float) -> int:
        """The exit code; AssertionError if it still runs after `within` seconds."""
        try:
            code = self.process.wait(timeout=within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {within} s:\n{self.output}") from None
        self._reader.join(timeout=2.0)
        return code

    def wait_for_port(self, port: int | None = None) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port or self.port), timeout=1.0).close()
            except ConnectionRefusedError:
                assert self.process.poll() is None, f"it ended:\n{self.output}"
                assert time.monotonic() < deadline, f"it does not listen:\n{self.output}"
                time.sleep(0.02)  # noqa: TID251 - a process that starts tells nobody when it listens
            else:
                return

    def kill(self) -> None:
        """Whatever is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(timeout=2.0)


@contextlib.contextmanager
def running_server(*command: str, wait: bool = True, **environment: str) -> Iterator[Server]:
    """Start `python -m COMMAND` with PORT replaced by a free one; give it when it listens; leave nothing of it."""
    port = free_port()
    words = [word.replace("PORT", str(port)) for word in command]
    server = Server([sys.executable, "-m", *words], port, environment)
    try:
        if wait:
            server.wait_for_port()
        yield server
    finally:
        server.kill()


class Listener:
    """The client's side of one stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.pings = 0
        self._lines = response.iter_lines()

    def event(self) -> str:
        """The data of the next event; pings are counted and passed over."""
        for line in self._lines:
            if line.startswith("data: "):
                return line.removeprefix("data: ")
            self.pings += line.startswith(": ping")
        raise AssertionError("the stream ended")

    def ping(self) -> str:
        """The next comment."""
        return next(line for line in self._lines if line.startswith(":"))

    def rest(self) -> tuple[list[str], bool]:
        """The data of all events until the end, and whether the body was whole (False: cut)."""
        events = []
        deadline = time.monotonic() + ANSWER
        try:
            for line in self._lines:
                assert time.monotonic() < deadline, f"it goes on after {ANSWER} s"
                if line.startswith("data: "):
                    events.append(line.removeprefix("data: "))
                self.pings += line.startswith(": ping")
        except (httpx.ProtocolError, httpx.ReadError):
            return events, False
        return events, True


@contextlib.contextmanager
def listening(
    url: str, *, http2: bool = False, headers: dict[str, str] | None = None, **parameters: object
) -> Iterator[Listener]:
    """One stream on a connection of its own; leaving the block closes the connection."""
    shown = {name: str(value) for name, value in parameters.items()}
    with (
        httpx.Client(http1=not http2, http2=http2, timeout=ANSWER) as client,
        client.stream("GET", url, params=shown, headers=headers) as response,
    ):
        yield Listener(response)


def wait_until(predicate: Callable[[], object], within: float) -> None:
    """For what announces itself to nobody: descriptors of another process, a server's own attribute."""
    deadline = time.monotonic() + within
    while not predicate():
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.01)  # noqa: TID251 - see above


def require_module(name: str) -> None:
    if find_spec(name) is None:
        absent = f"{name} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{absent}, and CI must have it")
        pytest.skip(absent)


@pytest.fixture(scope="session")
def serve() -> Serve:
    """`with serve("uvicorn", "streams:app", "--port", "PORT") as server:` - keywords are environment variables."""
    return running_server


@pytest.fixture(scope="session")
def listen() -> Listen:
    """`with listen(url, name="a") as stream:` - see `Listener`."""
    return listening


@pytest.fixture(scope="session")
def becomes() -> Callable[..., None]:
    """`becomes(lambda: ..., within)`: see `wait_until`."""
    return wait_until


@pytest.fixture(scope="session")
def module() -> Callable[[str], None]:
    """`module("granian")`: skips the test where it is not installed; in CI it fails."""
    return require_module


@pytest.fixture(scope="session", name="free_port")
def another_port() -> Callable[[], int]:
    """`free_port()`: for a server's second port."""
    return free_port


@pytest.fixture(scope="session")
def ended_together() -> Callable[..., dict[str, tuple[list[str], bool, float]]]:
    """`ended_together(streams, end)` calls `end`; of each: last events, whether whole, after how long."""

    def watch(streams: dict[str, Listener], end: Callable[[], object]) -> dict[str, tuple[list[str], bool, float]]:
        started = time.monotonic()
        with ThreadPoolExecutor(len(streams)) as pool:
            running = {
                name: pool.submit(lambda stream=stream: (*stream.rest(), time.monotonic() - started))
                for name, stream in streams.items()
            }
            end()
            return {name: future.result(timeout=ANSWER) for name, future in running.items()}

    return watch


@pytest.fixture
def clock() -> Callable[[], float]:
    """Seconds since this was called first."""
    started: list[float] = []

    def elapsed() -> float:
        now = time.monotonic()
        started.append(now)
        return now - started[0]

    return elapsed


def pytest_make_parametrize_id(config: pytest.Config, val: Any, argname: str) -> str | None:
    """SIGTERM and SIGINT by their names."""
    return val.name if isinstance(val, signal.Signals) else None
