"""The dashboards: what is on them and why. `make docs` writes them as JSON beside this file.

Each panel is one line of title, one of explanation, a unit and its queries. A panel that shows a metric which is not in
docs/metrics.md, or that gets nothing from a real Prometheus, fails a test.
"""

from __future__ import annotations

import json
from pathlib import Path

from panels import Json, dashboard, graph, heatmap, number, quantiles, table

FOLDER = Path(__file__).parent

# record.Outcome.klass "client": these count neither as success nor as failure.
NOT_JUDGED = "client_closed|slow_client|killed|plugin_abort"
FAILED = f'outcome!~"completed|{NOT_JUDGED}"'
JUDGED = f'outcome!~"{NOT_JUDGED}"'
FOR_WANT_OF_ROOM = 'reason=~"queue_full|queue_timeout|overload|no_upstream"'
LEASED = 'phase!="queued"'

CHOSEN = 'HERE, model=~"$model", upstream=~"$upstream"'
UPSTREAM = 'HERE, upstream=~"$upstream"'

STREAMS = "streamgate_streams_total"
EXCHANGES = "streamgate_upstream_requests_total"
FIRST_TOKEN = "streamgate_time_to_first_token_seconds"  # noqa: S105
GAP = "streamgate_inter_chunk_seconds"
PER_TOKEN = "streamgate_time_per_output_token_seconds"  # noqa: S105
DURATION = "streamgate_stream_duration_seconds"
FIRST_CHUNK = "streamgate_upstream_first_chunk_seconds"
CONNECT = "streamgate_upstream_connect_seconds"
QUEUE = "streamgate_queue_wait_seconds"
LAG = "streamgate_event_loop_lag_seconds"
OVERHEAD = "streamgate_overhead_seconds"
PLUGIN = "streamgate_plugin_seconds"
SLOTS_USED = "sum by (level, name) (streamgate_slots_used{HERE})"
SLOTS = "sum by (level, name) (streamgate_slots_limit{HERE})"


def rate(metric: str, by: str, where: str = "HERE") -> str:
    """A counter's growth per second, by a label (or several)."""
    return f"sum by ({by}) (rate({metric}{{{where}}}[WINDOW]))"


def share(metric: str, by: str, part: str, whole: str = "HERE") -> str:
    """What part of a counter's growth, by a label."""
    return f"{rate(metric, by, part)} / {rate(metric, by, whole)}"


def burn(recorded: str, objective: str, window: str) -> tuple[str, str]:
    """How many times faster than allowed the error budget goes."""
    return f"max({recorded}:ratio_rate{window}{{JOB}}) / (1 - scalar({objective}))", f"over {window}"


def budget_left(recorded: str, objective: str) -> str:
    return f"1 - max({recorded}:ratio_rate30d{{JOB}}) / (1 - scalar({objective}))"


SUCCESS = ("streamgate:stream_errors", "streamgate:streams_objective:ratio")
IN_TIME = ("streamgate:ttft_slow", "streamgate:ttft_objective:ratio")
WINDOWS = ("5m", "1h", "6h", "3d")

