"""Spans on their way out of a real process: to a real collector, and to one that is dead."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from collector import Receiver, Span, collector
from stage import DONE, FINISH, Peer, Scripted, delta, serving

from streamgate.observe.tracing import FLUSH

pytestmark = pytest.mark.anyio

ALL = {"STREAMGATE_OBSERVE__TRACING__SAMPLE": "1"}


async def by_model(peer: Peer) -> None:
    """The model's name is what becomes of it."""
    if b'"failed"' in peer.body:
        peer.answer(500, b'{"error":{"message":"CUDA out of memory"}}', b"connection: close")
    else:
        peer.stream(delta("a"))
    if b'"completed"' in peer.body:
        peer.chunk(FINISH, DONE)
        peer.end()
    elif b'"abandoned"' in peer.body:
        await peer.closed()
    await peer.close()


def answers(address: str) -> bool:
    host, port = address.removeprefix("http://").split(":")
    with socket.socket() as sock:
        return sock.connect_ex((host, int(port))) == 0


async def test_spans_arrive_at_a_real_collector(tmp_path: Path, until: Callable[..., Awaitable[None]]):
    """A completed, an abandoned, a truncated and a failed stream, each told from the others by its attributes."""
    async with Receiver() as receiver, collector(receiver, tmp_path) as endpoint, Scripted(by_model) as upstream:
        await until(lambda: answers(endpoint), 10)
        environment = ALL | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_SERVICE_NAME": "our-gateway",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            "STREAMGATE_RETRY__ATTEMPTS": "0",
        }
        async with serving("--upstream", upstream.url, environment=environment) as process:
            for model in ("completed", "abandoned", "truncated", "failed"):
                client = await process.chat(model)
                assert await client.head() == (500 if model == "failed" else 200)
                if model == "abandoned":
                    await client.piece()
                    client.reset()
                else:
                    await client.body()
                    client.close()
            process.signal(signal.SIGTERM)
            assert await process.exit() == 0
        spans = await receiver.some(12)
    traced = {line["model"]: line["trace_id"] for line in process.lines if line["event"] == "stream_finished"}
    for model, trace in traced.items():
        told(model, [span for span in spans if span.trace == trace])
    assert len(traced) == 4 and len(spans) == 12


TOLD = {  # outcome; error.type and status of the three spans; finish reasons
    "completed": ("completed", None, 0, None, 0, ["stop"]),
    "abandoned": ("client_closed", "client_disconnect", 0, None, 0, ["error"]),
    "truncated": ("truncated", "upstream_truncated", 2, "upstream_truncated", 2, ["error"]),
    "failed": ("upstream_error", "upstream_error", 2, "500", 2, ["error"]),
}


def told(model: str, spans: list[Span]) -> None:
    """What the spans of one stream say."""
    outcome, error, status, call_error, call_status, reasons = TOLD[model]
    root = next(span for span in spans if span.kind == 2)
    chat = next(span for span in spans if span.parent == root.span)
    tried = next(span for span in spans if span.parent == chat.span)
    assert (root.name, chat.name, tried.name) == ("POST /v1/chat/completions", f"chat {model}", "POST")
    assert (root.parent, chat.kind, tried.kind) == ("", 3, 3)
    assert root.attributes["streamgate.outcome"] == outcome
    assert (root.attributes.get("error.type"), root.status) == (error, status)
    for span in (chat, tried):
        assert (span.attributes.get("error.type"), span.status) == (call_error, call_status)
    assert chat.attributes["gen_ai.response.finish_reasons"] == reasons
    assert chat.attributes["gen_ai.request.model"] == model
    assert chat.attributes["gen_ai.provider.name"] == "openai"
    assert tried.attributes["http.response.status_code"] == (500 if model == "failed" else 200)
    assert root.resource["service.name"] == "our-gateway" and root.resource["deployment.environment.name"] == "test"
    assert root.schema == "https://opentelemetry.io/schemas/1.41.0"


async def test_a_dead_collector_delays_the_exit_by_at_most_three_seconds():
    """One that accepts and never answers: the worst kind. Streams go on as ever."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(16)
        endpoint = f"http://127.0.0.1:{hole.getsockname()[1]}"
        async with Scripted(by_model) as upstream:
            environment = ALL | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
            async with serving("--upstream", upstream.url, environment=environment) as process:
                client = await process.chat("completed")
                assert await client.head() == 200
                assert (await client.body()).endswith(DONE)
                client.close()
                began = time.monotonic()
                process.signal(signal.SIGTERM)
                assert await process.exit() == 0
                took = time.monotonic() - began
    assert FLUSH * 0.9 < took < 3.0


async def test_a_second_signal_does_not_wait_for_a_dead_collector(until: Callable[..., Awaitable[None]]):
    """Whoever asks twice is in a hurry."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(16)
        endpoint = f"http://127.0.0.1:{hole.getsockname()[1]}"
        async with Scripted(by_model) as upstream:
            environment = ALL | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
            async with serving("--upstream", upstream.url, environment=environment) as process:
                client = await process.chat("abandoned")
                assert await client.head() == 200
                began = time.monotonic()
                process.signal(signal.SIGTERM)
                await until(lambda: not answers(process.url))
                process.signal(signal.SIGTERM)
                assert await process.exit() == 3
                assert time.monotonic() - began < FLUSH
                client.reset()
