"""Every metric's name, labels and meaning, and the one collector that turns the tally into Prometheus families.

The names are a promise: docs/metrics.md is written from the tables below (`python -m streamgate.observe.metrics`), and
a test compares them.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Literal, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from streamgate import __version__
from streamgate.observe.observer import Observer
from streamgate.observe.tally import (
    DURATION_BOUNDS,
    FIRST_TOKEN_BOUNDS,
    Distribution,
    Distributions,
    Key,
    Readings,
)
from streamgate.record import GAP_BOUNDS

Kind = Literal["counter", "gauge", "histogram"]


class Named(NamedTuple):
    """One metric's promise."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    bounds: tuple[float, ...] = ()


STARTED = Named("streamgate_streams_started_total", "counter", ("route", "model"), "Streams that got their lease.")
STREAMS = Named(
    "streamgate_streams_total", "counter", ("route", "model", "upstream", "outcome"), "Streams that ended, by outcome."
)
REJECTED = Named(
    "streamgate_requests_rejected_total", "counter", ("route", "reason"), "Requests that never became a stream."
)
ACTIVE = Named(
    "streamgate_streams_active",
    "gauge",
    ("phase",),
    "Live streams by phase, and requests waiting for a lease (phase queued).",
)
FIRST_TOKEN = Named(
    "streamgate_time_to_first_token_seconds",
    "histogram",
    ("model", "upstream"),
    "From the request fully received to the first semantic event written to the client; streaming requests only.",
    FIRST_TOKEN_BOUNDS,
)
GAPS = Named(
    "streamgate_inter_chunk_seconds",
    "histogram",
    ("model", "upstream"),
    "Gaps between frames that hold a semantic event; streaming requests only.",
    GAP_BOUNDS,
)
DURATION = Named(
    "streamgate_stream_duration_seconds",
    "histogram",
    ("model", "outcome_class"),
    "From the request fully received to the end of the stream; classes: ok, client, error.",
    DURATION_BOUNDS,
)
CHUNKS = Named("streamgate_chunks_total", "counter", ("upstream",), "Events with data written to clients.")
BYTES = Named(
    "streamgate_bytes_total",
    "counter",
    ("upstream", "direction"),
    "Body bytes from upstreams (in) and to clients (out), without HTTP framing.",
)
ATTEMPTS = Named(
    "streamgate_upstream_requests_total",
    "counter",
    ("upstream", "code"),
    "Exchanges with upstreams, by status class or kind of fault.",
)
RETRIES = Named(
    "streamgate_upstream_retries_total", "counter", ("upstream", "reason"), "Tries repeated at the same upstream."
)
FAILOVERS = Named(
    "streamgate_upstream_failovers_total", "counter", ("upstream", "reason"), "Tries that moved away from an upstream."
)
PINGS = Named("streamgate_keepalive_pings_total", "counter", (), "Heartbeats written to clients.")
CONNECTIONS = Named("streamgate_connections", "gauge", (), "Open client connections.")
UPSTREAM_CONNECTIONS = Named(
    "streamgate_upstream_connections", "gauge", ("upstream", "state"), "Connections to upstreams, by state."
)
DRAINING = Named("streamgate_draining", "gauge", (), "1 from the moment a drain begins.")
READY = Named("streamgate_ready", "gauge", (), "1 while /readyz answers 200.")
BUILD = Named("streamgate_build_info", "gauge", ("version", "python"), "Always 1; what is running.")
LINES_DROPPED = Named(
    "streamgate_log_lines_dropped_total", "counter", (), "Log lines lost because nobody read them fast enough."
)
OVERFLOWS = Named(
    "streamgate_metric_label_overflow_total",
    "counter",
    ("metric",),
    "Times something was counted under __overflow__ because a metric had too many label sets.",
)

METRICS = (
    STARTED, STREAMS, REJECTED, ACTIVE, FIRST_TOKEN, GAPS, DURATION, CHUNKS, BYTES, ATTEMPTS, RETRIES, FAILOVERS, PINGS,
    CONNECTIONS, UPSTREAM_CONNECTIONS, DRAINING, READY, BUILD, LINES_DROPPED, OVERFLOWS,
)  # fmt: skip

