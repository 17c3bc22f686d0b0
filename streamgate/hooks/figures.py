"""A plugin's own numbers: plain dictionaries with bounded label sets, for whoever exposes them."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, Literal

LABEL_SETS: Final = 100  # of one family; the rest are counted under OTHER
OTHER: Final = "other"
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # s, as prometheus_client's
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

Key = tuple[str, ...]


class Figure:
    """One family. `values` by label values, in the order of `labels`; a histogram has `counts` per bucket, too.

    The counts are not cumulated; the last one is of what is above all buckets.
    """

    __slots__ = ("buckets", "counts", "kind", "labels", "name", "text", "values")

    def __init__(
        self,
        kind: Literal["counter", "gauge", "histogram"],
        name: str,
        text: str,
        labels: Sequence[str],
        buckets: Sequence[float] = (),
    ) -> None:
        if not _NAME.fullmatch(name) or not all(_NAME.fullmatch(label) for label in labels):
            raise ValueError(f"not a name for a metric, or for one of its labels: {name}")
        if (kind == "counter") != name.endswith("_total"):
            raise ValueError(f"the name of a counter ends in _total, and only a counter's does: {name}")
        self.kind = kind
        self.name = name
        self.text = text
        self.labels = tuple(labels)
        self.buckets = tuple(sorted(buckets))
        self.values: dict[Key, float] = {}
        self.counts: dict[Key, list[int]] = {}
        if not labels:
            self.values[()] = 0.0  # known from the start: at 0 rather than absent
            self.counts[()] = [0] * (len(self.buckets) + 1)

    def inc(self, amount: float = 1.0, /, **labels: str) -> None:
        if self.kind == "counter" and amount < 0:
            raise ValueError("a counter only grows")
        key = self._key(labels)
        self.values[key] = self.values.get(key, 0.0) + amount

    def set(self, value: float, /, **labels: str) -> None:
        self.values[self._key(labels)] = value

    def observe(self, value: float, /, **labels: str) -> None:
        key = self._key(labels)
        self.values[key] = self.values.get(key, 0.0) + value
        counts = self.counts.setdefault(key, [0] * (len(self.buckets) + 1))
        counts[bisect_left(self.buckets, value)] += 1

    def _key(self, labels: dict[str, str]) -> Key:
        if len(labels) != len(self.labels) or any(name not in labels for name in self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}")
        key = tuple(str(labels[name]) for name in self.labels)
        full = key not in self.values and len(self.values) >= LABEL_SETS
        return (OTHER,) * len(self.labels) if full else key


class Figures:
    """The families of one plugin."""

    def __init__(self) -> None:
        self.families: dict[str, Figure] = {}

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Figure:
        return self._new(Figure("counter", name, text, labels))

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Figure:
        return self._new(Figure("gauge", name, text, labels))

    def histogram(self, name: str, text: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = ()) -> Figure:
        return self._new(Figure("histogram", name, text, labels, buckets or BUCKETS))

    def _new(self, figure: Figure) -> Figure:
        if figure.name in self.families:
            raise ValueError(f"there already is a metric {figure.name}")
        self.families[figure.name] = figure
        return figure
