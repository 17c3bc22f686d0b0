"""Traces of every request, exported for those that are kept: ids at the start, spans at the end."""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Mapping, Sequence
from typing import Protocol

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan

from streamgate import __version__
from streamgate.clock import monotonic, wall
from streamgate.errors import Fault
from streamgate.observe.context import Header, incoming, outgoing
from streamgate.observe.facts import Trace, Try
from streamgate.observe.sampling import Sampler
from streamgate.observe.semconv import convention
from streamgate.observe.spans import Maker
from streamgate.observe.tracing import FLUSH
from streamgate.record import Outcome, StreamRecord

log = logging.getLogger(__name__)


class Out(Protocol):
    """Where finished spans go; `export.Pipeline` is one."""

    @property
    def dropped(self) -> int: ...
    def put(self, spans: Sequence[ReadableSpan]) -> None: ...
    async def flush(self, within: float) -> None: ...


class Traced:
    """See `Tracing`. `environ` holds the standard variables; a request that is not kept costs ids and stamps."""

    def __init__(self, out: Out, sampler: Sampler, semconv: str = "1.41", environ: Mapping[str, str] = {}) -> None:
        self._out = out
        self._sampler = sampler
        self._traces: dict[StreamRecord, Trace] = {}
        self._lost = 0
        names = convention(semconv, environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", ""))
        self._maker = Maker(resource(), names, __version__)

    @property
    def dropped(self) -> int:
        return self._out.dropped + self._lost

    def began(self, record: StreamRecord, headers: Sequence[Header]) -> None:
        parent = incoming(headers)
        trusted = parent is not None and self._sampler.trust_incoming
        trace_id = parent.trace if parent is not None and trusted else some_id(128)
        trace = Trace(trace_id, some_id(64), some_id(64), parent, trusted=trusted)
        trace.kept = self._sampler.head(trace_id, parent)
        self._traces[record] = trace
        if trace.kept:
            name(record, trace)

    def trying(self, record: StreamRecord, upstream: str, url: str, headers: tuple[Header, ...]) -> tuple[Header, ...]:
        trace = self._traces[record]
        tried = Try(some_id(64), monotonic(), upstream, url)
        trace.tries.append(tried)
        state = trace.incoming.state if trace.incoming is not None and trace.trusted else b""
        return outgoing(headers, trace.trace, tried.span, sampled=bool(trace.kept), state=state)

    def tried(self, record: StreamRecord, status: int, fault: Fault | None) -> None:
        tried = self._traces[record].tries[-1]
        tried.until, tried.status, tried.fault = monotonic(), status, fault

    def ended(self, record: StreamRecord, outcome: Outcome | None) -> None:
        trace = self._traces.pop(record)
        trace.kept = trace.kept or self._sampler.tail(record, outcome)
        if not trace.kept:
            return
        try:
            self._out.put(self._maker.spans(trace, record, outcome, wall() - monotonic()))
            name(record, trace)
        except Exception:  # a bug here must not cost a stream its count and its line
            self._lost += 1
            log.exception("no spans could be made")

    async def flush(self, within: float = FLUSH) -> None:
        await self._out.flush(within)


def name(record: StreamRecord, trace: Trace) -> None:
    """Log lines and exemplars name a trace only when there is one to be found."""
    record.trace_id, record.span_id = f"{trace.trace:032x}", f"{trace.server:016x}"


def some_id(bits: int) -> int:
    """Any but 0, which means none. They guard nothing: the fast generator will do."""
    return random.getrandbits(bits) or 1


def resource() -> Resource:
    """Who we are; OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME win."""
    own = {"service.name": "streamgate", "service.version": __version__, "service.instance.id": socket.gethostname()}
    return Resource.create({**own, **OTELResourceDetector().detect().attributes})
