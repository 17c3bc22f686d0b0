"""Which requests are traced: a share of all, by the trace id, when they arrive; the slow and the broken, at their end.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamgate.observe.context import Incoming
from streamgate.observe.semconv import BROKEN, PARENT, RATIO, SLOW
from streamgate.record import Outcome, StreamRecord

HEALTHY = frozenset((Outcome.COMPLETED, Outcome.CLIENT_CLOSED))
LOW = (1 << 64) - 1  # as OpenTelemetry's own ratio sampler has it: services with the same share keep the same traces


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """`share` of all from 0 to 1; `slow` in seconds, 0: off."""

    share: float = 0.1
    slow: float = 10.0
    broken: bool = True
    trust_incoming: bool = False

    def head(self, trace: int, parent: Incoming | None) -> str:
        """At the beginning: why to keep this trace, "" for not yet. A trusted parent decides for its children."""
        if parent is not None and self.trust_incoming:
            return PARENT if parent.sampled else ""
        return RATIO if (trace & LOW) < self.share * (LOW + 1) else ""

    def tail(self, record: StreamRecord, outcome: Outcome | None) -> str:
        """At the end of one that was not kept yet. Refused requests are not broken: anybody can send a thousand."""
        if self.broken and outcome is not None and outcome not in HEALTHY:
            return BROKEN
        return SLOW if self.slow and outcome is not None and longest_wait(record) >= self.slow else ""


def longest_wait(record: StreamRecord) -> float:
    """Seconds the client waited for something to read: for the first token, or between two."""
    start = record.t_read or record.t_received
    return max((record.t_first or record.t_end) - start, record.max_gap)


def sampler_of(
    environ: Mapping[str, str], *, sample: float, slow: float, broken: bool, trust_incoming: bool, log: Any
) -> Sampler:
    """The settings, but for the share where OTEL_TRACES_SAMPLER is set. `parentbased_` is `trust_incoming`'s to say."""
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    shares = {"": sample, "always_on": 1.0, "always_off": 0.0, "traceidratio": _ratio(environ)}
    share = shares.get(name.removeprefix("parentbased_"))
    if share is None or not 0.0 <= share <= 1.0:
        log.warning("tracing", why="OTEL_TRACES_SAMPLER or its argument is not understood", sample=sample)
        share = sample
    return Sampler(share=share, slow=slow, broken=broken, trust_incoming=trust_incoming)


def _ratio(environ: Mapping[str, str]) -> float | None:
    try:
        return float(environ.get("OTEL_TRACES_SAMPLER_ARG", "") or 1.0)
    except ValueError:
        return None


ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def unwanted(environ: Mapping[str, str], sampler: Sampler) -> str:
    """Why there is nothing to export, or nowhere to; "" when there is."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "OTEL_SDK_DISABLED is true"
    if environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() not in ("", "otlp"):
        return "OTEL_TRACES_EXPORTER is not otlp"
    if not any(environ.get(name) for name in ENDPOINTS):
        return "OTEL_EXPORTER_OTLP_ENDPOINT is not set"
    if not (sampler.share or sampler.slow or sampler.broken or sampler.trust_incoming):
        return "the settings ask for no traces"
    return ""
