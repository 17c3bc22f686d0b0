"""What a request's record says to `on_end`."""

from __future__ import annotations

from streamgate.clock import monotonic, wall
from streamgate.errors import ErrorEvent
from streamgate.hooks.spec import Stream
from streamgate.hooks.values import Ended
from streamgate.record import Outcome, StreamRecord


def ended_of(record: StreamRecord, view: Stream) -> Ended:
    """The facts, as they are now."""
    now = record.t_end or monotonic()
    outcome, reason, code = _said(record)
    leased = record.t_leased or now
    return Ended(
        id=record.request_id,
        outcome=outcome,
        reason=reason,
        code=code,
        tenant=record.tenant,
        client=record.client,
        method=record.method,
        path=record.route,
        model=record.model,
        upstream=record.upstream,
        stream=view,
        status=record.status,
        attempts=record.attempts,
        finish_reason=record.finish_reason,
        usage=record.usage,
        events=record.events,
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        at=wall(),
        duration=now - record.t_received,
        queued=leased - record.t_queued if record.t_queued else 0.0,
        first_token=record.t_first - record.t_received if record.t_first else None,
        max_gap=record.max_gap,
    )


def _said(record: StreamRecord) -> tuple[str, str, str]:
    """Outcome, reason and code."""
    if record.refusal is not None:
        return "", record.refusal.reason.value, record.refusal.code
    if record.ending is None:  # nobody said how it ended: a bug, or the server took the task away
        return Outcome.INTERNAL_ERROR.value, "", Outcome.INTERNAL_ERROR.value
    fault = record.ending.fault
    code = "" if fault is None else fault.code
    if isinstance(fault, ErrorEvent) and fault.said_code:
        code = fault.said_code
    return record.ending.outcome.value, "", code
