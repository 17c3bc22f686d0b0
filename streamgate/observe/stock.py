"""Counts and distributions as the client library's own types, for registries that are an application's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from streamgate.observe.families import Distribution, Key
from streamgate.observe.names import Named


def plain(named: Named, numbers: Mapping[Key, float]) -> Metric:
    """A counter or a gauge."""
    kind = CounterMetricFamily if named.kind == "counter" else GaugeMetricFamily
    family = kind(named.name, named.help, labels=named.labels)
    for key, number in numbers.items():
        family.add_metric(key, number)
    return family


def histogram(named: Named, cells: Mapping[Key, Distribution]) -> Metric:
    family = HistogramMetricFamily(named.name, named.help, labels=named.labels)
    for key, cell in cells.items():
        family.add_metric(key, list(buckets(named.bounds, cell.counts)), cell.total)
    return family


def buckets(bounds: tuple[float, ...], counts: list[int]) -> Iterator[tuple[str, float]]:
    """Cumulated, as the format wants them; `le` is printed as Prometheus clients do it: 1.0, never 1."""
    yield from zip((*map(str, bounds), "+Inf"), accumulate(counts), strict=True)
