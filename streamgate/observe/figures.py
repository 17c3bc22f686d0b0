"""Plugins' own metrics, as plain numbers from whoever has them, made fit to be shown beside ours.

A plugin is somebody else's code: whatever it counts, and whatever names and values it makes up, the page stays readable
and of a bounded size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import inf, isfinite, nan
from typing import Any, Final, NamedTuple, Protocol

from streamgate.observe.families import Distribution, Key
from streamgate.observe.names import METRICS, Kind, Named

FAMILIES_SHOWN: Final = 50  # of one plugin; one that makes a metric per request is stopped there
LONGEST: Final = 128  # characters of a label value
LONGEST_TEXT: Final = 400  # of what a metric means
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Figure(Protocol):
    """One metric of a plugin. `values` by label values, in the order of `labels`; of a histogram the sums.

    `counts` are a histogram's, per bucket and not cumulated; the last one is of what is above all `buckets`.
    """

    @property
    def kind(self) -> Kind: ...
    @property
    def name(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def buckets(self) -> tuple[float, ...]: ...
    @property
    def values(self) -> Mapping[Key, float]: ...
    @property
    def counts(self) -> Mapping[Key, Sequence[int]]: ...


class PluginReadings(NamedTuple):
    """One configured plugin: the hooks it has, its breaker's state (closed, open, half_open), its own metrics."""

    name: str
    hooks: Sequence[str] = ()
    breaker: str = "closed"
    figures: Iterable[Figure] = ()


class Shown(NamedTuple):
    """Plugins' own metrics at one moment, copied."""

    numbers: dict[Named, Mapping[Key, float]]
    distributions: dict[Named, Mapping[Key, Distribution]]


class Shelf:
    """Which of plugins' own metrics are shown: those that are well formed, the first of each name.

    `log` is told of every other one, once.
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self._taken = {series for named in METRICS for series in series_of(named)}
        self._known: dict[tuple[str, Named], bool] = {}  # by plugin; whether it is shown

    def copied(self, plugins: Iterable[PluginReadings]) -> Shown:
        """All there is to show, now."""
        shown = Shown({}, {})
        for plugin in plugins:
            for position, figure in enumerate(list(plugin.figures)[: FAMILIES_SHOWN + 1]):
                named = promised(plugin.name, figure)
                if not self._shows(plugin.name, named, position):
                    continue
                if named.kind == "histogram":
                    shown.distributions[named] = distributions(figure)
                else:
                    shown.numbers[named] = numbers(figure)
        return shown

    def _shows(self, plugin: str, named: Named, position: int) -> bool:
        shown = self._known.get((plugin, named))
        if shown is None:
            why = self._wrong(named) if position < FAMILIES_SHOWN else f"a plugin has {FAMILIES_SHOWN} at most"
            shown = self._known[plugin, named] = not why
            if shown:
                self._taken |= series_of(named)
            else:
                self._log.warning("plugin_metric_left_out", plugin=plugin, metric=named.name, why=why)
        return shown

    def _wrong(self, named: Named) -> str:
        """Why it would spoil the page; "" when it would not."""
        if not all(_NAME.fullmatch(name) for name in (named.name, *named.labels)):
            return "not a name for a metric, or for one of its labels"
        if len(set(named.labels)) < len(named.labels) or (named.kind == "histogram" and "le" in named.labels):
            return "a label twice"
        if not all(map(isfinite, named.bounds)) or any(low >= high for low, high in pairwise(named.bounds)):
            return "its buckets do not increase"
        clashing = sorted(series_of(named) & self._taken)
        return f"there already is a {clashing[0]}" if clashing else ""


def promised(plugin: str, figure: Figure) -> Named:
    """As the page names it."""
    text = " ".join(legible(figure.text, LONGEST_TEXT).split())
    bounds = tuple(nan if (bound := number_of(each)) is None else bound for each in figure.buckets)  # `le` is a float
    return Named(f"streamgate_plugin_{plugin}_{figure.name}", figure.kind, figure.labels, text, bounds)


def series_of(named: Named) -> set[str]:
    """Every name that its samples, and its family in OpenMetrics, may have."""
    match named.kind:
        case "gauge":
            return {named.name}
        case "counter":
            base = named.name.removesuffix("_total")
            return {base, f"{base}_total", f"{base}_created"}
        case _:
            return {named.name, *(f"{named.name}_{end}" for end in ("bucket", "count", "sum", "created"))}


def numbers(figure: Figure) -> dict[Key, float]:
    """The cells of a counter or gauge. What is no number is left out; what only its cut end told apart is one."""
    shown: dict[Key, float] = {}
    for given, number in dict(figure.values).items():  # copied at once: a plugin's thread may be counting
        value = number_of(number)
        if value is None or len(given) != len(figure.labels):
            continue
        if figure.kind == "gauge" or 0.0 <= value < inf:
            key = tuple(map(legible, given))
            shown[key] = shown.get(key, 0.0) + value
    return shown


def distributions(figure: Figure) -> dict[Key, Distribution]:
    """A histogram's cells, in the same way."""
    shown: dict[Key, Distribution] = {}
    for given, counts in dict(figure.counts).items():
        if len(given) != len(figure.labels) or len(counts) != len(figure.buckets) + 1:
            continue
        key = tuple(map(legible, given))
        cell = shown.setdefault(key, Distribution([0] * len(counts)))
        cell.counts = [have + more for have, more in zip(cell.counts, counts, strict=True)]
        cell.total += number_of(figure.values.get(given, 0.0)) or 0.0
    return shown


def number_of(value: Any) -> float | None:
    """None for what is none: its `str` would spoil the whole page."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def legible(text: str, longest: int = LONGEST) -> str:
    """Cut, and without the lone surrogates that UTF-8 has no bytes for: one would spoil the whole page, too."""
    return text[:longest].encode("utf-8", "backslashreplace").decode()
