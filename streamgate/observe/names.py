"""Every metric's name, labels, meaning and buckets: the promise that docs/metrics.md prints. Times are seconds.

Bounds that depend on the configuration (the thresholds of `observe.slo` are added) stand here as they are by default.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from streamgate.record import GAP_BOUNDS

Kind = Literal["counter", "gauge", "histogram"]

# The semantic conventions end at 10 s, where reasoning models only begin; engines' own buckets reach further.
FIRST_TOKEN_BOUNDS = (
    0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0,
)  # fmt: skip
DURATION_BOUNDS = (
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0,
)  # fmt: skip
# Those of the GenAI conventions for the first chunk, and one more.
FIRST_CHUNK_BOUNDS = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84,
)  # fmt: skip
PER_TOKEN_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.5)
OVERHEAD_BOUNDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
QUEUE_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONNECT_BOUNDS = (0.0005, 0.0015, 0.0043, 0.0126, 0.0368, 0.108, 0.316, 0.924, 2.71, 8.0)
# The last two a plain hook should never see: a tenth of a second is a stall of all streams, a second the usual budget.
PLUGIN_BOUNDS = (0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0)
LAG_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Named(NamedTuple):
    """One metric's promise."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    bounds: tuple[float, ...] = ()


def counter(name: str, labels: str, text: str) -> Named:
    return Named(f"streamgate_{name}", "counter", tuple(labels.split()), text)


def gauge(name: str, labels: str, text: str) -> Named:
    return Named(f"streamgate_{name}", "gauge", tuple(labels.split()), text)


def times(name: str, labels: str, text: str, bounds: tuple[float, ...]) -> Named:
    return Named(f"streamgate_{name}", "histogram", tuple(labels.split()), text, bounds)


