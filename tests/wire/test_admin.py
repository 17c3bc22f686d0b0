"""The admin port of a real server, over real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.ports import free_port


class Served:
    """`streamgate serve` before the embedded demo upstream."""

    def __init__(self) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "streamgate", "serve"),
                *("--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin_port}"),
            ],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)
        self.admin = httpx.Client(base_url=f"http://127.0.0.1:{self.admin_port}", timeout=10)

    def wait_ready(self) -> None:
        """The line `ready` is said once both ports listen."""
        for line in self.process.stdout:
            if json.loads(line)["event"] == "ready":
                return
        raise AssertionError("it ended before it was ready")

    def stop(self) -> tuple[int, list[dict[str, object]]]:
        """SIGTERM; its exit code and the rest of its lines."""
        self.process.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in self.process.stdout]
        return self.process.wait(20), lines

    def counters(self) -> dict[str, float]:
        """Each metric's samples summed over labels."""
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(self.admin.get("/metrics").text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums


@pytest.fixture
def served() -> Iterator[Served]:
    server = Served()
    try:
        server.wait_ready()
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        server.process.stdout.close()
        server.client.close()
        server.admin.close()


def chat(model: str) -> dict[str, object]:
    return {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}


def test_a_stream_shows_in_metrics_streams_and_log(served):
    """While it runs and after it: live row, moving counters, one canonical line."""
    with served.client.stream("POST", "/v1/chat/completions", json=chat("demo")) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        next(line for line in lines if line.startswith("data:"))
        rows = served.admin.get("/streams").json()["streams"]
        during = served.counters()
        assert "[DONE]" in "".join(lines)
    after = time.monotonic() + 5
    while served.counters().get("streamgate_streams_total", 0) < 1:
        assert time.monotonic() < after
    assert [row["route"] for row in rows] in ([], ["/v1/chat/completions"])
    assert during["streamgate_streams_started_total"] == 1
    assert {"status": "ready"} == served.client.get("/readyz").json() == served.admin.get("/readyz").json()
    code, log = served.stop()
    finished = [line for line in log if line["event"] == "stream_finished"]
    assert [line["outcome"] for line in finished] == ["completed"]
    assert code == 0


def test_a_drain_asked_for_on_the_admin_port_ends_the_server(served):
    """POST /drain does what SIGTERM does."""
    assert served.admin.post("/drain").status_code == 202
    assert served.process.wait(20) == 0
