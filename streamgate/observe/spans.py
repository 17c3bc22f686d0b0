"""The spans of one request, made at its end from the record's stamps. Pure, but for the wall clock it is given.

SERVER `POST /v1/chat/completions` -> CLIENT `chat llama` -> CLIENT `POST`, one per HTTP attempt.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, TraceFlags, TraceState
from opentelemetry.util.types import Attributes

from streamgate.observe import semconv
from streamgate.observe.context import Incoming
from streamgate.observe.facts import (
    Trace,
    fault_type,
    model_attributes,
    server_attributes,
    server_error,
    status_of,
    try_attributes,
    upstreams_fault,
)
from streamgate.record import Outcome, StreamRecord

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
MOST_EVENTS = 16


class Maker:
    """Makes spans. `wall_since` is what must be added to monotonic seconds to get wall seconds.

    The SDK's tracer would choose ids itself and take 17 us a span; a finished span is plain values, and costs 3.
    """

    def __init__(self, resource: Resource, convention: semconv.Convention, version: str) -> None:
        self._resource = resource
        self._convention = convention
        self._scope = InstrumentationScope("streamgate", version, convention.schema_url)

    def spans(
        self, trace: Trace, record: StreamRecord, outcome: Outcome | None, wall_since: float
    ) -> Sequence[ReadableSpan]:
        """All of a request's; a request that no upstream was asked for has one."""
        server = self._server(trace, record, outcome, wall_since)
        if not trace.tries:
            return (server,)
        return (server, self._model(trace, record, outcome, wall_since), *self._tries(trace, record, wall_since))

    def _server(self, trace: Trace, record: StreamRecord, outcome: Outcome | None, wall_since: float) -> ReadableSpan:
        method = semconv.method(record.method)
        error, status = server_error(record, outcome)
        return self._made(
            f"{method} {record.route}" if record.route else method,
            SpanKind.SERVER,
            trace,
            trace.server,
            times=(record.t_received, record.t_end, wall_since),
            attributes=server_attributes(trace, record, outcome) | ({semconv.ERROR_TYPE: error} if error else {}),
            status=status,
        )

    def _model(self, trace: Trace, record: StreamRecord, outcome: Outcome | None, wall_since: float) -> ReadableSpan:
        fault = upstreams_fault(record)
        attributes = model_attributes(trace, record, outcome, self._convention)
        if fault is not None:
            attributes[semconv.ERROR_TYPE] = fault_type(fault)
        return self._made(
            f"{semconv.operation(record.route)} {record.model}".rstrip(),
            SpanKind.CLIENT,
            trace,
            trace.model,
            parent=trace.server,
            times=(trace.tries[0].since, trace.tries[-1].until or record.t_end, wall_since),
            attributes=attributes,
            status=status_of(fault),
            events=events(trace, wall_since),
        )

    def _tries(self, trace: Trace, record: StreamRecord, wall_since: float) -> list[ReadableSpan]:
        method = semconv.method(record.method)
        made = []
        for count, tried in enumerate(trace.tries):
            last = count + 1 == len(trace.tries)
            fault = tried.fault or (upstreams_fault(record) if last else None)
            attributes = try_attributes(tried, method, record.route, count)
            if fault is not None:
                attributes[semconv.ERROR_TYPE] = fault_type(fault)
            made.append(
                self._made(
                    method,
                    SpanKind.CLIENT,
                    trace,
                    tried.span,
                    parent=trace.model,
                    times=(tried.since, tried.until or record.t_end, wall_since),
                    attributes=attributes,
                    status=status_of(fault),
                )
            )
        return made

    def _made(
        self,
        name: str,
        kind: SpanKind,
        trace: Trace,
        own: int,
        *,
        parent: int = 0,
        times: tuple[float, float, float],
        attributes: Attributes,
        status: Status,
        events: Sequence[Event] = (),
    ) -> ReadableSpan:
        start, end, wall_since = times
        return ReadableSpan(
            name=name,
            context=context_of(trace, own),
            parent=context_of(trace, parent) if parent else parent_of(trace),
            resource=self._resource,
            attributes=attributes,
            events=events,
            links=() if parent else links(trace),
            kind=kind,
            status=status,
            start_time=nanoseconds(start, wall_since),
            end_time=nanoseconds(max(start, end), wall_since),
            instrumentation_scope=self._scope,
        )


def context_of(trace: Trace, own: int) -> SpanContext:
    incoming = trace.incoming
    state = TraceState.from_header([incoming.state.decode("latin-1")]) if incoming and trace.trusted else None
    return SpanContext(trace.trace, own, is_remote=False, trace_flags=SAMPLED, trace_state=state)


def remote(incoming: Incoming) -> SpanContext:
    flags = SAMPLED if incoming.sampled else TraceFlags(TraceFlags.DEFAULT)
    return SpanContext(incoming.trace, incoming.span, is_remote=True, trace_flags=flags)


def parent_of(trace: Trace) -> SpanContext | None:
    return remote(trace.incoming) if trace.incoming is not None and trace.trusted else None


def links(trace: Trace) -> Sequence[Link]:
    """What an untrusted client says it belongs to: to be followed by people, not to join its trace."""
    return (Link(remote(trace.incoming)),) if trace.incoming is not None and not trace.trusted else ()


def nanoseconds(moment: float, wall_since: float) -> int:
    return int((moment + wall_since) * 1e9)


def events(trace: Trace, wall_since: float) -> list[Event]:
    """One for each try after the first, when the one before it was over."""
    found = []
    for before, after in zip(trace.tries, trace.tries[1:], strict=False):
        name = semconv.RETRY if before.upstream == after.upstream else semconv.FAILOVER
        reason = before.fault.kind if before.fault is not None else ""
        attributes = {semconv.REASON: reason, semconv.UPSTREAM: before.upstream}
        found.append(Event(name, attributes, timestamp=nanoseconds(before.until or after.since, wall_since)))
    return found[:MOST_EVENTS]
