"""What has been counted so far, folded from records into families.

A live stream is folded too, whenever somebody scrapes: a `Mark` remembers how much of it was folded already, so that
only the difference is added. Counters therefore move while a ten-minute stream runs, and never go back when it ends.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streamgate.observe import names
from streamgate.observe.families import LABEL_SETS, Counts, Distributions, Key, Sums
from streamgate.observe.figures import PluginReadings
from streamgate.record import GAP_BOUNDS, Outcome, StreamRecord, Usage

NOBODY = "none"  # the upstream of a stream that ended before it was given one; the class of one that has none
OTHER = "other"  # what a client made up: a path, a method

# Samples of single events that wait to be folded, usually for a quarter of a second.
COSTS = 4096
METHODS = frozenset(("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"))


class Slots(NamedTuple):
    """Slots of one shared limit; `limit` 0: none."""

    level: str
    name: str
    used: int
    limit: int


class StoreReadings(NamedTuple):
    """What replicas share their limits by: whether it answers, and what came of asking it since the start."""

    up: bool
    asked: int = 0
    results: Mapping[str, int] = {}  # denied, timeout, failed_open, failed_closed
    renewals: Mapping[str, int] = {}  # of leases; ok, failed


class Readings(NamedTuple):
    """What is not a stream's: read from its owners at each scrape."""

    draining: bool = False
    ready: bool = True
    connections: int = 0  # of clients
    upstream_connections: Mapping[tuple[str, str], int] = {}  # (upstream, state)
    log_lines_dropped: int = 0
    circuits: Mapping[str, str] = {}  # upstream -> closed, open or half_open
    streams_limit: int = 0  # 0: none
    config_hash: str = ""
    telemetry_dropped: Mapping[str, int] = {"traces": 0}  # signal -> how many
    slots: Sequence[Slots] = ()
    waiting: Mapping[str, int] = {}  # in the queue, by class
    oldest_waiting: float = 0.0  # seconds
    queue_limit: int = 0  # 0: no queue
    max_wait: float = 0.0  # seconds
    overloaded: Mapping[str, bool] = {"lag": False, "memory": False}
    store: StoreReadings | None = None
    keys_file_refused: int = 0
    plugins: Sequence[PluginReadings] = ()  # as configured


class Thresholds(NamedTuple):
    """Seconds that promises are measured by; each becomes a bucket's bound. 0: none."""

    time_to_first_token: float = 0.0
    time_per_output_token: float = 0.0
    stream_duration: float = 0.0


class Mark:
    """How much of one record was folded."""

    __slots__ = (
        "answered", "blocked", "bytes_in", "bytes_out", "events", "first", "gap_counts", "gap_sum", "leased", "pings",
        "sent",
    )  # fmt: skip

    def __init__(self) -> None:
        self.events = self.bytes_in = self.bytes_out = self.pings = 0
        self.answered = self.leased = self.sent = self.first = False
        self.gap_counts: list[int] | None = None
        self.gap_sum = self.blocked = 0.0


