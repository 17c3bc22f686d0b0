"""A real Prometheus scrapes a real gateway under load with faults: every panel and every rule has something to show."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import promql
import pytest
import yaml
from stage import serving

from streamgate import demo

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

PATIENCE = 40.0  # seconds of load at most; about ten are needed

# Where nothing can come of this load, and why.
WITHOUT_ANSWER = {
    "streamgate-telemetry: Counted under __overflow__": "needs a configuration of 200 names",
    "draining": "nobody drains",
    "streamgate-saturation: Store of shared limits": "the gateway has no store",
    "streamgate-saturation: Asked of the store": "the same",
    "streamgate-saturation: Lease renewals": "the same",
    "streamgate-saturation: Plugins: one call": "the gateway has no plugins",
    "streamgate-saturation: Plugins: events and text": "the same",
    "streamgate-saturation: Plugins: failures": "the same",
    "streamgate-saturation: Plugins: breakers": "the same",
}
# The same for what an alert looks at.
NEVER_SEEN = {
    "streamgate_metric_label_overflow_total": "needs a configuration of 200 names",
    'streamgate_streams_total{outcome="drained"}': "nobody drains",
    "streamgate_limits_store_up": "the gateway has no store",
    'streamgate_plugin_breaker_state{state="closed"}': "the gateway has no plugins",
    'streamgate_plugin_errors_total{reason="stuck"}': "the same",
    'streamgate_plugin_errors_total{reason="stall"}': "the same",
    'kube_pod_container_resource_limits{container="streamgate",resource="memory"}': "kube-state-metrics'",
}
# Alerts whose fault this load has, `for` and the windows shortened.
MUST_FIRE = {
    "StreamgateStreamErrorsFast",
    "StreamgateStreamErrorsSlow",
    "StreamgateUpstreamDown",
    "StreamgateUpstreamRateLimits",
    "StreamgateRefusals",
    "StreamgateQueueSaturated",
}
# Those whose fault it has not.
MUST_NOT_FIRE = {
    "StreamgateAbsent",
    "StreamgateReplicaDown",
    "StreamgateNoReadyReplica",
    "StreamgateDrainCutStreams",
    "StreamgateFilesNearlyOut",
    "StreamgateMemoryNearLimit",
    "StreamgateVersionSkew",
    "StreamgateLabelOverflow",
    "StreamgateLogsDropped",
    "StreamgateOverloaded",
    "StreamgateLimitsStoreDown",
    "StreamgateKeysFileRefused",
    "StreamgatePluginBroken",
    "StreamgatePluginStuck",
}

# model: how many events the client reads before it leaves; None: it stays. One wave of load is one request of each.
WAVE: list[tuple[str, int | None]] = [
    *[("demo-n20-t20", None)] * 4,
    ("demo-n100-t20", 5),
    ("demo-d9000", 0),
    ("demo-n9-stall3", None),
    ("demo-silent", None),
    ("demo-n9-reset3", None),
    ("demo-n9-cleaneof3", None),
    ("demo-n5-first1:status503", None),
    ("away", None),
    ("busy", None),
    ("unknown", None),
    *[("demo-n20-t20", None)] * 6,
]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Any]:
    """`streamgate serve` with few places, short clocks, an upstream that is gone and one that is too busy."""
    async with await demo.start() as good, await demo.start(play="demo-status429") as busy, await demo.start() as gone:
        await gone.aclose()
        config = {
            "keys": "none",
            "upstreams": [
                {"name": each, "url": url.url} for each, url in (("good", good), ("busy", busy), ("gone", gone))
            ],
            "routes": [
                {"models": ["away"], "as": "demo-n5", "upstreams": ["gone", "good"], "balance": "in_order"},
                {"models": ["busy"], "as": "demo-n5", "upstreams": ["busy"]},
                {"models": ["demo-*"], "upstreams": ["good"]},
            ],
            "clocks": {"first_token": 1, "idle": 1, "stall": 0.4, "heartbeat": 0.3},
            "limits": {"concurrent": 10, "queue": 3, "max_wait": 1},
            "observe": {"tracing": {"sample": 1.0}},
        }
        path = tmp_path / "gateway.yaml"
        path.write_text(yaml.safe_dump(config))
        # Nobody collects: what becomes of the spans is counted, and exemplars do not need them.
        no_collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": gone.url}
        async with serving("--config", str(path), environment=no_collector) as running:
            yield running


async def ask(client: httpx.AsyncClient, model: str, leave_after: int | None) -> None:
    """One client, as patient as it was told to be."""
    body = {"model": model, "messages": [], "stream": True, "stream_options": {"include_usage": True}}
    with contextlib.suppress(httpx.HTTPError):
        if leave_after == 0:
            await client.post("/v1/chat/completions", json=body, timeout=0.6)
            return
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            seen = 0
            async for line in answer.aiter_lines():
                seen += line.startswith("data:")
                if seen == leave_after:
                    return


async def wave(client: httpx.AsyncClient) -> None:
    """One of each, all at once; longer than a few scrapes because of the clocks."""
    async with anyio.create_task_group() as clients:
        for model, leave_after in WAVE:
            clients.start_soon(ask, client, model, leave_after)


async def unanswered(prometheus: Any, asked: list[promql.Asked]) -> dict[str, str]:
    return {where: expr for where, expr in asked if not await prometheus.answers(expr)}


def everything() -> list[promql.Asked]:
    """Panels, annotations and recorded series as they are; of an alert, each series that it looks at."""
    looked_at = {
        selector.prettify(): promql.Asked(selector.prettify(), selector.prettify())
        for alert in promql.ruled("alert")
        for selector in promql.selectors(alert.expr)
    }
    recorded = [promql.Asked(rule.where, rule.where) for rule in promql.ruled("record")]
    left_out = WITHOUT_ANSWER | NEVER_SEEN
    asked = [*promql.panels(), *promql.annotations(), *recorded, *looked_at.values()]
    assert set(left_out) <= {each.where for each in asked}, "an entry of the lists above is about nothing"
    return [each for each in asked if each.where not in left_out]


async def test_everything_has_an_answer(gateway, prometheus):
    """Every panel, recorded series and alert finds numbers; rules evaluate; alerts fire; exemplars arrive."""
    asked = everything()
    deadline = time.monotonic() + PATIENCE
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with (
        prometheus(gateway.admin) as real,
        httpx.AsyncClient(base_url=gateway.url, timeout=10, limits=limits) as client,
    ):
        missing, quiet = {"": ""}, MUST_FIRE
        while (missing or quiet) and time.monotonic() < deadline:
            async with anyio.create_task_group() as load:
                load.start_soon(wave, client)
                missing = await unanswered(real, asked)
                quiet = MUST_FIRE - await real.firing()
        assert missing == {}
        assert quiet == set()
        assert await real.firing() & MUST_NOT_FIRE == set()
        faulty = [
            rule["name"] + rule.get("lastError", "")
            for group in (await real.get("rules"))["groups"]
            for rule in group["rules"]
            if rule["health"] != "ok"
        ]
        assert faulty == []
        await exemplars_arrived(real)


async def exemplars_arrived(real: Any) -> None:
    """A dot on the first-token graph has a trace id."""
    now = time.time()
    query = "streamgate_time_to_first_token_seconds_bucket"
    found = await real.get("query_exemplars", query=query, start=now - 60, end=now)
    traces = [each["labels"]["trace_id"] for series in found for each in series["exemplars"]]
    assert traces and all(len(trace) == 32 for trace in traces)
