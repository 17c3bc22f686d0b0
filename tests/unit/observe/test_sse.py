"""Observers of the standalone response, told of accounts by hand; real ones: tests/wire/test_sse_observers.py."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI, Request
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route
from starlette.testclient import TestClient

from streamgate.observe.families import LABEL_SETS, OVERFLOW
from streamgate.observe.sse import Observers, PrometheusObserver, TracingObserver, route_template
from streamgate.observe.sse_spans import failed
from streamgate.sse.account import Account, Ending

ROOT = Path(__file__).parents[3]
FAILURES = {
    Ending.SEND_TIMEOUT, Ending.CONTENT_ERROR, Ending.ENCODE_ERROR, Ending.SEND_ERROR, Ending.CALLBACK_ERROR,
}  # fmt: skip


def account(path: str = "/numbers") -> Account:
    return Account({"type": "http", "path": path})


class Scope(dict):
    """A scope whose end can be seen."""


def by_path(scope):
    return scope["path"]


def sends_first(observer, stream: Account, after: float = 0.2) -> None:
    stream.events, stream.bytes = 1, 10
    stream.first_event_at = stream.last_event_at = stream.opened_at + after
    observer.first_event(stream)


def ends(observer, stream: Account, ending: Ending | None = Ending.COMPLETE, *, after: float = 3.0, error=None) -> None:
    stream.ending, stream.error, stream.ended_at = ending, error, stream.opened_at + after
    observer.closed(stream)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry) -> PrometheusObserver:
    return PrometheusObserver(registry, route=by_path)


# ---------------------------------------------------------------- Prometheus
def test_a_running_stream_is_open_and_its_numbers_move(registry, metrics):
    """Events, bytes and pings are seen before the stream ends; how it went only afterwards."""
    stream = account()
    metrics.opened(stream)
    stream.events, stream.bytes, stream.pings = 5, 50, 2
    said = {
        name: registry.get_sample_value(name, {"route": "/numbers"})
        for name in ("sse_streams_open", "sse_events_total", "sse_event_bytes_total", "sse_pings_total")
    }
    assert said == {"sse_streams_open": 1, "sse_events_total": 5, "sse_event_bytes_total": 50, "sse_pings_total": 2}
    assert registry.get_sample_value("sse_stream_duration_seconds_count", {"route": "/numbers"}) is None


def test_an_ended_stream_keeps_its_numbers(registry, metrics):
    """What was counted while it ran stays counted, once."""
    stream = account()
    metrics.opened(stream)
    sends_first(metrics, stream)
    stream.events, stream.bytes, stream.pings = 7, 70, 3
    ends(metrics, stream, Ending.CLIENT_DISCONNECT)
    labels = {"route": "/numbers"}
    assert registry.get_sample_value("sse_streams_open", labels) == 0
    assert registry.get_sample_value("sse_events_total", labels) == 7
    assert registry.get_sample_value("sse_event_bytes_total", labels) == 70
    assert registry.get_sample_value("sse_pings_total", labels) == 3
    assert registry.get_sample_value("sse_streams_total", labels | {"ending": "client_disconnect"}) == 1
    assert registry.get_sample_value("sse_stream_duration_seconds_sum", labels) == pytest.approx(3.0)


def test_every_ending_of_a_known_route_is_there_from_the_start(registry, metrics):
    """An alert on an increase needs the 0 before the 1."""
    metrics.opened(account())
    for ending in Ending:
        assert registry.get_sample_value("sse_streams_total", {"route": "/numbers", "ending": ending.value}) == 0


@pytest.mark.parametrize(
    "name, seconds, below, within",
    [
        ("sse_time_to_first_event_seconds", 0.2, "0.1", "0.25"),
        ("sse_longest_gap_seconds", 20.0, "15.0", "30.0"),
        ("sse_stream_duration_seconds", 3.0, "1.0", "5.0"),
        ("sse_slowest_send_seconds", 0.002, "0.001", "0.005"),
    ],
)
def test_times_fall_into_their_buckets(registry, metrics, name, seconds, below, within):
    """Each time is in its histogram once, at its place."""
    stream = account()
    metrics.opened(stream)
    sends_first(metrics, stream)
    stream.longest_gap, stream.slowest_send = 20.0, 0.002
    ends(metrics, stream)
    labels = {"route": "/numbers"}
    assert registry.get_sample_value(f"{name}_bucket", labels | {"le": below}) == 0
    assert registry.get_sample_value(f"{name}_bucket", labels | {"le": within}) == 1
    assert registry.get_sample_value(f"{name}_bucket", labels | {"le": "+Inf"}) == 1
    assert registry.get_sample_value(f"{name}_sum", labels) == pytest.approx(seconds)


def test_the_first_event_is_counted_when_it_is_sent(registry, metrics):
    """A dashboard must not wait for an hour's stream to end."""
    stream = account()
    metrics.opened(stream)
    sends_first(metrics, stream)
    assert registry.get_sample_value("sse_time_to_first_event_seconds_count", {"route": "/numbers"}) == 1
    ends(metrics, stream)
    assert registry.get_sample_value("sse_time_to_first_event_seconds_count", {"route": "/numbers"}) == 1