OVERVIEW = dashboard(
    "streamgate-overview", "streamgate / Overview and SLO",
    "Is it well, and how much may still go wrong this month? The objectives are in deploy/prometheus/recording.yml.",
    [
        number("Streams that went well, 1 h", "Completed, of all that did not end by the client's or operator's wish.",
               "percentunit", "1 - max(streamgate:stream_errors:ratio_rate1h{JOB})", good_above=0.995),
        number("Success budget left, 30 d", "What is left of the failures the objective allows. Below 0: it is missed.",
               "percentunit", budget_left(*SUCCESS), good_above=0),
        number("First tokens in time, 1 h", "Of streams that got one or waited in vain. 2 s is in time.",
               "percentunit", "1 - max(streamgate:ttft_slow:ratio_rate1h{JOB})", good_above=0.95),
        number("First-token budget left, 30 d", "What is left of the late first tokens the objective allows.",
               "percentunit", budget_left(*IN_TIME), good_above=0),
        number("Streams now", "Live streams of all replicas chosen above.",
               "short", f"sum(streamgate_streams_active{{HERE, {LEASED}}})"),
        number("Ready replicas", "Replicas whose /readyz answers 200.",
               "short", "sum(streamgate_ready{HERE})", good_above=1),
        graph("Burn rate of the success budget", "1 uses it up in exactly 30 days. It pages at 14.4 (1 h) and 6 (6 h).",
              "short", *(burn(*SUCCESS, window) for window in WINDOWS)),
        graph("Burn rate of the first-token budget",
              "1 uses it up in exactly 30 days. It pages at 14.4 (1 h) and 6 (6 h).",
              "short", *(burn(*IN_TIME, window) for window in WINDOWS)),
        graph("Streams started", "Leases granted, by route.",
              "reqps", (rate("streamgate_streams_started_total", "route"), "{{route}}")),
        graph("Failures by model", "Of judged streams. No line: none failed.", "percentunit",
              (share(STREAMS, "model", f"HERE, {FAILED}", f"HERE, {JUDGED}"), "{{model}}")),
        graph("Time to first token", "From the request fully received to the first semantic event at the client.",
              "s", *quantiles(FIRST_TOKEN, 0.5, 0.95, 0.99)),
        graph("Tokens", "As upstreams report them; estimated where they do not.",
              "cps", (rate("streamgate_tokens_total", "type, source"), "{{type}} ({{source}})")),
        graph("Refusals", "Requests that never became a stream, by reason. docs/operations.md says what to do.",
              "reqps", (rate("streamgate_requests_rejected_total", "reason"), "{{reason}}"), stacked=True),
        graph("Streams by phase", "queued: no lease yet. waiting_first_token: at the upstream.",
              "short", ("sum by (phase) (streamgate_streams_active{HERE})", "{{phase}}"), stacked=True),
        table("Versions", "Replicas by what they run; two for long is a rollout that stuck.",
              "short", "count by (version, python) (streamgate_build_info{HERE})"),
    ],
)  # fmt: skip

QUALITY = dashboard(
    "streamgate-quality", "streamgate / Streaming quality",
    "How streams feel to who reads them: the wait for the first token, the pace, the silences.",
    [
        heatmap("Time to first token", "Two bands: two kinds of prompts or upstreams. A dot leads to its trace.",
                FIRST_TOKEN, CHOSEN),
        heatmap("Gaps between chunks", "A pale cloud far above the band is the stutter that averages hide.",
                GAP, CHOSEN),
        heatmap("Time per output token", "Of whole streams with known usage: (duration - first token) / (tokens - 1).",
                PER_TOKEN, CHOSEN),
        heatmap("Stream duration", "Of all streams of the models chosen, however they ended.",
                DURATION, 'HERE, model=~"$model"'),
        graph("Time to first token by model", "The queue here is part of it.",
              "s", *quantiles(FIRST_TOKEN, 0.5, 0.95, by="model", where=CHOSEN)),
        graph("Time to first token by upstream", "One line above the others: that upstream is slow.",
              "s", *quantiles(FIRST_TOKEN, 0.95, by="upstream", where=CHOSEN)),
        graph("Gaps by upstream", "p99 above 1 s: readers see it stop.",
              "s", *quantiles(GAP, 0.5, 0.99, by="upstream", where=CHOSEN)),
        graph("Time per output token by model", "Its inverse is tokens per second.",
              "s", *quantiles(PER_TOKEN, 0.5, 0.95, by="model", where=CHOSEN)),
        graph("Silent now", "Live streams without a chunk for clocks.stall: the first sign of a hung upstream.",
              "short", ("sum(streamgate_streams_stalled{HERE})", "stalled")),
        graph("Longest wait for a first token", "Of streams that have none yet; histograms do not see them.",
              "s", ("max by (instance) (streamgate_oldest_wait_seconds{HERE})", "{{instance}}")),
        graph("Clients that gave up", "Left before the first token, or in a silence: failures in the client's clothes.",
              "percentunit",
              (share(STREAMS, "model", f'{CHOSEN}, outcome="client_gave_up"', CHOSEN), "{{model}}")),
        graph("Heartbeats", "Written into silences of 15 s. Many: long waits.",
              "cps", ("sum(rate(streamgate_keepalive_pings_total{HERE}[WINDOW]))", "pings")),
        graph("Clients that read too slowly", "Streams that stood still for it, on average.",
              "short", ("sum(rate(streamgate_client_blocked_seconds_total{HERE}[WINDOW]))", "blocked")),
    ],
    "model", "upstream",
)  # fmt: skip

