"""Spans on their way out: bounded, counted, and never waited for."""

from __future__ import annotations

import builtins
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags
from structlog.testing import CapturingLogger

from streamgate.observe.choice import NOT_INSTALLED, tracing_of
from streamgate.observe.export import Counted, Pipeline, otlp
from streamgate.observe.tracing import Untraced
from streamgate.record import StreamRecord

HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
SETTINGS: dict[str, Any] = {
    "sample": 1.0, "slow": 0.0, "broken": True, "trust_incoming": False, "semconv": "1.41",
}  # fmt: skip


def spans(count: int) -> list[ReadableSpan]:
    context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))
    return [ReadableSpan(name="x", context=context) for _ in range(count)]


class Collector(SpanExporter):
    """Takes spans, or is stuck until told."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS, *, stuck: bool = False) -> None:
        self.result = result
        self.got: list[int] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.closed = False
        if not stuck:
            self.go_on.set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        assert self.go_on.wait(10)
        self.got.append(len(spans))
        return self.result

    def shutdown(self) -> None:
        self.closed = True


def test_batches_are_small_and_all_arrive():
    """64 at a time; closing sends the rest."""
    collector = Collector()
    pipeline = Pipeline(collector, log=CapturingLogger())
    for _ in range(50):
        pipeline.put(spans(3))
    pipeline.close()
    assert sum(collector.got) == 150 and max(collector.got) <= 64
    assert pipeline.dropped == 0 and collector.closed


def test_what_finds_no_room_is_dropped_whole_and_counted():
    """A trace is sent or not; the streams go on."""
    collector = Collector(stuck=True)
    pipeline = Pipeline(collector, log=CapturingLogger(), queue=10)
    try:
        for _ in range(12):
            pipeline.put(spans(3))
        assert collector.entered.wait(5)  # 10 are out of the queue and stuck, so there is room for 10 more
        pipeline.put(spans(3))
        assert pipeline.dropped % 3 == 0 and pipeline.dropped >= 12 * 3 - 20
    finally:
        collector.go_on.set()
        pipeline.close()
    assert sum(collector.got) == 13 * 3 - pipeline.dropped


def test_a_collector_that_says_no_is_counted_and_said_once():
    """Once a minute, not once a batch."""
    log = CapturingLogger()
    counted = Counted(Collector(SpanExportResult.FAILURE), log)
    for _ in range(3):
        counted.export(spans(5))
    assert (counted.taken, counted.failed) == (15, 15)
    [line] = log.calls
    assert line.args == ("telemetry_dropped",) and line.kwargs["spans"] == 5


def test_an_exporter_that_raises_is_counted_too():
    """The SDK's thread goes on."""

    class Broken(Collector):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise OSError("no")

    counted = Counted(Broken(), CapturingLogger())
    with pytest.raises(OSError, match="no"):
        counted.export(spans(2))
    assert counted.failed == 2


@pytest.mark.anyio
async def test_a_stuck_collector_is_not_waited_for():
    """The flush gives up in time, and says so to the exporter."""
    collector = Collector(stuck=True)
    pipeline = Pipeline(collector, log=CapturingLogger())
    pipeline.put(spans(3))
    began = time.monotonic()
    await pipeline.flush(0.2)
    assert time.monotonic() - began < 2.0 and collector.closed
    collector.go_on.set()


@pytest.mark.parametrize(("written", "largest"), [("7", 7), ("0", 64), ("many", 64)])
def test_the_standard_variables_size_the_batches(monkeypatch: pytest.MonkeyPatch, written: str, largest: int):
    """One that is no number is as if it were not set."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", written)
    collector = Collector()
    pipeline = Pipeline(collector, log=CapturingLogger())
    pipeline.put(spans(200))
    pipeline.close()
    assert max(collector.got) == largest


def test_no_endpoint_is_no_tracing_and_no_warning():
    """The default configuration starts without a collector."""
    log = CapturingLogger()
    assert isinstance(tracing_of({}, **SETTINGS, log=log), Untraced)
    [line] = log.calls
    assert line.method_name == "info" and line.kwargs["exporting"] is False


def test_a_missing_extra_is_a_warning_and_no_failure(monkeypatch: pytest.MonkeyPatch):
    """It says what to install."""
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("opentelemetry.exporter"):
            raise ImportError(name=name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    log = CapturingLogger()
    assert isinstance(tracing_of(HERE, **SETTINGS, log=log), Untraced)
    [line] = log.calls
    assert line.method_name == "warning" and line.kwargs["why"] == NOT_INSTALLED


@pytest.mark.anyio
async def test_an_endpoint_is_all_it_takes(monkeypatch: pytest.MonkeyPatch):
    """The SDK's own exporter is made, as the variables say."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9/base")
    log = CapturingLogger()
    tracing = tracing_of(HERE, **SETTINGS, log=log)
    [line] = log.calls
    assert line.kwargs["exporting"] is True and line.kwargs["sample"] == 1.0
    record = StreamRecord(1.0)
    tracing.began(record, [])
    assert record.trace_id and tracing.dropped == 0
    await tracing.flush()
    assert otlp()._endpoint == "http://127.0.0.1:9/base/v1/traces"


@pytest.mark.anyio
async def test_untraced_does_nothing():
    """Headers pass as they came."""
    nothing, record = Untraced(), StreamRecord(1.0)
    nothing.began(record, [])
    headers = ((b"traceparent", b"x"),)
    assert nothing.trying(record, "a", "http://a", headers) is headers
    nothing.tried(record, 200, None)
    nothing.ended(record, None)
    await nothing.flush()
    assert record.trace_id == "" and nothing.dropped == 0