def test_a_stream_without_events_has_a_duration_and_no_other_time(registry, metrics):
    """Zeros for what never happened would spoil the percentiles."""
    stream = account()
    metrics.opened(stream)
    ends(metrics, stream)
    counted = {
        name: registry.get_sample_value(f"sse_{name}_seconds_count", {"route": "/numbers"})
        for name in ("time_to_first_event", "longest_gap", "stream_duration", "slowest_send")
    }
    assert counted == {
        "time_to_first_event": None, "longest_gap": None, "stream_duration": 1, "slowest_send": None,
    }  # fmt: skip


def test_a_stream_it_was_never_told_of_is_not_counted(registry, metrics):
    """The books balance: what was not opened does not end."""
    stranger = account()
    sends_first(metrics, stranger)
    ends(metrics, stranger)
    assert not [sample for family in registry.collect() for sample in family.samples]


def test_a_stream_that_ends_without_a_word_is_open_no_more(registry, metrics):
    """The ending is the response's to say; without one the rest is still counted."""
    stream = account()
    metrics.opened(stream)
    ends(metrics, stream, None)
    assert registry.get_sample_value("sse_streams_open", {"route": "/numbers"}) == 0
    assert registry.get_sample_value("sse_stream_duration_seconds_count", {"route": "/numbers"}) == 1


def test_a_closed_stream_is_not_kept(metrics):
    """Neither the account nor its scope, which holds the request."""
    scope = Scope(path="/numbers")
    gone = weakref.ref(scope)
    stream = Account(scope)
    del scope
    metrics.opened(stream)
    ends(metrics, stream)
    del stream
    assert gone() is None


def test_too_many_routes_are_counted_as_one(registry, metrics):
    """A label that a client can choose does not fill the memory."""
    for number in range(LABEL_SETS + 5):
        stream = account(f"/{number}")
        metrics.opened(stream)
        stream.events = 1
        ends(metrics, stream)
    labels = {sample.labels["route"] for family in registry.collect() for sample in family.samples}
    assert len(labels) == LABEL_SETS + 1
    assert registry.get_sample_value("sse_events_total", {"route": OVERFLOW}) == 5
    assert registry.get_sample_value("sse_streams_total", {"route": OVERFLOW, "ending": "complete"}) == 5


def test_a_route_that_is_no_text_does_not_spoil_the_scrape(registry):
    """One wrong label must not cost all the metrics."""
    PrometheusObserver(registry, route=len).opened(account())
    assert b'sse_streams_open{route="2"} 1.0' in generate_latest(registry)


@pytest.mark.parametrize(
    "namespace, name", [("sse", "sse_streams_open"), ("chat", "chat_streams_open"), ("", "streams_open")]
)
def test_the_namespace_is_the_prefix(registry, namespace, name):
    """The same metrics under another name."""
    PrometheusObserver(registry, namespace=namespace, route=by_path).opened(account())
    assert registry.get_sample_value(name, {"route": "/numbers"}) == 1


def test_two_of_a_namespace_in_one_registry_are_refused(registry, metrics):
    """Otherwise the scrape would hold every name twice, which Prometheus refuses as a whole."""
    PrometheusObserver(registry, namespace="other")
    with pytest.raises(ValueError, match="sse_streams"):
        PrometheusObserver(registry)