OUTCOMES = dashboard(
    "streamgate-outcomes", "streamgate / Outcomes",
    "How streams ended. A 200 was sent long before most of these were known: no HTTP code shows them.",
    [
        graph("Outcomes", "Every stream, once, when it ends.",
              "reqps", (rate(STREAMS, "outcome", CHOSEN), "{{outcome}}"), stacked=True),
        graph("Outcomes, share", "The same as parts of the whole.", "percentunit",
              (f"{rate(STREAMS, 'outcome', CHOSEN)} / scalar(sum(rate({STREAMS}{{{CHOSEN}}}[WINDOW])))", "{{outcome}}"),
              stacked=True),
        graph("Failures", "Class error only; docs/operations.md says what each word means and what to do.",
              "reqps", (rate(STREAMS, "outcome", f"{CHOSEN}, {FAILED}"), "{{outcome}}")),
        graph("Failures by upstream", "none: ended before it had one.",
              "reqps", (rate(STREAMS, "upstream", f"{CHOSEN}, {FAILED}"), "{{upstream}}")),
        graph("Failures by model", "other: models that the configuration does not name.",
              "reqps", (rate(STREAMS, "model", f"{CHOSEN}, {FAILED}"), "{{model}}")),
        graph("Ended by clients and operators", "Class client: neither success nor failure.",
              "reqps", (rate(STREAMS, "outcome", f'{CHOSEN}, outcome=~"{NOT_JUDGED}"'), "{{outcome}}")),
        graph("Refusals by reason", "Requests that never became a stream.",
              "reqps", (rate("streamgate_requests_rejected_total", "reason"), "{{reason}}"), stacked=True),
        graph("HTTP answers", "Of every route, by status code.",
              "reqps", (rate("streamgate_http_requests_total", "code"), "{{code}}"), stacked=True),
        graph("Duration by class", "Failures that take exactly as long as a clock name the clock.",
              "s", *quantiles(DURATION, 0.5, 0.95, by="outcome_class", where='HERE, model=~"$model"')),
    ],
    "model", "upstream",
)  # fmt: skip

UPSTREAMS = dashboard(
    "streamgate-upstreams", "streamgate / Upstreams",
    "Which upstream is slow, refuses, or is down.",
    [
        graph("Up", "0 from five failures in a row until the next success; the worst replica.",
              "short", (f"min by (upstream) (streamgate_upstream_up{{{UPSTREAM}}})", "{{upstream}}")),
        graph("Circuit", "Replicas by how they stand to it. open: streams go elsewhere.", "short",
              (f"sum by (upstream, state) (streamgate_upstream_circuit_state{{{UPSTREAM}}})",
               "{{upstream}} {{state}}")),
        graph("Exchanges by result", "Every attempt: status class or kind of fault.", "reqps",
              (rate(EXCHANGES, "upstream, code", UPSTREAM), "{{upstream}} {{code}}"), stacked=True),
        graph("Failed exchanges", "All that is neither 2xx nor the client's own 4xx.", "percentunit",
              (share(EXCHANGES, "upstream", f'{UPSTREAM}, code!~"2xx|4xx"', UPSTREAM), "{{upstream}}")),
        graph("Retries", "Tried again at the same upstream.",
              "reqps",
              (rate("streamgate_upstream_retries_total", "upstream, reason", UPSTREAM), "{{upstream}} {{reason}}")),
        graph("Failovers", "Moved away from an upstream.",
              "reqps",
              (rate("streamgate_upstream_failovers_total", "upstream, reason", UPSTREAM), "{{upstream}} {{reason}}")),
        graph("First chunk", "From the request issued to the first byte of the body: the upstream's own time.",
              "s", *quantiles(FIRST_CHUNK, 0.5, 0.95, by="upstream", where=CHOSEN)),
        graph("Connecting", "TCP and TLS, new connections only.",
              "s", *quantiles(CONNECT, 0.5, 0.99, by="upstream", where=UPSTREAM)),
        graph("Connections", "By state, of all replicas.", "short",
              (f"sum by (upstream, state) (streamgate_upstream_connections{{{UPSTREAM}}})", "{{upstream}} {{state}}")),
        graph("Events", "With data, written to clients.",
              "cps", (rate("streamgate_chunks_total", "upstream", UPSTREAM), "{{upstream}}")),
        graph("Bytes", "in: from the upstream. out: to clients.",
              "Bps", (rate("streamgate_bytes_total", "upstream, direction", UPSTREAM), "{{upstream}} {{direction}}")),
        graph("Tokens", "As the upstream reports them.", "cps",
              (rate("streamgate_tokens_total", "upstream, type", CHOSEN), "{{upstream}} {{type}}")),
    ],
    "model", "upstream",
)  # fmt: skip

