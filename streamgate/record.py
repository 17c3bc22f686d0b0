"""The facts of one stream: slots and plain numbers, written by the path, read by the observer.

Must not know who reads them. Times are `clock.monotonic` seconds, 0.0 while a thing has not happened.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from enum import Enum, StrEnum
from typing import NamedTuple, Protocol, assert_never

from streamgate import errors


class Outcome(StrEnum):
    """How a stream ended. Exactly one per stream; the same word in metrics, spans and log lines."""

    COMPLETED = "completed"
    CLIENT_CLOSED = "client_closed"
    CLIENT_GAVE_UP = "client_gave_up"
    SLOW_CLIENT = "slow_client"
    UPSTREAM_ERROR = "upstream_error"
    TRUNCATED = "truncated"
    TIMEOUT_FIRST_TOKEN = "timeout_first_token"  # noqa: S105 - a word, not a password
    TIMEOUT_IDLE = "timeout_idle"
    DEADLINE = "deadline"
    DRAINED = "drained"
    KILLED = "killed"
    PLUGIN_ABORT = "plugin_abort"
    INTERNAL_ERROR = "internal_error"

    @property
    def klass(self) -> str:
        """ok, client or error: success is ok / (ok + error)."""
        match self:
            case Outcome.COMPLETED:
                return "ok"
            case Outcome.CLIENT_CLOSED | Outcome.SLOW_CLIENT | Outcome.KILLED | Outcome.PLUGIN_ABORT:
                return "client"
            case (
                Outcome.CLIENT_GAVE_UP
                | Outcome.UPSTREAM_ERROR
                | Outcome.TRUNCATED
                | Outcome.TIMEOUT_FIRST_TOKEN
                | Outcome.TIMEOUT_IDLE
                | Outcome.DEADLINE
                | Outcome.DRAINED
                | Outcome.INTERNAL_ERROR
            ):
                return "error"
            case other:
                assert_never(other)


OUTCOME_OF: dict[type[errors.Fault], Outcome] = {
    errors.Truncated: Outcome.TRUNCATED,
    errors.Empty: Outcome.TRUNCATED,
    errors.FirstTokenTimeout: Outcome.TIMEOUT_FIRST_TOKEN,
    errors.IdleTimeout: Outcome.TIMEOUT_IDLE,
    errors.Deadline: Outcome.DEADLINE,
    errors.Drained: Outcome.DRAINED,
    errors.Killed: Outcome.KILLED,
    errors.Internal: Outcome.INTERNAL_ERROR,
    errors.Aborted: Outcome.PLUGIN_ABORT,
    errors.PluginFailed: Outcome.INTERNAL_ERROR,
}


class Ending(NamedTuple):
    """How a stream ended and, when something was at fault, what."""

    outcome: Outcome
    fault: errors.Fault | None = None

    @classmethod
    def by(cls, fault: errors.Fault) -> Ending:
        return cls(OUTCOME_OF.get(type(fault), Outcome.UPSTREAM_ERROR), fault)


COMPLETED = Ending(Outcome.COMPLETED)


class Phase(Enum):
    """Where a live stream is, for `/streams` and the `phase` label of `streamgate_streams_active`."""

    READING = "reading"
    QUEUED = "queued"
    WAITING = "waiting_first_token"
    STREAMING = "streaming"
    ENDED = "ended"


# Inter-chunk gaps: research on engines' own buckets; 2 ms is a fast decoder, 60 s the idle clock.
GAP_BOUNDS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Usage(NamedTuple):
    """Tokens as the upstream counted them; `input` and `output` are totals that include the kinds after them."""

    input: int
    output: int
    cached_input: int = 0
    cache_write: int = 0
    reasoning: int = 0


class ClientSide(Protocol):
    """What a live stream's outlet knows of its client; plain attributes, read when somebody scrapes."""

    pings: int
    blocked_at: float  # since when the client has not been draining; 0.0: it is
    blocked_for: float  # seconds it did not, before that

    @property
    def buffered(self) -> int:
        """Bytes written that have not left the process."""
        ...


class StreamRecord:
    """One request and, once its lease was granted, one stream.

    `costs` is shared by all records of an observer: what the gateway itself took for one event in 16, in seconds.
    """

    __slots__ = (
        "attempts",
        "blocked",
        "bytes_in",
        "bytes_out",
        "client",
        "costs",
        "dialled",
        "ending",
        "events",
        "finish_reason",
        "gap_counts",
        "gap_sum",
        "max_gap",
        "method",
        "model",
        "model_label",
        "outlet",
        "phase",
        "pings",
        "priority",
        "refusal",
        "request_id",
        "route",
        "span_id",
        "status",
        "stream",
        "t_chunk",
        "t_end",
        "t_first",
        "t_head",
        "t_issued",
        "t_last",
        "t_leased",
        "t_queued",
        "t_read",
        "t_received",
        "t_sent",
        "tenant",
        "trace_id",
        "upstream",
        "upstream_request_id",
        "usage",
    )

    def __init__(self, now: float, costs: array[float] | None = None) -> None:
        self.request_id = ""
        self.trace_id = ""  # 32 hex digits while a sampled trace goes with this stream
        self.span_id = ""  # 16: its first span
        self.upstream_request_id = ""
        self.method = ""
        self.route = ""  # the path's template, never what the client sent
        self.model = ""  # as the client asked, cut; logs only
        self.model_label = "other"  # a configured name
        self.upstream = ""
        self.tenant = self.client = self.priority = ""  # priority: the class it queues in
        self.stream = False  # the client asked for a stream
        self.status = 0  # sent to the client
        self.attempts = 0
        self.events = 0  # events with data, written to the client
        self.bytes_in = 0  # from the upstream
        self.bytes_out = 0  # to the client, without HTTP framing
        self.pings = 0
        self.blocked = 0.0  # seconds in which the client did not drain
        self.costs = array("d") if costs is None else costs
        self.outlet: ClientSide | None = None  # while the stream is live
        self.finish_reason = ""
        self.usage: Usage | None = None
        self.gap_counts: list[int] | None = None  # made at the second semantic frame
        self.gap_sum = 0.0
        self.max_gap = 0.0
        self.phase = Phase.READING
        self.refusal: errors.Refusal | None = None
        self.ending: Ending | None = None
        self.t_received = now
        self.t_read = 0.0  # request fully received
        self.t_queued = 0.0  # a lease was asked for
        self.t_leased = 0.0
        self.t_sent = 0.0  # the first try's request written
        self.dialled = 0.0  # seconds the first try needed for a new connection
        self.t_issued = 0.0  # the last try's request written
        self.t_head = 0.0
        self.t_chunk = 0.0  # the last try's first frame
        self.t_first = 0.0  # first semantic event handed to the client
        self.t_last = 0.0  # last semantic frame
        self.t_end = 0.0

    @property
    def overhead(self) -> float | None:
        """Seconds the gateway itself added before the upstream was asked, waiting for a lease or a connect apart."""
        if not self.t_sent:
            return None
        before = self.t_queued - (self.t_read or self.t_received)
        return max(0.0, before + self.t_sent - self.t_leased - self.dialled)

    def semantic(self, now: float) -> None:
        """Note a frame with a semantic event in it: the first token, or one more gap."""
        last = self.t_last
        self.t_last = now
        if last == 0.0:
            self.t_first = now
            return
        gap = now - last
        counts = self.gap_counts
        if counts is None:
            counts = self.gap_counts = [0] * (len(GAP_BOUNDS) + 1)
        counts[bisect_left(GAP_BOUNDS, gap)] += 1
        self.gap_sum += gap
        self.max_gap = max(self.max_gap, gap)