def test_without_a_registry_it_can_be_registered_later(registry):
    """`registry=None`, as the client library's own metrics have it."""
    metrics = PrometheusObserver(None, route=by_path)
    metrics.opened(account())
    registry.register(metrics)
    assert registry.get_sample_value("sse_streams_open", {"route": "/numbers"}) == 1


def test_both_formats_are_understood_by_their_parsers(registry, metrics):
    """Text and OpenMetrics, with a label that needs escaping."""
    stream = account('/a"b\\c\nd')
    metrics.opened(stream)
    sends_first(metrics, stream)
    ends(metrics, stream)
    metrics.opened(account())
    text = list(parse_text(generate_latest(registry).decode()))
    openmetrics = list(parse_openmetrics(generate_openmetrics(registry).decode()))
    assert [family.name for family in text] == [family.name for family in openmetrics]
    assert {sample.labels["route"] for family in text for sample in family.samples} == {'/a"b\\c\nd', "/numbers"}


def test_the_table_in_the_docstring_names_every_metric(registry, metrics):
    """Name, type and labels as they are exposed."""
    stream = account()
    metrics.opened(stream)
    sends_first(metrics, stream)
    stream.longest_gap = stream.slowest_send = 1.0
    ends(metrics, stream)
    rows = [line.split("|")[1:4] for line in (metrics.__doc__ or "").splitlines() if "`sse_" in line and "|" in line]
    promised = {name.strip(" `"): (kind.strip(), labels.strip()) for name, kind, labels in rows}
    exposed = {}
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = [label for label in family.samples[0].labels if label != "le"]
        exposed[name] = (family.type, ", ".join(labels))
    assert promised == exposed


@pytest.mark.timeout(30)
def test_scrapes_from_other_threads_see_every_counter_grow_only(registry, metrics):
    """While streams open, run and end, every scrape adds up and no counter goes back."""
    stop = threading.Event()
    wrong: list[str] = []

    def scrape() -> None:
        before: dict[tuple[str, str, str], float] = {}
        while not stop.is_set():
            now = {
                (sample.name, sample.labels.get("ending", ""), sample.labels.get("le", "")): sample.value
                for family in registry.collect()
                for sample in family.samples
            }
            wrong.extend(str(key) for key, value in before.items() if now[key] < value and "open" not in key[0])
            before = now

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    scrapers = [threading.Thread(target=scrape) for _ in range(2)]
    try:
        for thread in scrapers:
            thread.start()
        running = [account() for _ in range(20)]
        for stream in running:
            metrics.opened(stream)
        for _ in range(100):
            for stream in running:
                stream.events += 1
                stream.bytes += 10
            sends_first(metrics, fresh := account_in(metrics))
            ends(metrics, fresh)
        for stream in running:
            ends(metrics, stream)
    finally:
        stop.set()
        for thread in scrapers:
            thread.join()
        sys.setswitchinterval(interval)
    assert wrong == []
    assert registry.get_sample_value("sse_events_total", {"route": "/numbers"}) == 20 * 100 + 100
    assert registry.get_sample_value("sse_streams_open", {"route": "/numbers"}) == 0


def account_in(metrics: PrometheusObserver) -> Account:
    stream = account()
    metrics.opened(stream)
    return stream


# ---------------------------------------------------------------- the route
def template(request: Request) -> PlainTextResponse:
    return PlainTextResponse(route_template(request.scope))


async def bare(scope, receive, send) -> None:
    await PlainTextResponse(route_template(scope))(scope, receive, send)


def everything() -> FastAPI:
    """An application of every kind of nesting."""
    inner = APIRouter(prefix="/inner")
    inner.add_api_route("/rooms/{room}", template)
    outer = APIRouter(prefix="/outer/{name}")
    outer.include_router(inner, prefix="/mid")
    outer.mount("/mounted", Starlette(routes=[Route("/{x}", template)]))
    below = FastAPI()
    below.add_api_route("/direct/{x}", template)
    below.include_router(inner)
    app = FastAPI()
    app.include_router(outer, prefix="/api")
    app.add_api_route("/direct/{x}", template)
    deep = Mount("/deep/{d}", routes=[Route("/{n}", template), Mount("/bare", app=bare)])
    app.mount("/other", Starlette(routes=[Route("/{n}", template)]))
    app.mount("/sub/{m}", Starlette(routes=[Route("/leaf/{n:int}", template), deep]))
    app.mount("/below", below)
    app.mount(
        "/host", Starlette(routes=[Host("{h}", app=Starlette(routes=[Mount("/in", routes=[Route("/{x}", template)])]))])
    )
    app.mount("/bare", bare)
    return app


