"""Spans on their way out: a bounded queue, small batches, a thread of the SDK's, and an exit that does not wait long.

A collector that is dead costs memory for `QUEUE` spans and a thread that tries; the newest are dropped and counted.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Any

import anyio.to_thread
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from streamgate.clock import monotonic
from streamgate.observe.tracing import FLUSH

QUEUE = 8192  # spans, about 10 MB; 2700 streams
BATCH = 64  # spans: encoding 512 holds the interpreter for 25 ms, 64 for 3
DELAY = 1000.0  # ms between batches while there are few spans
SAID = 60.0  # s between two lines about the same broken collector


class Counted(SpanExporter):
    """An exporter, and what became of the spans it was given. Called by the SDK's thread, read by ours."""

    def __init__(self, exporter: SpanExporter, log: Any) -> None:
        self.taken = 0
        self.failed = 0
        self._exporter = exporter
        self._log = log
        self._said_at = 0.0
        self._unsaid = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self._lost(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def _lost(self, spans: int) -> None:
        self.failed += spans
        self._unsaid += spans
        now = monotonic()
        if not self._said_at or now - self._said_at >= SAID:
            self._log.warning("telemetry_dropped", signal="traces", spans=self._unsaid, why="the export failed")
            self._said_at, self._unsaid = now, 0


class Pipeline:
    """Takes finished spans of whole streams; `put` never waits."""

    def __init__(self, exporter: SpanExporter, *, log: Any, queue: int = QUEUE) -> None:
        self._counted = Counted(exporter, log)
        self._queue = _number("OTEL_BSP_MAX_QUEUE_SIZE", queue)
        self._put = 0
        self._refused = 0
        self._batches = BatchSpanProcessor(
            self._counted,
            max_queue_size=self._queue,
            schedule_delay_millis=_number("OTEL_BSP_SCHEDULE_DELAY", DELAY),
            max_export_batch_size=min(self._queue, _number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH)),
        )

    @property
    def dropped(self) -> int:
        """Spans that found no room, and spans that the collector did not take."""
        return self._refused + self._counted.failed

    def put(self, spans: Sequence[ReadableSpan]) -> None:
        # The SDK's own queue would drop single spans, silently: a trace is sent whole or not at all.
        if self._put - self._counted.taken + len(spans) > self._queue:
            self._refused += len(spans)
            return
        self._put += len(spans)
        for span in spans:
            self._batches.on_end(span)

    async def flush(self, within: float = FLUSH) -> None:
        await anyio.to_thread.run_sync(self.close, within)

    def close(self, within: float = FLUSH) -> None:
        """Send what is left, in so many seconds at most. The SDK would wait for 30: a daemon thread does it instead."""
        last = threading.Thread(target=self._batches.shutdown, name="streamgate-traces", daemon=True)
        last.start()
        last.join(within)
        if last.is_alive():
            self._counted.shutdown()  # so that it does not try on


def otlp() -> SpanExporter:
    """OTLP over HTTP, as the standard variables say. Raises ImportError without the extra `otlp`."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    # It warns at each of its tries; what matters is what was lost, and `Counted` says that.
    for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.exporter.otlp.common.http"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return OTLPSpanExporter()


def _number(name: str, default: float) -> int:
    """A standard variable, or our own default, which is smaller than the SDK's."""
    written = os.environ.get(name, "")
    return int(written) if written.isdigit() and int(written) else int(default)
