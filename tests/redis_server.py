"""A real redis-server of a test's own: started, stopped, frozen, killed and started again on the same port."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.ports import free_port

PATIENCE = 10.0  # s


class RedisServer:
    """Nothing is kept on disk: when it is started again it has forgotten everything."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [
            program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(folder), *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(port=self.port, decode_responses=True, retry=Retry(NoBackoff(), 0))

    def start(self) -> None:
        process = self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        # Its own word: whoever answers at the port might be another.
        assert any(b"Ready to accept connections" in line for line in process.stdout), "redis-server did not start"

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def freeze(self) -> None:
        """It still accepts connections, and answers nothing."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Gone, with all that it knew."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=PATIENCE)
            self._process = None

    def slots(self, where: str, namespace: str = "default") -> int:
        """How many leases Redis counts under LEVEL:NAME."""
        count: int = self.client.zcard(f"{{streamgate:{namespace}}}:slots:{where}")  # type: ignore[assignment]
        return count

    def all_slots(self) -> int:
        return sum(int(self.client.zcard(key)) for key in self.client.scan_iter("*:slots:*", count=1000))


@contextmanager
def redis_server(program: str, folder: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(program, folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        server.client.close()
