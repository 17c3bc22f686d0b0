"""The keys under `observe`: logs, traces, and what the metrics are to be measured by."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streamgate.control.base import Settings
from streamgate.control.values import Fraction, Seconds


class Tracing(Settings):
    """Spans, sent by OTLP to where OTEL_EXPORTER_OTLP_ENDPOINT says; without it there are none."""

    sample: Fraction = Field(default=0.1, description="Share of requests that are traced, whatever becomes of them.")
    slow: Seconds = Field(
        default=10.0,
        description="A stream in which the client waited this long, for the first token or between two, is traced "
        "whatever the share; 0: none for that.",
    )
    broken: bool = Field(
        default=True,
        description="Whether every stream that did not end well is traced: all outcomes but completed and "
        "client_closed.",
    )
    trust_incoming: bool = Field(
        default=False,
        description="Whether a client's `traceparent` is joined, and its sampling followed; else it is only linked to.",
    )
    semconv: Literal["1.41", "latest"] = Field(
        default="1.41", description="Version of OpenTelemetry's GenAI conventions that names are taken from."
    )


class Slo(Settings):
    """What operators promise, in seconds. Each is made a bucket's bound, so that a rule can read the share below it."""

    time_to_first_token: Seconds = Field(default=2.0, description="From the request to the first token; 0: no promise.")
    time_per_output_token: Seconds = Field(default=0.1, description="Between tokens, on average; 0: no promise.")
    stream_duration: Seconds = Field(default=0.0, description="Of a whole stream; 0: no promise.")


class Observe(Settings):
    """Metrics, logs and traces."""

    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object a line, or lines for people."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is logged."
    )
    tracing: Tracing = Field(default=Tracing(), description="Spans.")
    slo: Slo = Field(default=Slo(), description="Thresholds that the metrics have a bucket for.")