@pytest.mark.parametrize("root_path", ["", "/proxy"])
@pytest.mark.parametrize(
    "path, said",
    [
        ("/direct/1", "/direct/{x}"),
        ("/api/outer/1/mid/inner/rooms/2", "/api/outer/{name}/mid/inner/rooms/{room}"),
        ("/sub/1/leaf/2", "/sub/{m}/leaf/{n:int}"),
        ("/sub/1/deep/2/3", "/sub/{m}/deep/{d}/{n}"),
        ("/sub/1/deep/2/bare/4", "/sub/{m}/deep/{d}/bare"),
        ("/below/direct/1", "/below/direct/{x}"),
        ("/below/inner/rooms/1", "/below/inner/rooms/{room}"),
        ("/bare/1/2", "/bare"),
    ],
)
def test_a_route_is_its_template_with_all_mounts(path, said, root_path):
    """As the application declared it; no value of a parameter and no prefix of a proxy is in it."""
    assert TestClient(everything(), root_path=root_path).get(root_path + path).text == said


@pytest.mark.parametrize("path", ["/api/mounted/2", "/host/in/2"])
def test_what_hides_a_mount_costs_the_prefix_only(path):
    """A mount inside FastAPI's included router, or below a Host: the end of the template is still no raw path."""
    said = TestClient(everything()).get(path).text
    assert said.endswith("/{x}")
    assert not {"1", "2"} & set(said)


def test_without_a_router_there_is_no_route():
    """A bare ASGI application's path is whatever a client asks for."""
    assert TestClient(bare).get("/anything").text == "none"


@pytest.mark.parametrize("path, said", [("/sub/1/leaf/2", "/sub/{m}/leaf/{n:int}"), ("/bare", "/bare")])
def test_an_older_starlette_tells_the_endpoint_only(path, said):
    """Without `route` in the scope the template is found by the endpoint."""

    async def forgetful(scope, receive, send) -> None:
        scope.pop("route", None)
        await PlainTextResponse(route_template(scope))(scope, receive, send)

    class Leaf:
        def __init__(self, scope, receive, send) -> None:
            self._call = forgetful(scope, receive, send)

        def __await__(self):
            return self._call.__await__()

    sub = Mount("/sub/{m}", routes=[Route("/other", template), Route("/leaf/{n:int}", Leaf)])
    assert TestClient(Starlette(routes=[sub, Route("/bare", Leaf)])).get(path).text == said


# ---------------------------------------------------------------- spans
@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


@pytest.fixture
def spans(provider) -> TracingObserver:
    return TracingObserver(provider, route=by_path)


def test_a_stream_is_one_span_with_its_numbers(exporter, spans):
    """Name, attributes and the first event; nothing is set for a stream that went well."""
    stream = account()
    spans.opened(stream)
    sends_first(spans, stream)
    stream.events, stream.bytes, stream.pings, stream.longest_gap, stream.slowest_send = 3, 30, 1, 1.5, 0.25
    ends(spans, stream)
    (span,) = exporter.get_finished_spans()
    assert span.name == "sse /numbers"
    assert dict(span.attributes) == {
        "http.route": "/numbers",
        "sse.events": 3,
        "sse.bytes": 30,
        "sse.pings": 1,
        "sse.ending": "complete",
        "sse.time_to_first_event": pytest.approx(0.2),
        "sse.longest_gap": 1.5,
        "sse.slowest_send": 0.25,
    }
    assert [event.name for event in span.events] == ["sse.first_event"]
    assert span.status.status_code is trace.StatusCode.UNSET


def test_a_stream_is_the_child_of_the_span_around_it(exporter, provider, spans):
    """The server's span, usually; and the stream's own does not become the current one."""
    stream = account()
    with provider.get_tracer("server").start_as_current_span("GET /numbers") as server:
        spans.opened(stream)
        assert trace.get_current_span() is server
    ends(spans, stream)
    span = next(span for span in exporter.get_finished_spans() if span.name.startswith("sse"))
    assert span.parent == server.get_span_context()


