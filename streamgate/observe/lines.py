"""The fields of the log lines that are a promise: one canonical line per stream, one per refused request.

Every line of a kind has the same keys; what did not happen is null. Never in them: prompts, completions, keys,
cookies, query strings.
"""

from __future__ import annotations

import traceback

from streamgate.errors import ErrorEvent, Fault, Refusal
from streamgate.observe.tally import began
from streamgate.record import Outcome, StreamRecord

# Frames of an escaped exception: enough to find the place, too few to tell a story.
FRAMES = 8


def finished(record: StreamRecord, outcome: Outcome, error: BaseException | None) -> dict[str, object]:
    """`stream_finished`: the whole stream in one line. Times in milliseconds."""
    start = began(record)
    usage = record.usage
    return {
        "request_id": record.request_id,
        "trace_id": record.trace_id or None,
        "span_id": record.span_id or None,
        "upstream_request_id": record.upstream_request_id or None,
        "route": record.route,
        "model": record.model,
        "upstream": record.upstream or None,
        "stream": record.stream,
        "outcome": outcome.value,
        "status": record.status or None,
        "finish_reason": record.finish_reason or None,
        "error_type": error_type(record, error),
        "error_detail": error_detail(record),
        "attempts": record.attempts,
        "queue_ms": span(start, record.t_leased),
        "ttft_ms": span(start, record.t_first),
        "duration_ms": span(start, record.t_end),
        "max_gap_ms": milliseconds(record.max_gap),
        "chunks": record.events,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "pings": record.pings,
        "input_tokens": usage.input if usage else None,
        "output_tokens": usage.output if usage else None,
        "tenant": record.tenant or None,
        "client": record.client or None,
    }


def rejected(record: StreamRecord, refusal: Refusal) -> dict[str, object]:
    """`request_rejected`: a request that never became a stream."""
    return {
        "request_id": record.request_id,
        "trace_id": record.trace_id or None,
        "span_id": record.span_id or None,
        "route": record.route,
        "model": record.model or None,
        "reason": refusal.reason.value,
        "status": refusal.status,
        "error_type": refusal.code,
        "duration_ms": span(record.t_received, record.t_end),
        "tenant": record.tenant or None,
        "client": record.client or None,
    }


def started(record: StreamRecord) -> dict[str, object]:
    """`stream_started`: what is known when the lease is granted."""
    return {
        "request_id": record.request_id,
        "trace_id": record.trace_id or None,
        "route": record.route,
        "model": record.model or None,
        "stream": record.stream,
        "queue_ms": span(record.t_queued, record.t_leased),
        "tenant": record.tenant or None,
        "client": record.client or None,
    }


def retried(record: StreamRecord, fault: Fault) -> dict[str, object]:
    """`upstream_retry`, `upstream_failover`: a try that failed, and is followed by another one."""
    return {
        "request_id": record.request_id,
        "upstream": record.upstream,
        "error_type": fault.code,
        "error_detail": fault.detail or None,
        "attempts": record.attempts,
    }


def circuit(upstream: str, state: str, fault: Fault | None) -> dict[str, object]:
    """`circuit_changed`: an upstream is left out from now on, or trusted again."""
    return {
        "upstream": upstream,
        "state": state,
        "error_type": fault.code if fault else None,
        "error_detail": (fault.detail or None) if fault else None,
    }


def escaped(record: StreamRecord, error: BaseException) -> dict[str, object]:
    """`unexpected_error`: a bug's type and place. Its message may quote the client, so it stays out."""
    return {"request_id": record.request_id, "error_type": type(error).__name__, "where": places(error)}


def places(error: BaseException) -> list[str]:
    """The innermost frames of a traceback, outermost first, as "file:line function"."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return [f"{frame.filename.rpartition('/site-packages/')[2]}:{frame.lineno} {frame.name}" for frame in frames]


def error_type(record: StreamRecord, error: BaseException | None) -> str | None:
    """The fault's code, or the type of whatever escaped."""
    if record.ending is not None and record.ending.fault is not None:
        return record.ending.fault.code
    return type(error).__name__ if error is not None else None


def error_detail(record: StreamRecord) -> str | None:
    fault: Fault | None = record.ending.fault if record.ending is not None else None
    if fault is None:
        return None
    if isinstance(fault, ErrorEvent):
        return fault.said or None
    return fault.detail or None


def span(start: float, end: float) -> float | None:
    """Milliseconds between two stamps; None while the second has not happened."""
    return milliseconds(end - start) if end else None


def milliseconds(seconds: float) -> float:
    # A suspended machine can make monotonic differences look negative across clocks; a duration never is.
    return round(max(0.0, seconds) * 1000, 1)
