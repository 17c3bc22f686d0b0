"""What the spans of one request say: facts of its record, under the names of `semconv`. Pure."""

from __future__ import annotations

from typing import assert_never
from urllib.parse import urlsplit

from opentelemetry.trace import Status, StatusCode
from opentelemetry.util.types import AttributeValue

from streamgate.errors import BadStatus, Fault, Reason
from streamgate.observe import semconv
from streamgate.observe.context import Incoming
from streamgate.observe.lines import milliseconds, span
from streamgate.record import Outcome, StreamRecord

UNSET = Status(StatusCode.UNSET)


class Try:
    """One HTTP attempt: `since` and `until` in monotonic seconds, `fault` None when the stream's ending is its own."""

    __slots__ = ("fault", "since", "span", "status", "until", "upstream", "url")

    def __init__(self, span: int, since: float, upstream: str, url: str) -> None:
        self.span = span
        self.since = since
        self.until = 0.0
        self.upstream = upstream
        self.url = url
        self.status = 0
        self.fault: Fault | None = None


class Trace:
    """What of a trace has to be known before its spans are made. `kept` says why it is to be exported, "" not (yet)."""

    __slots__ = ("incoming", "kept", "model", "server", "trace", "tries", "trusted")

    def __init__(self, trace: int, server: int, model: int, incoming: Incoming | None, *, trusted: bool) -> None:
        self.trace = trace
        self.server = server
        self.model = model
        self.incoming = incoming
        self.trusted = trusted
        self.kept = ""
        self.tries: list[Try] = []


def server_error(record: StreamRecord, outcome: Outcome | None) -> tuple[str, Status]:
    """`error.type` ("" for none) and the status of the SERVER span; a description never holds anybody's text."""
    if outcome is None:
        refusal = record.refusal
        if refusal is None:
            return "", UNSET
        if refusal.reason is Reason.CLIENT_LEFT:
            return semconv.CLIENT_DISCONNECT, UNSET
        if refusal.status < 500:
            return "", UNSET
        return refusal.code, Status(StatusCode.ERROR, refusal.reason.value)
    match outcome.klass:
        case "ok":
            return "", UNSET
        case "client":
            left = outcome is Outcome.CLIENT_CLOSED
            return semconv.CLIENT_DISCONNECT if left else outcome.value, UNSET
        case _:
            fault = record.ending.fault if record.ending is not None else None
            if fault is None:
                gone = outcome is Outcome.CLIENT_GAVE_UP
                return semconv.CLIENT_DISCONNECT if gone else outcome.value, Status(StatusCode.ERROR, outcome.value)
            return fault.code, Status(StatusCode.ERROR, outcome.value)


def upstreams_fault(record: StreamRecord) -> Fault | None:
    """What the CLIENT spans say went wrong: nothing, when it was the gateway that called the exchange off."""
    ending = record.ending
    if ending is None or ending.fault is None:
        return None
    match ending.outcome:
        case (
            Outcome.DRAINED
            | Outcome.KILLED
            | Outcome.PLUGIN_ABORT
            | Outcome.CLIENT_CLOSED
            | Outcome.CLIENT_GAVE_UP
            | Outcome.SLOW_CLIENT
        ):
            return None
        case (
            Outcome.COMPLETED  # a relayed 4xx
            | Outcome.UPSTREAM_ERROR
            | Outcome.TRUNCATED
            | Outcome.TIMEOUT_FIRST_TOKEN
            | Outcome.TIMEOUT_IDLE
            | Outcome.DEADLINE
            | Outcome.INTERNAL_ERROR
        ):
            return ending.fault
        case other:
            assert_never(other)


def fault_type(fault: Fault) -> str:
    """`error.type`: the status when that is what was wrong, else our code."""
    return str(fault.answered) if isinstance(fault, BadStatus) else fault.code


def status_of(fault: Fault | None) -> Status:
    return UNSET if fault is None else Status(StatusCode.ERROR, fault.code)