STARTED: Final = counter("streams_started_total", "route model", "Streams that got their lease.")
STREAMS: Final = counter("streams_total", "route model upstream outcome", "Streams that ended, by outcome.")
REJECTED: Final = counter("requests_rejected_total", "route reason", "Requests that never became a stream.")
REQUESTS: Final = counter(
    "http_requests_total",
    "route method code",
    "Requests answered, by status; what the edge refused before it was a request is not among them.",
)
ACTIVE: Final = gauge(
    "streams_active", "phase", "Live streams by phase, and requests waiting for a lease (phase queued)."
)
LIMIT: Final = gauge("streams_limit", "", "Streams allowed at once; 0: no limit.")
STALLED: Final = gauge(
    "streams_stalled",
    "",
    "Live streams whose upstream has said nothing semantic for longer than `clocks.stall`, their clients reading.",
)
OLDEST_WAIT: Final = gauge(
    "oldest_wait_seconds", "", "The longest that a live request has been waiting for its first token, queue included."
)
FIRST_TOKEN: Final = times(
    "time_to_first_token_seconds",
    "model upstream",
    "From the request fully received to the first semantic event written to the client; streaming requests only.",
    FIRST_TOKEN_BOUNDS,
)
FIRST_CHUNK: Final = times(
    "upstream_first_chunk_seconds",
    "model upstream",
    "From the request written to the upstream to its first event of any kind; the try that became the stream.",
    FIRST_CHUNK_BOUNDS,
)
GAPS: Final = times(
    "inter_chunk_seconds",
    "model upstream",
    "Gaps between frames that hold a semantic event; streaming requests only.",
    GAP_BOUNDS,
)
PER_TOKEN: Final = times(
    "time_per_output_token_seconds",
    "model upstream",
    "One value per stream at its end: first to last token, divided by the output tokens after the first; "
    "only where the upstream counted them.",
    PER_TOKEN_BOUNDS,
)
DURATION: Final = times(
    "stream_duration_seconds",
    "model outcome_class",
    "From the request fully received to the end of the stream; classes: ok, client, error.",
    DURATION_BOUNDS,
)
OVERHEAD: Final = times(
    "overhead_seconds",
    "stage",
    "What the gateway itself added. request: received to written upstream, less the queue and the connect; "
    "chunk: read to written, one event in 16.",
    OVERHEAD_BOUNDS,
)
CHUNKS: Final = counter("chunks_total", "upstream", "Events with data written to clients.")
BYTES: Final = counter(
    "bytes_total", "upstream direction", "Body bytes from upstreams (in) and to clients (out), without HTTP framing."
)
TOKENS: Final = counter(
    "tokens_total",
    "model upstream type source",
    "Tokens, at a stream's end. source usage: as the upstream counted them; estimated: one per event, "
    "of streams that ended without a count.",
)
QUEUE_WAIT: Final = times(
    "queue_wait_seconds", "priority", "From asking for a lease to getting it; of those who got one.", QUEUE_BOUNDS
)
QUEUE_WAITING: Final = gauge("queue_waiting", "priority", "Requests that wait in the queue now, by class.")
QUEUE_OLDEST: Final = gauge(
    "queue_oldest_seconds", "", "How long the one has waited that has waited longest; 0: nobody waits."
)
QUEUE_LIMIT: Final = gauge("queue_limit", "", "Requests that may wait at once; 0: there is no queue.")
QUEUE_MAX_WAIT: Final = gauge("queue_max_wait_seconds", "", "How long a request may wait: `limits.max_wait`.")
SLOTS_USED: Final = gauge(
    "slots_used",
    "level name",
    "Slots of a shared limit in use. Levels: global (its name is gateway), model (a route's `models`), upstream; "
    "each from its first request on.",
)
SLOTS_LIMIT: Final = gauge("slots_limit", "level name", "Slots there are at that level; 0: no limit.")
OVERLOADED: Final = gauge(
    "overloaded",
    "cause",
    "1 while newcomers are refused for `limits.shed`: the event loop is too late (lag), or too much is in memory.",
)
STORE_UP: Final = gauge(
    "limits_store_up",
    "",
    "1 while the store that replicas share their limits by answers, as far as it was asked; absent without one.",
)
STORE_ASKED: Final = counter(
    "limits_store_asked_total", "", "Requests that were to be let in by the store, whether it was there or not."
)
STORE_RESULTS: Final = counter(
    "limits_store_results_total",
    "result",
    "What came of asking, other than a lease. denied: full, or no room in a rate; timeout: no answer in time; "
    "failed_open, failed_closed: without the store, let in by this process' own books, or refused.",
)
RENEWALS: Final = counter("lease_renewals_total", "result", "Leases renewed at the store: ok, failed.")
KEYS_REFUSED: Final = counter(
    "keys_file_refused_total", "", "Times `keys_file` had changed and could not be used; the keys stayed as they were."
)
ATTEMPTS: Final = counter(
    "upstream_requests_total", "upstream code", "Exchanges with upstreams, by status class or kind of fault."
)
RETRIES: Final = counter("upstream_retries_total", "upstream reason", "Tries repeated at the same upstream.")
FAILOVERS: Final = counter("upstream_failovers_total", "upstream reason", "Tries that moved away from an upstream.")
UP: Final = gauge("upstream_up", "upstream", "0 from five failures in a row until the next success, else 1.")
CIRCUIT: Final = gauge(
    "upstream_circuit_state",
    "upstream state",
    "1 for the state it is in: closed, open (streams go elsewhere), half_open (used, but not well again yet).",
)
UPSTREAM_CONNECTIONS: Final = gauge("upstream_connections", "upstream state", "Connections to upstreams, by state.")
CONNECT: Final = times(
    "upstream_connect_seconds", "upstream", "New connections: name, connect and TLS together.", CONNECT_BOUNDS
)
PINGS: Final = counter("keepalive_pings_total", "", "Heartbeats written to clients.")
CONNECTIONS: Final = gauge("connections", "", "Open client connections.")
BUFFERED: Final = gauge("buffered_bytes", "", "Bytes written for clients that have not left the process.")
SLOW: Final = gauge("slow_clients", "", "Live streams whose client does not take what was written for it.")
BLOCKED: Final = counter(
    "client_blocked_seconds_total", "", "Time in which streams were held up by clients that did not read."
)
LAG: Final = times(
    "event_loop_lag_seconds",
    "",
    "How late the event loop was, four times a second; below 1 ms is the timers' own grain.",
    LAG_BOUNDS,
)
PLUGIN_CALLS: Final = times(
    "plugin_seconds",
    "plugin hook",
    "One call of a plugin's hook, waits included; on_event and on_text are in streamgate_plugin_chunk_seconds_total.",
    PLUGIN_BOUNDS,
)
PLUGIN_CHUNKS: Final = counter(
    "plugin_chunk_seconds_total",
    "plugin hook",
    "Time in on_event and on_text, all calls together, waits included; of streams that have ended.",
)
PLUGIN_ERRORS: Final = counter(
    "plugin_errors_total",
    "plugin hook reason",
    "What hooks did wrong. error: raised; timeout: took longer than its budget; garbage: answered with something else; "
    "stall: kept the event loop for 0.1 s; stuck: has been keeping it for 1 s. A call may count under several.",
)
PLUGIN_BREAKER: Final = gauge(
    "plugin_breaker_state",
    "plugin state",
    "1 for the state it is in: closed, open (the plugin is not called), half_open (called once, to see).",
)
DRAINING: Final = gauge("draining", "", "1 from the moment a drain begins.")
READY: Final = gauge("ready", "", "1 while /readyz answers 200.")
BUILD: Final = gauge("build_info", "version python", "Always 1; what is running.")
CONFIG: Final = gauge("config_info", "hash", "Always 1; the configuration in force, secrets left out of the hash.")
TELEMETRY_DROPPED: Final = counter(
    "telemetry_dropped_total", "signal", "Spans lost because nobody took them fast enough."
)
LINES_DROPPED: Final = counter("log_lines_dropped_total", "", "Log lines lost because nobody read them fast enough.")
OVERFLOWS: Final = counter(
    "metric_label_overflow_total",
    "metric",
    "Times something was counted under __overflow__ because a metric had too many label sets.",
)
SCRAPE: Final = gauge("scrape_seconds", "", "How long the scrape before this one took to fold and render.")

METRICS: Final = (
    STARTED, STREAMS, REJECTED, REQUESTS, ACTIVE, LIMIT, STALLED, OLDEST_WAIT, FIRST_TOKEN, FIRST_CHUNK, GAPS,
    PER_TOKEN, DURATION, OVERHEAD, CHUNKS, BYTES, TOKENS, QUEUE_WAIT, QUEUE_WAITING, QUEUE_OLDEST, QUEUE_LIMIT,
    QUEUE_MAX_WAIT, SLOTS_USED, SLOTS_LIMIT, OVERLOADED, STORE_UP, STORE_ASKED, STORE_RESULTS, RENEWALS, KEYS_REFUSED,
    ATTEMPTS, RETRIES, FAILOVERS, UP, CIRCUIT, UPSTREAM_CONNECTIONS, CONNECT, PINGS, CONNECTIONS, BUFFERED, SLOW,
    BLOCKED, LAG, PLUGIN_CALLS, PLUGIN_CHUNKS, PLUGIN_ERRORS, PLUGIN_BREAKER, DRAINING, READY, BUILD, CONFIG,
    TELEMETRY_DROPPED, LINES_DROPPED, OVERFLOWS, SCRAPE,
)  # fmt: skip