SATURATION = dashboard(
    "streamgate-saturation", "streamgate / Saturation",
    "How full it is, and what it adds itself.",
    [
        graph("Streams and their limit", "Per replica. No limit: no second line.", "short",
              (f"sum by (instance) (streamgate_streams_active{{HERE, {LEASED}}})", "{{instance}}"),
              ("streamgate_streams_limit{HERE}", "{{instance}} limit")),
        graph("Queued", "Requests that wait for a lease.",
              "short", ('sum by (instance) (streamgate_streams_active{HERE, phase="queued"})', "{{instance}}")),
        graph("Wait for a lease", "Above a second: add upstreams or replicas; the queue only hides seconds.",
              "s", *quantiles(QUEUE, 0.5, 0.95, 0.99)),
        graph("Wait for a lease, by class", "Of those who got one; a class with a small weight waits longer by design.",
              "s", *quantiles(QUEUE, 0.5, 0.95, by="priority")),
        graph("Queue and its places", "Who waits, by class; full: newcomers push out the newest of the longest line.",
              "short", ("sum by (priority) (streamgate_queue_waiting{HERE})", "{{priority}}"),
              ("sum(streamgate_queue_limit{HERE})", "places")),
        graph("Longest wait in the queue", "At its line the one that waits is refused: queue_timeout.", "s",
              ("max by (instance) (streamgate_queue_oldest_seconds{HERE})", "{{instance}}"),
              ("max(streamgate_queue_max_wait_seconds{HERE})", "limits.max_wait")),
        graph("Slots in use, by level", "Of their limit; at 100 % it is what the queue waits for.", "percentunit",
              (f"{SLOTS_USED} / ({SLOTS} > 0)", "{{level}} {{name}}")),
        graph("Refused for want of room", "queue_full, queue_timeout, overload, no_upstream.", "reqps",
              (rate("streamgate_requests_rejected_total", "reason", f"HERE, {FOR_WANT_OF_ROOM}"), "{{reason}}")),
        graph("Refused by keys' and tenants' limits", "429, mostly; 503 where a limit is everybody's and nobody waits.",
              "reqps",
              (rate("streamgate_requests_rejected_total", "reason", 'HERE, reason=~"rate|concurrency"'), "{{reason}}")),
        graph("Overloaded", "1 while newcomers are refused for limits.shed.",
              "short", ("max by (instance, cause) (streamgate_overloaded{HERE})", "{{instance}} {{cause}}")),
        graph("Store of shared limits", "0: it does not answer; limits.store_down says what happens meanwhile.",
              "short", ("min by (instance) (streamgate_limits_store_up{HERE})", "{{instance}}")),
        graph("Asked of the store", "failed_open, failed_closed: without its answer.", "cps",
              ("sum(rate(streamgate_limits_store_asked_total{HERE}[WINDOW]))", "asked"),
              (rate("streamgate_limits_store_results_total", "result"), "{{result}}")),
        graph("Lease renewals", "failed for longer than limits.lease_ttl: other replicas take these slots, too.",
              "cps", (rate("streamgate_lease_renewals_total", "result"), "{{result}}")),
        graph("Event loop lag", "How late a timer of the loop fires. p99 above 100 ms: this replica stutters.",
              "s", *quantiles(LAG, 0.5, 0.99, by="instance")),
        graph("Added per request", "From the request received to the upstream's written, less queue and connect.",
              "s", *quantiles(OVERHEAD, 0.5, 0.99, where='HERE, stage="request"')),
        graph("Added per chunk", "From an event read to it written; one of 16 is measured.",
              "s", *quantiles(OVERHEAD, 0.5, 0.99, where='HERE, stage="chunk"')),
        graph("Plugins: one call", "All hooks but on_event and on_text.",
              "s", *quantiles(PLUGIN, 0.99, by="plugin, hook")),
        graph("Plugins: events and text", "Seconds per second. Of a plugin that does not wait: its part of the loop.",
              "short", (rate("streamgate_plugin_chunk_seconds_total", "plugin, hook"), "{{plugin}} {{hook}}")),
        graph("Plugins: failures", "stall, stuck: a hook stopped the event loop, and with it every stream.",
              "cps",
              (rate("streamgate_plugin_errors_total", "plugin, hook, reason"), "{{plugin}} {{hook}} {{reason}}")),
        graph("Plugins: breakers", "Replicas by how they stand to it. open: it is not called.", "short",
              ("sum by (plugin, state) (streamgate_plugin_breaker_state{HERE})", "{{plugin}} {{state}}")),
        graph("CPU", "Cores. One loop uses one at most.",
              "short", ("rate(process_cpu_seconds_total{HERE}[WINDOW])", "{{instance}}")),
        graph("Memory", "Resident.", "bytes", ("process_resident_memory_bytes{HERE}", "{{instance}}")),
        graph("Descriptors", "Open, of those allowed. 64 are kept in reserve.", "percentunit",
              ("process_open_fds{HERE} / process_max_fds{HERE}", "{{instance}}")),
        graph("Client connections", "Open, idle ones included.",
              "short", ("streamgate_connections{HERE}", "{{instance}}")),
        graph("Buffered", "Bytes read from upstreams that clients have not taken.",
              "bytes", ("streamgate_buffered_bytes{HERE}", "{{instance}}")),
        graph("Slow clients", "Streams that stand still because their client does not read.",
              "short", ("streamgate_slow_clients{HERE}", "{{instance}}")),
        graph("Draining", "1 from the moment a drain begins.", "short", ("streamgate_draining{HERE}", "{{instance}}")),
    ],
)  # fmt: skip