def server_attributes(trace: Trace, record: StreamRecord, outcome: Outcome | None) -> dict[str, AttributeValue]:
    """What is always there, then what happened: a thing that did not is left out."""
    refusal = record.refusal if outcome is None else None
    said = refusal is None or refusal.reason is not Reason.CLIENT_LEFT
    found: dict[str, AttributeValue | None] = {
        semconv.HTTP_METHOD: semconv.method(record.method),
        semconv.URL_SCHEME: "http",
        semconv.REQUEST_ID: record.request_id,
        semconv.KEPT_FOR: trace.kept,
        semconv.HTTP_ROUTE: record.route or None,
        semconv.URL_PATH: record.route if record.route and "{" not in record.route else None,
        semconv.HTTP_STATUS: record.status or None if said else None,
        semconv.TENANT: record.tenant or None,
        semconv.REFUSED: refusal.reason.value if refusal is not None else None,
    }
    if outcome is not None:
        overhead = record.overhead
        found |= {
            semconv.OUTCOME: outcome.value,
            semconv.UPSTREAM: record.upstream or None,
            semconv.UPSTREAM_REQUEST_ID: record.upstream_request_id or None,
            semconv.ATTEMPTS: record.attempts,
            semconv.CHUNKS: record.events,
            semconv.BYTES_IN: record.bytes_in,
            semconv.BYTES_OUT: record.bytes_out,
            semconv.PINGS: record.pings,
            semconv.QUEUE_MS: span(record.t_read or record.t_received, record.t_leased),
            semconv.TTFT_MS: span(record.t_read or record.t_received, record.t_first),
            semconv.MAX_GAP_MS: milliseconds(record.max_gap) if record.max_gap else None,
            semconv.OVERHEAD_MS: None if overhead is None else milliseconds(overhead),
        }
    return {name: value for name, value in found.items() if value is not None}


def model_attributes(
    trace: Trace, record: StreamRecord, outcome: Outcome | None, convention: semconv.Convention
) -> dict[str, AttributeValue]:
    asked = trace.tries[-1]
    operation = semconv.operation(record.route)
    usage = record.usage
    reasons = finish_reasons(record, outcome) if operation in semconv.GENERATING else []
    found: dict[str, AttributeValue | None] = {
        semconv.OPERATION: operation,
        semconv.PROVIDER: semconv.provider(record.route),
        semconv.UPSTREAM: asked.upstream,
        semconv.MODEL: record.model or None,
        semconv.STREAM: True if record.stream else None,
        **server_of(asked.url),
        semconv.FINISH_REASONS: reasons or None,
        semconv.FIRST_CHUNK: record.t_chunk - trace.tries[0].since if record.stream and record.t_chunk else None,
        semconv.INPUT_TOKENS: usage.input if usage else None,
        semconv.OUTPUT_TOKENS: usage.output if usage else None,
        semconv.CACHED_TOKENS: (usage.cached_input or None) if usage else None,
        convention.cache_write: (usage.cache_write or None) if usage else None,
        semconv.REASONING_TOKENS: (usage.reasoning or None) if usage else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def finish_reasons(record: StreamRecord, outcome: Outcome | None) -> list[str]:
    """As the upstream gave them; `error` where one was expected and never came."""
    if record.finish_reason:
        return record.finish_reason.split(",")
    return [] if outcome is Outcome.COMPLETED else [semconv.NOT_FINISHED]


def try_attributes(tried: Try, method: str, route: str, count: int) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {
        semconv.HTTP_METHOD: method,
        semconv.URL_FULL: full_url(tried.url, route),
        semconv.UPSTREAM: tried.upstream,
        **server_of(tried.url),
    }
    if tried.status:
        found[semconv.HTTP_STATUS] = tried.status
    if count:
        found[semconv.HTTP_RESEND] = count
    return found


def full_url(base: str, route: str) -> str:
    """Without the query, which may hold what a client would not want told. One `/v1` where both bring theirs."""
    return (base.removesuffix("/v1") if route.startswith("/v1/") else base) + route


def server_of(url: str) -> dict[str, AttributeValue]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {semconv.SERVER_ADDRESS: parts.hostname or "", semconv.SERVER_PORT: port}
