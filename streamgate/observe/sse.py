"""Ready observers for `streamgate.sse.EventSourceResponse(..., observer=...)`: Prometheus, OpenTelemetry, and several.

    metrics = PrometheusObserver()  # one for the whole process
    spans = TracingObserver()
    response = EventSourceResponse(numbers(), observer=Observers(metrics, spans))

An observer is called three times a stream. What happens in between is read from the stream's own numbers when somebody
scrapes, so that an event costs the same with metrics and without.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from threading import RLock
from typing import NamedTuple, cast

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from starlette.types import Scope

from streamgate.observe.families import LABEL_SETS, Counts, Distribution, Distributions, Family, Key
from streamgate.observe.names import Named
from streamgate.observe.sse_routes import route_template
from streamgate.observe.sse_spans import TracingObserver
from streamgate.observe.stock import histogram, plain
from streamgate.sse.account import Account, Ending, StreamObserver

__all__ = ["Observers", "PrometheusObserver", "TracingObserver", "route_template"]

log = logging.getLogger(__name__)

# Seconds. The steps are coarse: each bound is one more series for each route. Silence and whole streams reach further
# than the others, because an event stream may be quiet for hours and open for a day.
FIRST_EVENT_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
GAP_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
DURATION_BOUNDS = (0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0)
SEND_BOUNDS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

OPEN = Named("streams_open", "gauge", ("route",), "Event streams that are running.")
STREAMS = Named("streams_total", "counter", ("route", "ending"), "Event streams that ended, by how they ended.")
EVENTS = Named("events_total", "counter", ("route",), "Events sent.")
BYTES = Named("event_bytes_total", "counter", ("route",), "Bytes of the events sent, without pings and HTTP framing.")
PINGS = Named("pings_total", "counter", ("route",), "Pings sent.")
FIRST_EVENT = Named(
    "time_to_first_event_seconds", "histogram", ("route",), "From the start to the first event.", FIRST_EVENT_BOUNDS
)
LONGEST_GAP = Named(
    "longest_gap_seconds", "histogram", ("route",), "Longest silence between two events, by stream.", GAP_BOUNDS
)
DURATION = Named("stream_duration_seconds", "histogram", ("route",), "From the start to the end.", DURATION_BOUNDS)
SLOWEST_SEND = Named(
    "slowest_send_seconds", "histogram", ("route",), "Longest that one send took, by stream.", SEND_BOUNDS
)

COUNTS = (STREAMS, EVENTS, BYTES, PINGS)
TIMES = (FIRST_EVENT, LONGEST_GAP, DURATION, SLOWEST_SEND)


class Moment(NamedTuple):
    """Everything at one moment, copied."""

    live: dict[Account, Key]
    counts: dict[Named, dict[Key, int]]
    times: dict[Named, dict[Key, Distribution]]


class PrometheusObserver(Collector):
    """Event streams as Prometheus metrics; make one for the process and hand it to every response.

    | metric                            | type      | labels        | meaning                                         |
    | --------------------------------- | --------- | ------------- | ----------------------------------------------- |
    | `sse_streams_open`                | gauge     | route         | streams that are running                        |
    | `sse_streams_total`               | counter   | route, ending | streams that ended; endings: `account.Ending`   |
    | `sse_events_total`                | counter   | route         | events sent                                     |
    | `sse_event_bytes_total`           | counter   | route         | bytes of the events, without pings and framing  |
    | `sse_pings_total`                 | counter   | route         | pings sent                                      |
    | `sse_time_to_first_event_seconds` | histogram | route         | from the start to the first event               |
    | `sse_longest_gap_seconds`         | histogram | route         | a stream's longest silence between two events   |
    | `sse_stream_duration_seconds`     | histogram | route         | from the start to the end                       |
    | `sse_slowest_send_seconds`        | histogram | route         | the longest that one send of a stream took      |

    Counters of events, bytes and pings move while a stream runs, the first event is counted when it is sent, the rest
    at the end. In every scrape the streams opened so far are the open ones and the ended ones together.

    `route` gives a stream's label from its ASGI scope; above 200 labels the rest are counted under `__overflow__`.
    `namespace` replaces the prefix `sse`. `registry=None` registers nowhere. Two of the same namespace in one registry
    are a ValueError. Scraping is safe from any thread, and better in one than on the event loop, where it would hold up
    all streams: 4,000 series take 30 ms. The client library's multiprocess mode has no collectors, so not this one
    either: give each worker a port for its metrics.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = REGISTRY,
        *,
        route: Callable[[Scope], str] = route_template,
        namespace: str = "sse",
    ) -> None:
        self._route = route
        self._namespace = namespace
        # Held for microseconds, when a stream opens, has its first event or ends, and while a scrape copies. Reentrant:
        # the garbage collector may end a forgotten stream in the midst of any of these.
        self._lock = RLock()
        self._live: dict[Account, Key] = {}
        self._routes = Family(open=1, cap=LABEL_SETS)
        self._counts = {named: Counts(open=1) for named in COUNTS}
        self._times = {named: Distributions(named.bounds, open=1) for named in TIMES}
        if registry is not None:
            registry.register(self)

    def opened(self, account: Account) -> None:
        route = str(self._route(cast(Scope, account.scope)))
        with self._lock:
            key = self._live[account] = self._routes.settled((route,))
            if key not in self._counts[EVENTS].cells:
                self._begin_at_zero(key)

    def first_event(self, account: Account) -> None:
        with self._lock:
            key = self._live.get(account)
            if key is not None:
                self._times[FIRST_EVENT].observe(key, account.first_event_at - account.opened_at)

    def closed(self, account: Account) -> None:
        with self._lock:
            key = self._live.pop(account, None)
            if key is not None:
                self._fold(key, account)

    def collect(self) -> Iterator[Metric]:
        live, counts, times = self._moment()
        running = dict.fromkeys(counts[EVENTS], 0)
        for account, key in live.items():
            running[key] += 1
            for named, number in numbers(account):
                counts[named][key] += number
        yield plain(self._promise(OPEN), running)
        for named in COUNTS:
            yield plain(self._promise(named), counts[named])
        for named in TIMES:
            yield histogram(self._promise(named), times[named])

    def describe(self) -> Iterator[Metric]:
        """The metrics without numbers; a registry finds duplicates by it."""
        for named in (OPEN, *COUNTS):
            yield plain(self._promise(named), {})
        for named in TIMES:
            yield histogram(self._promise(named), {})

    def _promise(self, named: Named) -> Named:
        return named._replace(name=f"{self._namespace}_{named.name}") if self._namespace else named

    def _begin_at_zero(self, key: Key) -> None:
        """A series that appears with a 1 has no increase that an alert could see; one that was 0 before has."""
        for named in (EVENTS, BYTES, PINGS):
            self._counts[named].add(key, 0)
        for ending in Ending:
            self._counts[STREAMS].add((*key, ending.value), 0)

    def _fold(self, key: Key, account: Account) -> None:
        for named, number in numbers(account):
            self._counts[named].add(key, number)
        if account.ending is not None:
            self._counts[STREAMS].add((*key, account.ending.value))
        self._times[DURATION].observe(key, account.ended_at - account.opened_at)
        if account.longest_gap:  # it takes two events
            self._times[LONGEST_GAP].observe(key, account.longest_gap)
        if account.slowest_send:
            self._times[SLOWEST_SEND].observe(key, account.slowest_send)

    def _moment(self) -> Moment:
        with self._lock:
            return Moment(
                self._live.copy(),
                {named: dict(family.cells) for named, family in self._counts.items()},
                {
                    named: {key: cell.copy() for key, cell in family.cells.items()}
                    for named, family in self._times.items()
                },
            )


def numbers(account: Account) -> tuple[tuple[Named, int], ...]:
    """What only grows while a stream runs."""
    return (EVENTS, account.events), (BYTES, account.bytes), (PINGS, account.pings)


class Observers:
    """Several observers as one, told in the given order; what one raises is logged and the others are still told."""

    def __init__(self, *observers: StreamObserver) -> None:
        self._observers = observers

    def opened(self, account: Account) -> None:
        for observer in self._observers:
            self._tell(observer.opened, account)

    def first_event(self, account: Account) -> None:
        for observer in self._observers:
            self._tell(observer.first_event, account)

    def closed(self, account: Account) -> None:
        for observer in self._observers:
            self._tell(observer.closed, account)

    def _tell(self, call: Callable[[Account], None], account: Account) -> None:
        try:
            call(account)
        except Exception:
            log.exception("the observer's %s failed", getattr(call, "__qualname__", call))
