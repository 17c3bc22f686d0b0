"""Every name that a span carries, and nothing else knows one. docs/tracing.md explains them and is held against this.

GenAI names are those of version 1.41 of OpenTelemetry's semantic conventions, the last that published them, or the
`latest`: of the repository they moved to, which has no release yet. HTTP names are stable and the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Convention(NamedTuple):
    """What differs between the versions."""

    version: str
    schema_url: str
    cache_write: str


V1_41 = Convention("1.41", "https://opentelemetry.io/schemas/1.41.0", "gen_ai.usage.cache_creation.input_tokens")
LATEST = Convention("latest", "", "gen_ai.usage.cache_write.input_tokens")
CONVENTIONS = {convention.version: convention for convention in (V1_41, LATEST)}

OPT_IN = "gen_ai_latest_experimental"  # in OTEL_SEMCONV_STABILITY_OPT_IN, a list with commas

HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
HTTP_RESEND = "http.request.resend_count"
URL_SCHEME = "url.scheme"
URL_PATH = "url.path"
URL_FULL = "url.full"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
MODEL = "gen_ai.request.model"
STREAM = "gen_ai.request.stream"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"

REQUEST_ID = "streamgate.request_id"
OUTCOME = "streamgate.outcome"
REFUSED = "streamgate.refused"
KEPT_FOR = "streamgate.kept_for"
TENANT = "streamgate.tenant"
UPSTREAM = "streamgate.upstream"
UPSTREAM_REQUEST_ID = "streamgate.upstream_request_id"
ATTEMPTS = "streamgate.attempts"
CHUNKS = "streamgate.chunks"
BYTES_IN = "streamgate.bytes_in"
BYTES_OUT = "streamgate.bytes_out"
PINGS = "streamgate.pings"
QUEUE_MS = "streamgate.queue_ms"
TTFT_MS = "streamgate.ttft_ms"
MAX_GAP_MS = "streamgate.max_gap_ms"
OVERHEAD_MS = "streamgate.overhead_ms"
REASON = "streamgate.reason"

# What each span may carry.
SERVER_SPAN = (
    HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS, URL_SCHEME, URL_PATH, ERROR_TYPE, REQUEST_ID, OUTCOME, REFUSED, KEPT_FOR,
    TENANT, UPSTREAM, UPSTREAM_REQUEST_ID, ATTEMPTS, CHUNKS, BYTES_IN, BYTES_OUT, PINGS, QUEUE_MS, TTFT_MS, MAX_GAP_MS,
    OVERHEAD_MS,
)  # fmt: skip
MODEL_SPAN = (
    OPERATION, PROVIDER, MODEL, STREAM, SERVER_ADDRESS, SERVER_PORT, ERROR_TYPE, FINISH_REASONS, FIRST_CHUNK,
    INPUT_TOKENS, OUTPUT_TOKENS, CACHED_TOKENS, REASONING_TOKENS, V1_41.cache_write, LATEST.cache_write, UPSTREAM,
)  # fmt: skip
TRY_SPAN = (
    HTTP_METHOD, URL_FULL, SERVER_ADDRESS, SERVER_PORT, HTTP_STATUS, HTTP_RESEND, ERROR_TYPE, UPSTREAM,
)  # fmt: skip

# Events of the model's span, with `REASON` and `UPSTREAM`: another try, at the same upstream or elsewhere.
RETRY = "retry"
FAILOVER = "failover"
EVENTS = (RETRY, FAILOVER)
EVENT_ATTRIBUTES = (REASON, UPSTREAM)

# Values.
CLIENT_DISCONNECT = "client_disconnect"  # error.type of a request whose client left
NOT_FINISHED = "error"  # in place of a finish reason that was expected and never came
RATIO, PARENT, SLOW, BROKEN = KEPT = ("ratio", "parent", "slow", "broken")  # why a trace is there

_OPERATIONS: Mapping[str, str] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/api/chat": "chat",
    "/v1/completions": "text_completion",
    "/api/generate": "text_completion",
    "/v1/embeddings": "embeddings",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
}
GENERATING = frozenset(("chat", "text_completion"))  # operations that end with a finish reason
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


def operation(route: str) -> str:
    """`gen_ai.operation.name`: a well-known one, else what the path says."""
    return _OPERATIONS.get(route) or route.removeprefix("/v1").removeprefix("/api").strip("/")


def provider(route: str) -> str:
    """`gen_ai.provider.name`: whose API it is, which is all that a gateway can see of who answers."""
    if route.startswith("/v1/messages"):
        return "anthropic"
    return "ollama" if route.startswith("/api/") else "openai"


def method(written: str) -> str:
    """`http.request.method`: never what a client made up."""
    return written if written in _METHODS else "_OTHER"


def convention(setting: str, opt_in: str = "") -> Convention:
    """The configured version, unless the variable asks for the latest."""
    asked = [each.strip() for each in opt_in.split(",")]
    return LATEST if OPT_IN in asked else CONVENTIONS[setting]
