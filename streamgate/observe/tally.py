"""What has been counted so far: plain numbers under label values, folded from records; no metrics library in sight.

A live stream is folded too, whenever somebody scrapes: a `Mark` remembers how much of it was folded already, so that
only the difference is added. Counters therefore move while a ten-minute stream runs, and never go back when it ends.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streamgate.record import GAP_BOUNDS, Outcome, StreamRecord

OVERFLOW = "__overflow__"
NOBODY = "none"  # the upstream of a stream that ended before it was given one

# Label sets per family made of configured names. 200 pairs of model and upstream are 15,000 series, which take a
# second of CPU to render and parse; more is a mistake in the configuration.
LABEL_SETS = 200

# Seconds. The semantic conventions end at 10 s, where reasoning models only begin; engines' own buckets reach further.
FIRST_TOKEN_BOUNDS = (
    0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0,
)  # fmt: skip
DURATION_BOUNDS = (
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0,
)  # fmt: skip

Key = tuple[str, ...]


class Readings(NamedTuple):
    """What is not a stream's: read from its owners at each scrape."""

    draining: bool = False
    ready: bool = True
    connections: int = 0  # of clients
    upstream_connections: Mapping[tuple[str, str], int] = {}  # (upstream, state)
    log_lines_dropped: int = 0


class Family:
    """The label sets of one metric. The first `open` labels hold configured names and are capped as a group."""

    __slots__ = ("cap", "known", "open", "overflowed")

    def __init__(self, open: int, cap: int) -> None:
        self.open = open
        self.cap = cap
        self.known: set[Key] = set()
        self.overflowed = 0

    def settled(self, key: Key) -> Key:
        """The key to count under: itself, or the overflow's when it would be one label set too many."""
        named = key[: self.open]
        if named in self.known:
            return key
        if len(self.known) < self.cap:
            self.known.add(named)
            return key
        self.overflowed += 1
        return (OVERFLOW,) * self.open + key[self.open :]


class Counts(Family):
    """A counter's cells."""

    __slots__ = ("cells",)

    def __init__(self, open: int, cap: int = LABEL_SETS) -> None:
        super().__init__(open, cap)
        self.cells: dict[Key, int] = {}

    def add(self, key: Key, amount: int = 1) -> None:
        key = self.settled(key)
        self.cells[key] = self.cells.get(key, 0) + amount


class Distribution:
    """One histogram's cell: how many values fell into each bucket (not cumulated), and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self, counts: list[int], total: float = 0.0) -> None:
        self.counts = counts
        self.total = total

    def copy(self) -> Distribution:
        return Distribution(self.counts.copy(), self.total)


class Distributions(Family):
    """A histogram's cells; bounds are inclusive upper ones, as Prometheus has them."""

    __slots__ = ("bounds", "cells")

    def __init__(self, bounds: tuple[float, ...], open: int, cap: int = LABEL_SETS) -> None:
        super().__init__(open, cap)
        self.bounds = bounds
        self.cells: dict[Key, Distribution] = {}

    def observe(self, key: Key, value: float) -> None:
        cell = self._cell(key)
        cell.counts[bisect_left(self.bounds, value)] += 1
        cell.total += value

    def merge(self, key: Key, counts: Sequence[int], total: float) -> None:
        """Add values that were sorted into this family's buckets elsewhere."""
        cell = self._cell(key)
        cell.counts = [have + more for have, more in zip(cell.counts, counts, strict=True)]
        cell.total += total

    def _cell(self, key: Key) -> Distribution:
        key = self.settled(key)
        cell = self.cells.get(key)
        if cell is None:
            cell = self.cells[key] = Distribution([0] * (len(self.bounds) + 1))
        return cell


class Mark:
    """How much of one record was folded."""

    __slots__ = ("bytes_in", "bytes_out", "events", "first", "gap_counts", "gap_sum", "pings")

    def __init__(self) -> None:
        self.events = self.bytes_in = self.bytes_out = self.pings = 0
        self.first = False
        self.gap_counts: list[int] | None = None
        self.gap_sum = 0.0


class Tally:
    """All that was counted since the start."""

    def __init__(self, cap: int = LABEL_SETS) -> None:
        self.started = Counts(2, cap)  # route, model
        self.ended = Counts(3, cap)  # route, model, upstream; outcome
        self.rejected = Counts(1, cap)  # route; reason
        self.first_token = Distributions(FIRST_TOKEN_BOUNDS, 2, cap)  # model, upstream
        self.gaps = Distributions(GAP_BOUNDS, 2, cap)  # model, upstream
        self.durations = Distributions(DURATION_BOUNDS, 1, cap)  # model; outcome_class
        self.chunks = Counts(1, cap)  # upstream
        self.bytes = Counts(1, cap)  # upstream; direction
        self.attempts = Counts(1, cap)  # upstream; code
        self.retries = Counts(1, cap)  # upstream; reason
        self.failovers = Counts(1, cap)  # upstream; reason
        self.pings = 0

    def fold(self, record: StreamRecord, mark: Mark) -> None:
        """Add what happened to this stream since it was last folded."""
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
        self.pings += record.pings - mark.pings
        mark.pings = record.pings
        if record.stream:
            self._fold_times((record.model_label, upstream), record, mark)

    def _fold_times(self, key: Key, record: StreamRecord, mark: Mark) -> None:
        """First token and gaps; an answer that is not a stream has neither, and would only blur them."""
        if record.t_first and not mark.first:
            mark.first = True
            self.first_token.observe(key, max(0.0, record.t_first - began(record)))
        counts = record.gap_counts
        if counts is not None and counts != mark.gap_counts:
            before = mark.gap_counts or [0] * len(counts)
            fresh = [now - then for now, then in zip(counts, before, strict=True)]
            self.gaps.merge(key, fresh, record.gap_sum - mark.gap_sum)
            mark.gap_counts, mark.gap_sum = counts.copy(), record.gap_sum

    def finished(self, record: StreamRecord, outcome: Outcome) -> None:
        """Count a stream's end: once, after its last fold."""
        self.ended.add((record.route, record.model_label, record.upstream or NOBODY, outcome.value))
        self.durations.observe((record.model_label, outcome.klass), max(0.0, record.t_end - began(record)))

    def families(self) -> dict[str, Counts | Distributions]:
        """Every capped family, by the name of its attribute."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Counts | Distributions)}


def began(record: StreamRecord) -> float:
    """When a request's clocks start: it was fully received. Uploading is the client's time, queueing is ours."""
    return record.t_read or record.t_received
