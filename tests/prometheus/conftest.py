"""A real Prometheus that scrapes each half second, and knows our rules with short windows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import promql
import pytest
import yaml

from tests.ports import free_port

STEP = "500ms"
WINDOW = "4s"  # in place of minutes, hours and days


@pytest.fixture
def anyio_backend() -> str:
    """What runs here are processes: which loop the test itself has makes no difference."""
    return "asyncio"


class Prometheus:
    """One that runs, and what it is asked."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.client.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def answers(self, expr: str) -> bool:
        """Whether the expression has at least one value that is a number."""
        found = (await self.get("query", query=promql.within(expr, WINDOW)))["result"]
        values = [each["value"][1] if isinstance(each, dict) else found[1] for each in found]
        return any(value != "NaN" for value in values)

    async def firing(self) -> set[str]:
        return {
            each["labels"]["alertname"] for each in (await self.get("alerts"))["alerts"] if each["state"] == "firing"
        }


def short(rules: dict[str, Any]) -> dict[str, Any]:
    """The same rules over seconds, evaluated each half second, without waiting."""
    for group in rules["groups"]:
        group["interval"] = STEP
        for rule in group["rules"]:
            rule["expr"] = promql.within(rule["expr"], WINDOW)
            rule.pop("for", None)
    return rules


def configured(folder: Path, admin: str, own: str) -> Path:
    """Its configuration, in `folder`."""
    for name in ("recording.yml", "alerts.yml"):
        rules = yaml.safe_load((promql.DEPLOY / name).read_text())
        (folder / f"streamgate-{name}").write_text(yaml.safe_dump(short(rules), sort_keys=False))
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [address]}]}
        for name, address in (("streamgate", admin), ("prometheus", own))
    ]
    path = folder / "prometheus.yml"
    timing = {"scrape_interval": STEP, "scrape_timeout": STEP, "evaluation_interval": STEP}
    path.write_text(yaml.safe_dump({"global": timing, "rule_files": ["streamgate-*.yml"], "scrape_configs": jobs}))
    return path


@pytest.fixture
def prometheus(tmp_path: Path, need: Callable[[str], str]) -> Callable[[str], Any]:
    """`async with prometheus(admin_url) as it:` starts one that scrapes there, and ends it."""
    program = need("prometheus")

    @contextlib.asynccontextmanager
    async def running(admin: str) -> AsyncIterator[Prometheus]:
        own = f"127.0.0.1:{free_port()}"
        process = await asyncio.create_subprocess_exec(
            program, f"--config.file={configured(tmp_path, admin.removeprefix('http://'), own)}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address={own}",
            "--enable-feature=exemplar-storage", stderr=asyncio.subprocess.PIPE, limit=1 << 20,
        )  # fmt: skip
        assert process.stderr is not None
        try:
            async with asyncio.timeout(20):
                while b"Server is ready" not in (line := await process.stderr.readline()):
                    assert line, "prometheus ended"
            async with httpx.AsyncClient(base_url=f"http://{own}", timeout=10) as client:
                yield Prometheus(client)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.communicate()

    return running
