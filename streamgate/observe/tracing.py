"""The seam that the path calls, the one that makes no spans, and which of them a gateway gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from streamgate.errors import Fault
from streamgate.observe.context import Header
from streamgate.record import Outcome, StreamRecord

FLUSH = 2.0  # s at exit; the drain's contract


class Tracing(Protocol):
    """Told of what a trace is made of. All but `flush` are plain calls, take microseconds, and must not raise."""

    @property
    def dropped(self) -> int:
        """Spans that were made and never arrived."""
        ...

    def began(self, record: StreamRecord, headers: Sequence[Header]) -> None:
        """A request arrived, with these headers; nothing else of it is known yet."""
        ...

    def trying(self, record: StreamRecord, upstream: str, url: str, headers: tuple[Header, ...]) -> tuple[Header, ...]:
        """An exchange begins with `upstream` at `url`: the headers it is to send, given those without its context."""
        ...

    def tried(self, record: StreamRecord, status: int, fault: Fault | None) -> None:
        """It is over. `status` 0: no head came; `fault` None: it was the stream's last, and shares its ending."""
        ...

    def ended(self, record: StreamRecord, outcome: Outcome | None) -> None:
        """The request is over; `outcome` is None when it never became a stream. Settles `record.trace_id`."""
        ...

    async def flush(self, within: float = FLUSH) -> None:
        """Send what is waiting; it takes so many seconds at most. Nothing is sent after it."""
        ...


class Untraced:
    """No spans; a client's trace context passes as it came."""

    dropped = 0

    def began(self, record: StreamRecord, headers: Sequence[Header]) -> None:
        pass

    def trying(self, record: StreamRecord, upstream: str, url: str, headers: tuple[Header, ...]) -> tuple[Header, ...]:
        return headers

    def tried(self, record: StreamRecord, status: int, fault: Fault | None) -> None:
        pass

    def ended(self, record: StreamRecord, outcome: Outcome | None) -> None:
        pass

    async def flush(self, within: float = FLUSH) -> None:
        pass


def tracing_of(
    environ: Mapping[str, str],
    *,
    sample: float,
    slow: float,
    broken: bool,
    trust_incoming: bool,
    semconv: str,
    log: Any,
) -> Tracing:
    """By the settings and the standard variables. Whatever is missing for it is said once, and nothing is traced."""
    from streamgate.observe.sampling import sampler_of, unwanted  # noqa: PLC0415 - see below

    sampler = sampler_of(environ, sample=sample, slow=slow, broken=broken, trust_incoming=trust_incoming, log=log)
    why = unwanted(environ, sampler)
    if why:
        log.info("tracing", exporting=False, why=why)
        return Untraced()
    # OpenTelemetry's SDK takes 0.1 s and 10 MB to import: only whoever exports spans pays for it.
    try:
        from streamgate.observe.export import Pipeline, otlp  # noqa: PLC0415
        from streamgate.observe.traced import Traced  # noqa: PLC0415

        exporter = otlp()
    except ImportError as missing:
        log.warning("tracing", exporting=False, why=NOT_INSTALLED, missing=missing.name)
        return Untraced()
    log.info("tracing", exporting=True, sample=sampler.share, slow=sampler.slow, broken=sampler.broken)
    return Traced(Pipeline(exporter, log=log), sampler, semconv, environ)


NOT_INSTALLED = "an endpoint is set, but the exporter is not installed: pip install 'streamgate[otlp]'"
