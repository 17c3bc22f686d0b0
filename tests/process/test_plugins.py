"""Plugins in a process of their own: where one may stop everything, and where everything stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from stage import DONE, Process, serving

from streamgate import demo

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join(map(str, [ROOT, ROOT / "tests/wire", *(ROOT / "plugins").iterdir()]))
CONFIG = """
upstreams: [{{name: up0, url: "{url}"}}]
routes:
  - {{models: ["*-t*"], upstreams: [up0]}}
  - {{models: ["*"], upstreams: [up0], plugins: []}}
plugins: {plugins}
"""


@pytest.fixture
async def upstream() -> AsyncIterator[demo.DemoUpstream]:
    started = await demo.start()
    yield started
    await started.aclose()


def config(folder: Path, upstream: demo.DemoUpstream, *plugins: dict[str, Any]) -> tuple[str, str]:
    """The arguments that name a file with these plugins."""
    file = folder / "streamgate.yaml"
    file.write_text(CONFIG.format(url=upstream.url, plugins=json.dumps(plugins)))  # JSON is YAML
    return "--config", str(file)


async def line_of(gateway: Process, event: str) -> dict[str, Any]:
    """The next line of the log about that."""
    assert gateway.process.stdout is not None
    while True:
        line: dict[str, Any] = json.loads(await asyncio.wait_for(gateway.process.stdout.readline(), 10))
        if line["event"] == event:
            return line


@pytest.mark.parametrize(("kind", "hook"), [("BreaksEvent", "on_event"), ("BreaksRequest", "on_request")])
async def test_a_hook_that_never_returns_is_named(
    upstream: demo.DemoUpstream, tmp_path: Path, kind: str, hook: str
) -> None:
    """By a thread, while nothing else of the process can say anything: who reads the log knows whom to blame."""
    plugin = {"use": f"plugin_samples:{kind}", "name": "it", "settings": {"how": "forever"}}
    arguments = config(tmp_path, upstream, plugin)
    async with serving(*arguments, environment={"PYTHONPATH": PATHS}) as gateway:
        client = await gateway.chat("demo-n3-t50")
        line = await line_of(gateway, "plugin_stuck")
        assert (line["plugin"], line["hook"], line["level"]) == ("it", hook, "error")
        assert 1.0 <= line["seconds"] < 3.0
        gateway.process.kill()
        client.close()


async def test_a_hook_that_blocks_is_stopped_and_the_process_goes_on(
    upstream: demo.DemoUpstream, tmp_path: Path
) -> None:
    """Three stalls, then its breaker is open: all streams arrive whole, the drain is an ordinary one."""
    plugin = {"use": "plugin_samples:BreaksEvent", "name": "it", "settings": {"how": "block"}}
    arguments = config(tmp_path, upstream, plugin)
    async with serving(*arguments, environment={"PYTHONPATH": PATHS}) as gateway:
        clients = [await gateway.chat("demo-n20-t100") for _ in range(5)]
        for client in clients:
            assert await client.head() == 200
        bodies = await asyncio.gather(*(client.body() for client in clients))
        assert all(body.endswith(DONE) for body in bodies)
        for client in clients:
            client.close()
        gateway.signal(signal.SIGTERM)
        assert await gateway.exit() == 0
    told = [line for line in gateway.lines if line["event"] == "plugin_failed"]
    assert [(line["plugin"], line["hook"], line["reason"]) for line in told] == [("it", "on_event", "stall")] * len(
        told
    )
    assert sum(line["times"] for line in told) == 3
    assert [line["state"] for line in gateway.lines if line["event"] == "plugin_breaker"] == ["open"]


async def test_what_plugins_hold_is_written_at_the_end(upstream: demo.DemoUpstream, tmp_path: Path) -> None:
    """SIGTERM with streams in flight: they end whole, and plugins have written of them all when the process is gone."""
    trail, late = tmp_path / "audit.jsonl", tmp_path / "late"
    plugins = [
        {"use": "plugin_samples:EndsLate", "settings": {"file": str(late)}},
        {"use": "streamgate_redact:Redact", "name": "redact"},
        {"use": "streamgate_audit:Audit", "name": "audit", "settings": {"file": str(trail)}},
    ]
    arguments = config(tmp_path, upstream, *plugins)
    async with serving(*arguments, "--drain-timeout", "20", environment={"PYTHONPATH": PATHS}) as gateway:
        clients = [await gateway.chat("demo-n20-t50") for _ in range(20)]
        for client in clients:
            assert await client.head() == 200
            await client.piece()
        gateway.signal(signal.SIGTERM)
        bodies = await asyncio.gather(*(client.body() for client in clients))
        assert all(body.endswith(DONE) for body in bodies)
        for client in clients:
            client.close()
        assert await gateway.exit() == 0
    lines = [json.loads(line) for line in trail.read_bytes().splitlines()]
    assert [line["outcome"] for line in lines if line["kind"] == "request"] == ["completed"] * 20
    assert late.read_text() == "completed\n" * 20
    assert not [line for line in gateway.lines if line["event"] == "plugin_failed"]