# Which of the tally's families is which metric.
FAMILIES = {
    "started": STARTED,
    "ended": STREAMS,
    "rejected": REJECTED,
    "first_token": FIRST_TOKEN,
    "gaps": GAPS,
    "durations": DURATION,
    "chunks": CHUNKS,
    "bytes": BYTES,
    "attempts": ATTEMPTS,
    "retries": RETRIES,
    "failovers": FAILOVERS,
}


class Scrape(NamedTuple):
    """One moment of everything, copied: rendering it in another thread disturbs nobody."""

    numbers: Mapping[Named, Mapping[Key, int]]
    distributions: Mapping[Named, Mapping[Key, Distribution]]


async def scrape(observer: Observer) -> Scrape:
    """Fold the live streams, then copy all numbers in one turn of the loop, so that the books balance in them."""
    await observer.fold()
    return copied(observer)


def copied(observer: Observer) -> Scrape:
    families = observer.tally.families()
    numbers: dict[Named, dict[Key, int]] = {}
    distributions: dict[Named, dict[Key, Distribution]] = {}
    for name, family in families.items():
        if isinstance(family, Distributions):
            distributions[FAMILIES[name]] = {key: cell.copy() for key, cell in family.cells.items()}
        else:
            numbers[FAMILIES[name]] = dict(family.cells)
    numbers[OVERFLOWS] = {
        (FAMILIES[name].name,): family.overflowed for name, family in families.items() if family.overflowed
    }
    return Scrape(numbers | moment(observer, observer.readings()), distributions)


def moment(observer: Observer, readings: Readings) -> dict[Named, dict[Key, int]]:
    """What is not kept in families."""
    return {
        ACTIVE: {(phase,): count for phase, count in observer.phases().items()},
        PINGS: {(): observer.tally.pings},
        CONNECTIONS: {(): readings.connections},
        UPSTREAM_CONNECTIONS: {tuple(key): count for key, count in readings.upstream_connections.items()},
        DRAINING: {(): int(readings.draining)},
        READY: {(): int(readings.ready)},
        BUILD: {(__version__, platform.python_version()): 1},
        LINES_DROPPED: {(): readings.log_lines_dropped},
    }


class StreamCollector(Collector):
    """The one collector: gives the families of the scrape it holds."""

    def __init__(self) -> None:
        self.scrape = Scrape({}, {})

    def collect(self) -> Iterable[Metric]:
        for named, numbers in self.scrape.numbers.items():
            yield plain(named, numbers)
        for named, cells in self.scrape.distributions.items():
            yield histogram(named, cells)


def plain(named: Named, numbers: Mapping[Key, int]) -> Metric:
    """A counter or a gauge as the library's own type."""
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


def document() -> str:
    """docs/metrics.md."""
    rows = "\n".join(f"| `{m.name}` | {m.kind} | {' '.join(m.labels) or '-'} | {m.help} |" for m in METRICS)
    bounds = "\n".join(f"- `{m.name}`: {' '.join(f'{bound:g}' for bound in m.bounds)}" for m in METRICS if m.bounds)
    return f"{HEAD}{rows}\n\n## Buckets, in seconds\n\n{bounds}\n{TAIL}"


HEAD = """\
# Metrics

Written from the code by `make docs`; a test compares the two. Names, labels and meanings are a promise: a change of
one is a breaking change.

They are served by the admin port at `/metrics`, as Prometheus text or OpenMetrics by the scraper's choice, together
with the stock `process_*` and `python_*` metrics.

| metric | type | labels | meaning |
| --- | --- | --- | --- |
"""

TAIL = """
## How to read them

- `streamgate_streams_started_total` = the sum of `streamgate_streams_total` over all outcomes + the sum of
  `streamgate_streams_active` without phase `queued`, in every single scrape.
- Success is `outcome="completed"` / (all outcomes less client_closed, slow_client, killed and plugin_abort).
- Counters of events, bytes, gaps and first tokens move while a stream runs; outcome and duration come at its end.
- Label values are configured names, never what a client sent. Above 200 sets of names in one metric, the rest are
  counted under `__overflow__`, and `streamgate_metric_label_overflow_total` says so. A stream that ended before it had
  an upstream has `upstream="none"`.
- Phases: `queued` (no lease yet), `waiting_first_token`, `streaming`, `ending` (last bytes on their way).
"""


if __name__ == "__main__":
    sys.stdout.write(document())