@pytest.mark.parametrize("ending", list(Ending))
def test_only_failures_are_errors(exporter, spans, ending):
    """Whoever looks for errors does not find clients that left."""
    stream = account()
    spans.opened(stream)
    ends(spans, stream, ending)
    (span,) = exporter.get_finished_spans()
    assert span.attributes["sse.ending"] == ending.value
    assert (span.status.status_code is trace.StatusCode.ERROR) == (ending in FAILURES) == failed(ending)
    assert span.attributes.get("error.type") == (ending.value if ending in FAILURES else None)


@pytest.mark.parametrize(
    "error, kind", [(ValueError("broken"), "ValueError"), (subprocess.SubprocessError(), "subprocess.SubprocessError")]
)
def test_a_failure_carries_its_exception(exporter, spans, error, kind):
    """Type as an attribute, message and trace as the exception event; the status says only how it ended."""
    stream = account()
    spans.opened(stream)
    ends(spans, stream, Ending.CONTENT_ERROR, error=error)
    (span,) = exporter.get_finished_spans()
    assert span.status.description == "content_error"
    assert span.attributes["error.type"] == kind
    (event,) = span.events
    assert event.attributes["exception.type"] == kind
    assert event.attributes["exception.message"] == str(error)


def test_a_span_that_is_not_sampled_is_not_exported(exporter):
    """The sampler decides; the observer goes by it."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = TracingObserver(provider, route=by_path)
    stream = account()
    spans.opened(stream)
    sends_first(spans, stream)
    ends(spans, stream, Ending.CONTENT_ERROR, error=ValueError())
    assert exporter.get_finished_spans() == ()


def test_a_span_is_made_only_of_a_stream_it_was_told_of(exporter, spans):
    """No opening, no span; and nothing raises."""
    stranger = account()
    sends_first(spans, stranger)
    ends(spans, stranger)
    assert exporter.get_finished_spans() == ()


def test_without_an_sdk_nothing_happens():
    """The API alone does nothing, and does not complain."""
    spans = TracingObserver(trace.NoOpTracerProvider())
    stream = account()
    spans.opened(stream)
    sends_first(spans, stream)
    ends(spans, stream)


# ---------------------------------------------------------------- several
class Told:
    """Remembers what it was told, and raises when it was made to."""

    def __init__(self, order: list[str], name: str, error: BaseException | None = None) -> None:
        self._order = order
        self._name = name
        self._error = error

    def _hear(self, what: str) -> None:
        self._order.append(f"{self._name} {what}")
        if self._error is not None:
            raise self._error

    def opened(self, account: Account) -> None:
        self._hear("opened")

    def first_event(self, account: Account) -> None:
        self._hear("first_event")

    def closed(self, account: Account) -> None:
        self._hear("closed")


def test_all_are_told_in_their_order_though_one_fails(caplog):
    """What one raises is logged, and hides the others nothing."""
    order: list[str] = []
    observers = Observers(Told(order, "a"), Told(order, "b", ValueError("broken")), Told(order, "c"))
    stream = account()
    with caplog.at_level(logging.ERROR):
        observers.opened(stream)
        sends_first(observers, stream)
        ends(observers, stream)
    assert order == [f"{name} {what}" for what in ("opened", "first_event", "closed") for name in "abc"]
    assert [line.getMessage() for line in caplog.records] == [
        f"the observer's Told.{what} failed" for what in ("opened", "first_event", "closed")
    ]
    assert all(line.exc_info and str(line.exc_info[1]) == "broken" for line in caplog.records)


def test_an_exit_is_not_swallowed():
    """Ctrl-C in the middle of an observer is no failure of the observer's."""
    with pytest.raises(KeyboardInterrupt):
        Observers(Told([], "a", KeyboardInterrupt())).opened(account())


# ---------------------------------------------------------------- imports
def test_the_library_does_not_load_metrics_or_spans():
    """Only who imports `streamgate.observe.sse` pays for them."""
    code = "import streamgate.sse, streamgate.sse.account, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"prometheus_client", "opentelemetry", "streamgate.observe"} & set(done.stdout.split())
