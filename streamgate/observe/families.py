"""Numbers under label values: counters and histograms as plain dictionaries, their label sets bounded.

No metrics library in sight: an addition here costs 0.1 us, there 1 to 3.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streamgate.clock import wall

OVERFLOW = "__overflow__"

# Label sets per family made of configured names. 200 pairs of model and upstream are 17,000 series, as many as a
# scraper should be given; more is a mistake in the configuration.
LABEL_SETS = 200

Key = tuple[str, ...]


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
        cells = self.cells
        if key not in cells:  # a cell's own key was settled before
            key = self.settled(key)
        cells[key] = cells.get(key, 0) + amount


class Sums(Family):
    """The cells of a counter that is no whole number: seconds."""

    __slots__ = ("cells",)

    def __init__(self, open: int, cap: int = LABEL_SETS) -> None:
        super().__init__(open, cap)
        self.cells: dict[Key, float] = {}

    def add(self, key: Key, amount: float) -> None:
        key = key if key in self.cells else self.settled(key)
        self.cells[key] = self.cells.get(key, 0.0) + amount


class Exemplar(NamedTuple):
    """One value of a histogram, the trace it came with, and when: seconds since the epoch."""

    trace_id: str
    value: float
    at: float


class Distribution:
    """One histogram's cell: how many values fell into each bucket (not cumulated), and their sum.

    `exemplars` has the last traced value of a bucket, by the bucket's index.
    """

    __slots__ = ("counts", "exemplars", "total")

    def __init__(self, counts: list[int], total: float = 0.0, exemplars: Mapping[int, Exemplar] | None = None) -> None:
        self.counts = counts
        self.total = total
        self.exemplars: dict[int, Exemplar] | None = dict(exemplars) if exemplars else None

    def copy(self) -> Distribution:
        return Distribution(self.counts.copy(), self.total, self.exemplars)


class Distributions(Family):
    """A histogram's cells; bounds are inclusive upper ones, as Prometheus has them."""

    __slots__ = ("bounds", "cells")

    def __init__(self, bounds: tuple[float, ...], open: int, cap: int = LABEL_SETS, *keys: Key) -> None:
        super().__init__(open, cap)
        self.bounds = bounds
        self.cells: dict[Key, Distribution] = {}
        for key in keys:  # known from the start: at 0 rather than absent
            self._cell(key)

    def observe(self, key: Key, value: float) -> None:
        cell = self.cells.get(key) or self._cell(key)
        cell.counts[bisect_left(self.bounds, value)] += 1
        cell.total += value

    def exemplify(self, key: Key, value: float, trace_id: str) -> None:
        """Make a value that was counted its bucket's exemplar; `trace_id` is 32 hex digits."""
        cell = self._cell(key)
        if cell.exemplars is None:
            cell.exemplars = {}
        cell.exemplars[bisect_left(self.bounds, value)] = Exemplar(trace_id, value, wall())

    def merge(self, key: Key, counts: Sequence[int], total: float) -> None:
        """Add values that were sorted into this family's buckets elsewhere."""
        cell = self.cells.get(key) or self._cell(key)
        cell.counts = [have + more for have, more in zip(cell.counts, counts, strict=True)]
        cell.total += total

    def _cell(self, key: Key) -> Distribution:
        key = self.settled(key)
        cell = self.cells.get(key)
        if cell is None:
            cell = self.cells[key] = Distribution([0] * (len(self.bounds) + 1))
        return cell