class Tally:
    """All that was counted since the start."""

    def __init__(self, cap: int = LABEL_SETS, thresholds: Thresholds = Thresholds()) -> None:  # noqa: B008 - frozen
        first_token = merged(names.FIRST_TOKEN_BOUNDS, thresholds.time_to_first_token)
        per_token = merged(names.PER_TOKEN_BOUNDS, thresholds.time_per_output_token)
        durations = merged(names.DURATION_BOUNDS, thresholds.stream_duration)
        self.started = Counts(2, cap)  # route, model
        self.ended = Counts(3, cap)  # route, model, upstream; outcome
        self.rejected = Counts(1, cap)  # route; reason
        self.requests = Counts(1, cap)  # route; method, code
        self.first_token = Distributions(first_token, 2, cap)  # model, upstream
        self.first_chunk = Distributions(names.FIRST_CHUNK_BOUNDS, 2, cap)  # model, upstream
        self.gaps = Distributions(GAP_BOUNDS, 2, cap)  # model, upstream
        self.per_token = Distributions(per_token, 2, cap)  # model, upstream
        self.durations = Distributions(durations, 1, cap)  # model; outcome_class
        self.overhead = Distributions(names.OVERHEAD_BOUNDS, 0, cap, ("request",), ("chunk",))  # stage
        self.chunks = Counts(1, cap)  # upstream
        self.bytes = Counts(1, cap)  # upstream; direction
        self.tokens = Counts(2, cap)  # model, upstream; type, source
        self.queue_wait = Distributions(names.QUEUE_BOUNDS, 1, cap)  # priority
        self.attempts = Counts(1, cap)  # upstream; code
        self.retries = Counts(1, cap)  # upstream; reason
        self.failovers = Counts(1, cap)  # upstream; reason
        self.connects = Distributions(names.CONNECT_BOUNDS, 1, cap)  # upstream
        self.lag = Distributions(names.LAG_BOUNDS, 0, cap, ())
        self.plugin_calls = Distributions(names.PLUGIN_BOUNDS, 2, cap)  # plugin, hook
        self.plugin_chunks = Sums(2, cap)  # plugin, hook
        self.plugin_errors = Counts(2, cap)  # plugin, hook; reason
        self.pings = 0
        self.blocked = 0.0
        self.costs = array("d")  # every record's; no object for each, and folded before it is large

    def fold(self, record: StreamRecord, mark: Mark, now: float) -> None:
        """Add what happened to this stream since it was last folded; `now` is as far as a wait has come."""
        upstream = record.upstream or NOBODY
        if record.events != mark.events:
            self.chunks.add((upstream,), record.events - mark.events)
            mark.events = record.events
        if record.bytes_in != mark.bytes_in:
            self.bytes.add((upstream, "in"), record.bytes_in - mark.bytes_in)
            mark.bytes_in = record.bytes_in
        if record.bytes_out != mark.bytes_out:
            self.bytes.add((upstream, "out"), record.bytes_out - mark.bytes_out)
            mark.bytes_out = record.bytes_out
        outlet = record.outlet
        if outlet is not None:
            record.pings = outlet.pings
            record.blocked = outlet.blocked_for + (now - outlet.blocked_at if outlet.blocked_at else 0.0)
        self.pings += record.pings - mark.pings
        mark.pings = record.pings
        self.blocked += record.blocked - mark.blocked
        mark.blocked = record.blocked
        self._fold_start(record, mark)
        if record.stream:
            self._fold_times((record.model_label, upstream), record, mark)

    def _fold_start(self, record: StreamRecord, mark: Mark) -> None:
        """Answer's head, lease and first request: once each, when they have happened."""
        if record.status and not mark.answered:
            mark.answered = True
            self.answered(record.route, record.method, record.status)
        if record.t_queued and record.t_leased and not mark.leased:
            mark.leased = True
            self.queue_wait.observe((record.priority or NOBODY,), max(0.0, record.t_leased - record.t_queued))
        if record.t_sent and not mark.sent:
            mark.sent = True
            self.overhead.observe(("request",), record.overhead or 0.0)

    def _fold_times(self, key: Key, record: StreamRecord, mark: Mark) -> None:
        """First token and gaps; an answer that is not a stream has neither, and would only blur them."""
        if record.t_first and not mark.first:
            mark.first = True
            since = record.t_read or record.t_received  # began() without its call
            self.first_token.observe(key, max(0.0, record.t_first - since))
            if record.t_chunk:  # else the answer was no events
                self.first_chunk.observe(key, max(0.0, record.t_chunk - record.t_issued))
        counts = record.gap_counts
        if counts is not None and counts != mark.gap_counts:
            before = mark.gap_counts or [0] * len(counts)
            fresh = [now - then for now, then in zip(counts, before, strict=True)]
            self.gaps.merge(key, fresh, record.gap_sum - mark.gap_sum)
            mark.gap_counts, mark.gap_sum = counts.copy(), record.gap_sum

    def fold_costs(self) -> None:
        """What the gateway took for single events."""
        for cost in self.costs:
            self.overhead.observe(("chunk",), cost)
        del self.costs[:]

    def finished(self, record: StreamRecord, outcome: Outcome) -> None:
        """Count a stream's end: once, after its last fold."""
        pair = record.model_label, record.upstream or NOBODY
        self.ended.add((record.route, *pair, outcome.value))
        since = record.t_read or record.t_received
        duration = max(0.0, record.t_end - since)
        self.durations.observe((record.model_label, outcome.klass), duration)
        if record.trace_id:  # not sooner: only now it is known whether the trace is kept
            self.durations.exemplify((record.model_label, outcome.klass), duration, record.trace_id)
            if record.stream and record.t_first:
                self.first_token.exemplify(pair, max(0.0, record.t_first - since), record.trace_id)
        if record.usage is not None:
            self._count_tokens(pair, record, record.usage)
        elif record.stream and record.events:
            self.tokens.add((*pair, "output", "estimated"), record.events)

    def _count_tokens(self, pair: Key, record: StreamRecord, usage: Usage) -> None:
        for kind, tokens in zip(usage._fields, usage, strict=True):
            if tokens:
                self.tokens.add((*pair, kind, "usage"), tokens)
        if record.stream and usage.output > 1 and record.t_first:
            spent = max(0.0, record.t_last - record.t_first)
            self.per_token.observe(pair, spent / (usage.output - 1))

    def answered(self, route: str, method: str, status: int) -> None:
        """Count one HTTP request by its answer."""
        self.requests.add((route or OTHER, method if method in METHODS else OTHER, str(status)))

    def families(self) -> dict[str, Counts | Sums | Distributions]:
        """Every capped family, by the name of its attribute."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Counts | Sums | Distributions)}


def merged(bounds: tuple[float, ...], threshold: float) -> tuple[float, ...]:
    """Bounds with the threshold among them: the share of values below it can only be read off a bound."""
    return bounds if threshold <= 0.0 else tuple(sorted({*bounds, threshold}))


def began(record: StreamRecord) -> float:
    """When a request's clocks start: it was fully received. Uploading is the client's time, queueing is ours."""
    return record.t_read or record.t_received
