"""One record, counted once: the outermost step of every request, which sees every ending.

    async with observer.stream() as record: ...

A request ends in one of three ways: refused (it never became a stream), finished as a stream with one outcome, or
answered by the gateway itself (nothing is counted). Every call here is plain and takes microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from types import TracebackType
from typing import Any

import structlog
from anyio.lowlevel import checkpoint

from streamgate.clock import monotonic
from streamgate.errors import Fault, Reason, Refusal
from streamgate.observe import lines
from streamgate.observe.context import Header
from streamgate.observe.families import LABEL_SETS
from streamgate.observe.figures import Shelf
from streamgate.observe.live import Pressure
from streamgate.observe.tally import COSTS, Mark, Readings, Tally, Thresholds
from streamgate.observe.tracing import Tracing, Untraced
from streamgate.record import Outcome, Phase, StreamRecord

# Streams folded per turn of the loop at a scrape: about 4 us each, so that no stream waits longer than 1 ms.
SLICE = 200

# Rows of `/streams`; the oldest come first, because a stuck stream is an old one.
ROWS = 1000

PHASES = {
    Phase.QUEUED: "queued",
    Phase.WAITING: "waiting_first_token",
    Phase.STREAMING: "streaming",
    Phase.ENDED: "ending",
}


ERRORS = frozenset(outcome for outcome in Outcome if outcome.klass == "error")


class Observed:
    """One request being observed; what `Observer.stream` gives."""

    __slots__ = ("_observer", "headers", "mark", "record", "started")

    def __init__(self, observer: Observer, headers: Sequence[Header]) -> None:
        self._observer = observer
        self.headers = headers
        self.record = StreamRecord(monotonic(), observer.tally.costs)
        self.mark = Mark()
        self.started = False

    async def __aenter__(self) -> StreamRecord:
        self._observer.began(self)
        return self.record

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._observer.ended(self, error)


class Observer:
    """Counts, logs and lists streams. `readings` is asked at each scrape for what is not a stream's; `stall` is the
    seconds of an upstream's silence after which a stream counts as stalled (0: never); `chatty`
    also says when one starts.

    Set up logging before making one (`logs.configure`): its logger is bound here, once.
    """

    def __init__(
        self,
        *,
        log: Any = None,
        readings: Callable[[], Readings] = Readings,
        tracing: Tracing | None = None,
        label_sets: int = LABEL_SETS,
        thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen
        stall: float = 10.0,
        chatty: bool = False,
    ) -> None:
        self.tally = Tally(label_sets, thresholds)
        self.stall = stall
        self.live: dict[StreamRecord, Observed] = {}
        self.readings = readings
        # The live page's; told whether it is of class error. Must not raise.
        self.on_ended: Callable[[StreamRecord, Outcome, bool], None] | None = None
        self._log = log if log is not None else structlog.get_logger().bind()
        self._chatty = chatty
        self.shelf = Shelf(self._log)
        self.tracing: Tracing = tracing or Untraced()

    # What the path says.
    def stream(self, headers: Sequence[Header] = ()) -> Observed:
        """An `async with` around one request with these headers, from its first byte to its last."""
        return Observed(self, headers)

    def started(self, record: StreamRecord) -> None:
        """The lease was granted: from here on it is a stream and has an outcome. Idempotent."""
        observed = self.live[record]
        if not observed.started:
            observed.started = True
            record.t_leased = record.t_leased or monotonic()
            self.tally.started.add((record.route, record.model_label))
            if self._chatty:  # else not even the fields are put together
                self._log.debug("stream_started", fields=lines.started(record))

    def attempt(self, upstream: str, code: str) -> None:
        """One exchange with an upstream is over: a status class (2xx, 429, ...) or the kind of its fault."""
        self.tally.attempts.add((upstream, code))

    def retried(self, record: StreamRecord, fault: Fault, *, elsewhere: bool) -> None:
        """Its upstream failed a try, and another is made there again, or elsewhere."""
        family = self.tally.failovers if elsewhere else self.tally.retries
        family.add((record.upstream, fault.kind))
        self._log.info("upstream_failover" if elsewhere else "upstream_retry", fields=lines.retried(record, fault))

    def circuit(self, upstream: str, state: str, fault: Fault | None = None) -> None:
        """An upstream is left out after too many faults (`open`; this is the last), or trusted again (`closed`)."""
        say = self._log.info if fault is None else self._log.warning
        say("circuit_changed", fields=lines.circuit(upstream, state, fault))

    def dialled(self, upstream: str, seconds: float) -> None:
        """A new connection to an upstream took so long."""
        self.tally.connects.observe((upstream,), seconds)

    def answered(self, route: str, method: str, status: int) -> None:
        """A request that has no record was answered: a probe."""
        self.tally.answered(route, method, status)

    def lagged(self, seconds: float) -> None:
        """The event loop was so late. Also the moment to fold what hot paths only noted: four times a second."""
        self.tally.lag.observe((), seconds)
        self.tally.fold_costs()

    def refused(self, route: str, reason: Reason) -> None:
        """A request that was refused before it had a record, by the edge."""
        self.tally.rejected.add((route, reason.value))
        self._log.info("request_rejected", route=route, reason=reason.value)

    # The two ends of every request; `Observed` calls them.
    def began(self, observed: Observed) -> None:
        self.live[observed.record] = observed
        self.tracing.began(observed.record, observed.headers)

    def ended(self, observed: Observed, error: BaseException | None) -> None:
        """Count it, exactly once, whatever came out of it. Whatever escaped goes on escaping: the server answers."""
        record = observed.record
        record.t_end = record.t_end or monotonic()
        bug = isinstance(error, Exception)
        if bug and error is not None:
            self._log.error("unexpected_error", fields=lines.escaped(record, error))
        refusal = None if observed.started else refusal_of(record, error)
        if bug and refusal is None:
            self.started(record)  # it never got a lease, but it ended badly, and that must show among the outcomes
        del self.live[record]
        outcome = None
        if refusal is not None:
            record.refusal = refusal
        elif observed.started:
            outcome = record.ending.outcome if record.ending is not None else Outcome.INTERNAL_ERROR
        self.tracing.ended(record, outcome)  # first: whether there is a trace is what lines and exemplars say
        self.tally.fold(record, observed.mark, record.t_end)
        record.outlet = None
        if len(self.tally.costs) > COSTS:  # nobody calls `lagged` or `fold`
            self.tally.fold_costs()
        if refusal is not None:
            self._rejected(record, refusal)
        elif outcome is not None:
            self._finished(record, outcome, error)

    def _rejected(self, record: StreamRecord, refusal: Refusal) -> None:
        self.tally.rejected.add((record.route, refusal.reason.value))
        self._log.info("request_rejected", fields=lines.rejected(record, refusal))

    def _finished(self, record: StreamRecord, outcome: Outcome, error: BaseException | None) -> None:
        self.tally.finished(record, outcome)
        error_class = outcome in ERRORS
        if self.on_ended is not None:
            self.on_ended(record, outcome, error_class)
        say = self._log.warning if error_class else self._log.info
        say("stream_finished", fields=lines.finished(record, outcome, error))

    # What others ask.
    @property
    def active(self) -> int:
        """Streams with a lease."""
        return sum(1 for observed in self.live.values() if observed.started)

    def phases(self) -> dict[str, int]:
        """Streams by phase, and requests in the queue; one still being read is neither."""
        counts = dict.fromkeys(PHASES.values(), 0)
        for record, observed in self.live.items():
            phase = record.phase
            if observed.started and phase in (Phase.READING, Phase.QUEUED):
                phase = Phase.WAITING  # its lease is granted; the path has just not said so yet
            elif not observed.started and phase is not Phase.QUEUED:
                continue
            counts[PHASES[phase]] += 1
        return counts

    async def fold(self) -> Pressure:
        """Bring the tally up to date with the live streams, some per turn of the loop; what they are up to."""
        now = monotonic()
        pressure = Pressure(now, self.stall)
        for count, observed in enumerate(list(self.live.values()), 1):
            if observed.record in self.live:  # it may have ended while the others were folded
                self.tally.fold(observed.record, observed.mark, now)
                pressure.add(observed.record)
            if count % SLICE == 0:
                await checkpoint()
        self.tally.fold_costs()
        return pressure

    def snapshot(self) -> list[dict[str, object]]:
        """The live requests, oldest first, at most `ROWS`: for `/streams`. No prompts, no keys."""
        now = monotonic()
        return [row(record, now) for record in islice(self.live, ROWS)]  # a dict keeps the order of arrival

    def statistics(self) -> dict[str, int]:
        return {
            "active": self.active,
            "live": len(self.live),
            "started": sum(self.tally.started.cells.values()),
            "ended": sum(self.tally.ended.cells.values()),
            "rejected": sum(self.tally.rejected.cells.values()),
        }


def refusal_of(record: StreamRecord, error: BaseException | None) -> Refusal | None:
    """Why a request without a lease was refused; one that was cancelled has lost its client."""
    if record.refusal is not None:
        return record.refusal
    if isinstance(error, Refusal):
        return error
    if error is not None and not isinstance(error, Exception):
        return Refusal(Reason.CLIENT_LEFT, 499, "The client left.")
    return None


def row(record: StreamRecord, now: float) -> dict[str, object]:
    """One line of `/streams`: seconds for ages, milliseconds for the first token."""
    return {
        "id": record.request_id,
        "phase": record.phase.value,
        "age_s": round(now - record.t_received, 3),
        "route": record.route,
        "model": record.model,
        "upstream": record.upstream or None,
        "tenant": record.tenant or None,
        "attempts": record.attempts,
        "ttft_ms": lines.span(record.t_read or record.t_received, record.t_first),
        "events": record.events,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "pings": record.pings,
        "last_event_age_s": round(now - record.t_last, 3) if record.t_last else None,
    }