TELEMETRY = dashboard(
    "streamgate-telemetry", "streamgate / Telemetry health",
    "Can the other dashboards be believed?",
    [
        graph("Scraped", "0: Prometheus gets nothing from this replica, its graphs are old.", "short",
              ("up{HERE}", "{{instance}}")),
        graph("Scrape, as Prometheus sees it", "Network included.",
              "s", ("scrape_duration_seconds{HERE}", "{{instance}}")),
        graph("Scrape, as the gateway sees it", "Copying and rendering; off the event loop.",
              "s", ("streamgate_scrape_seconds{HERE}", "{{instance}}")),
        graph("Samples per scrape", "Grows with models x upstreams; above 7,000 look at the configuration.",
              "short", ("scrape_samples_scraped{HERE}", "{{instance}}")),
        graph("Counted under __overflow__", "A metric had more than 200 sets of names.",
              "cps", (rate("streamgate_metric_label_overflow_total", "metric"), "{{metric}}")),
        graph("Telemetry dropped", "Spans lost because the collector did not take them.",
              "cps", (rate("streamgate_telemetry_dropped_total", "signal"), "{{signal}}")),
        graph("Log lines dropped", "Lost because nobody read them fast enough.",
              "cps", ("sum by (instance) (rate(streamgate_log_lines_dropped_total{HERE}[WINDOW]))", "{{instance}}")),
        graph("Rule evaluation", "Prometheus' own: recorded series are this late.", "s",
              ('max by (rule_group) (prometheus_rule_group_last_duration_seconds{rule_group=~".*streamgate.*"})',
               "{{rule_group}}")),
        table("Configuration", "Replicas by the hash of their configuration; more than one: not all have the newest.",
              "short", "count by (hash) (streamgate_config_info{HERE})"),
        table("What is running", "One line per replica.",
              "short", "max by (instance, version, python) (streamgate_build_info{HERE})"),
    ],
)  # fmt: skip

DASHBOARDS = (OVERVIEW, QUALITY, OUTCOMES, UPSTREAMS, SATURATION, TELEMETRY)


def written(each: Json) -> str:
    """A dashboard's file."""
    return json.dumps(each, indent=1) + "\n"


def path(each: Json) -> Path:
    return FOLDER / f"{each['uid']}.json"


if __name__ == "__main__":
    for each in DASHBOARDS:
        path(each).write_text(written(each))
