"""The ready observers on real streams: uvicorn, a client, and a scrape of /metrics over HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from uvicorn import Config, Server

from streamgate.observe.sse import Observers, PrometheusObserver, TracingObserver
from streamgate.sse import Account, EventSourceResponse, StreamObserver

pytestmark = pytest.mark.anyio

PATIENCE = 5.0
Until = Callable[..., Awaitable[None]]
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


class Broken(Exception):
    """What the content of /broken raises."""


class Raising:
    """An observer that always fails."""

    def opened(self, account: Account) -> None:
        raise Broken("opened")

    def first_event(self, account: Account) -> None:
        raise Broken("first_event")

    def closed(self, account: Account) -> None:
        raise Broken("closed")


@dataclass
class Site:
    """An application whose streams are observed, its server, and what the observers saw."""

    server: Server
    url: str
    exporter: InMemorySpanExporter
    rooms: dict[str, asyncio.Queue[str | None]]
    client: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=PATIENCE))

    async def scraped(self, **headers: str) -> dict[tuple[str, ...], float]:
        """Every sample of `/metrics` by its name and its labels' values, the route first."""
        answer = await self.client.get(f"{self.url}/metrics", headers=headers)
        parse = parse_openmetrics if "openmetrics" in answer.headers["content-type"] else parse_text
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items(), reverse=True))): sample.value
            for family in parse(answer.text)
            for sample in family.samples
        }

    async def read(self, path: str) -> str:
        return (await self.client.get(f"{self.url}{path}")).text

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


class Application:
    """Streams of every kind, all with one observer."""

    def __init__(self, observer: Observers, registry: CollectorRegistry, tracer: trace.Tracer) -> None:
        self.rooms: dict[str, asyncio.Queue[str | None]] = {}
        self._observer = observer
        self._registry = registry
        self._tracer = tracer
        rooms = Mount("/in/{house}", routes=[Route("/rooms/{room}", self.room)])
        self._routes = Starlette(
            routes=[
                Route("/count/{n:int}", self.count),
                Route("/broken", self.broken),
                Route("/flood", self.flood),
                Route("/metrics", self.metrics),
                rooms,
            ]
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As an instrumented server does it: the request's span is the current one."""
        if scope["type"] != "http":
            await self._routes(scope, receive, send)
            return
        with self._tracer.start_as_current_span(f"GET {scope['path']}"):
            await self._routes(scope, receive, send)

    def metrics(self, request: Request) -> Response:
        """Not a coroutine: Starlette renders it in a thread, while streams run on the loop."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), media_type=content_type)

    async def count(self, request: Request) -> EventSourceResponse:
        return self._respond({"data": number} for number in range(request.path_params["n"]))

    async def room(self, request: Request) -> EventSourceResponse:
        said = self.rooms[request.path_params["room"]] = asyncio.Queue()

        async def heard() -> AsyncIterator[str]:
            while (item := await said.get()) is not None:
                yield item

        return self._respond(heard(), ping=float(request.query_params.get("ping", 0)))

    async def broken(self, request: Request) -> EventSourceResponse:
        async def breaks() -> AsyncIterator[str]:
            yield "one"
            raise Broken("in the content")

        return self._respond(breaks())

    async def flood(self, request: Request) -> EventSourceResponse:
        async def floods() -> AsyncIterator[bytes]:
            while True:
                yield b": " + b"x" * 65536 + b"\n\n"

        return self._respond(floods(), send_timeout=0.2)

    def _respond(self, content: Any, ping: float = 0, **options: Any) -> EventSourceResponse:
        return EventSourceResponse(content, ping=ping, observer=self._observer, **options)


@asynccontextmanager
async def serving(*others: StreamObserver) -> AsyncIterator[Site]:
    """The application on uvicorn, in the test's own loop."""
    registry, exporter = CollectorRegistry(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    observer = Observers(*others, PrometheusObserver(registry), TracingObserver(provider))
    application = Application(observer, registry, provider.get_tracer("server"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(Config(application, lifespan="off", log_config=None, access_log=False))
        site = Site(server, f"http://127.0.0.1:{listener.getsockname()[1]}", exporter, application.rooms)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            async with site.client:
                yield site
            server.should_exit = True
    provider.shutdown()


async def test_a_stream_is_seen_while_it_runs_and_after_it_ended():
    """Open with its events and bytes first, then ended, nothing counted twice; the label is the route's template."""
    route = "/in/{house}/rooms/{room}"
    async with serving() as site, site.client.stream("GET", f"{site.url}/in/big/rooms/kitchen") as answer:
        lines = answer.aiter_lines()
        for item in ("a", "b", "c"):
            site.rooms["kitchen"].put_nowait(item)
            assert await anext(lines) == f"data: {item}"
            assert await anext(lines) == ""
        running = await site.scraped()
        assert running["sse_streams_open", route] == 1
        assert running["sse_events_total", route] == 3
        assert running["sse_event_bytes_total", route] == 3 * len("data: a\r\n\r\n")
        assert running["sse_time_to_first_event_seconds_count", route] == 1
        assert ("sse_stream_duration_seconds_count", route) not in running
        site.rooms["kitchen"].put_nowait(None)
        assert [line async for line in lines] == []
        ended = await site.scraped()
    assert ended["sse_streams_open", route] == 0
    assert ended["sse_streams_total", route, "complete"] == 1
    assert ended["sse_events_total", route] == 3
    for name in ("time_to_first_event", "longest_gap", "stream_duration", "slowest_send"):
        assert ended[f"sse_{name}_seconds_count", route] == 1, name
    assert 0 < ended["sse_longest_gap_seconds_sum", route] <= ended["sse_stream_duration_seconds_sum", route]


async def test_pings_are_counted_while_a_stream_is_silent():
    """And are no events."""
    route = "/in/{house}/rooms/{room}"
    async with serving() as site, site.client.stream("GET", f"{site.url}/in/a/rooms/b?ping=0.05") as answer:
        lines = answer.aiter_lines()  # dropping it would close the connection
        assert (await anext(lines)).startswith(": ping")
        seen = await site.scraped()
        assert seen["sse_pings_total", route] >= 1
        assert seen["sse_events_total", route] == 0
        assert seen["sse_event_bytes_total", route] == 0


@pytest.mark.parametrize("path, route, ending", [
    ("/count/3", "/count/{n:int}", "complete"),
    ("/in/a/rooms/b", "/in/{house}/rooms/{room}", "client_disconnect"),
    ("/flood", "/flood", "send_timeout"),
    ("/broken", "/broken", "content_error"),
])  # fmt: skip
async def test_every_ending_is_counted_once(path, route, ending, until: Until):
    """Whoever ended the stream, one counter says so, and the stream is open no more."""

    async def ended() -> dict[tuple[str, ...], float]:
        seen = await site.scraped()
        return {key: value for key, value in seen.items() if key[0] == "sse_streams_total" and value}

    async with serving() as site:
        async with site.client.stream("GET", f"{site.url}{path}") as answer:
            if ending == "client_disconnect":
                site.rooms["b"].put_nowait("hello")
                assert await anext(answer.aiter_lines()) == "data: hello"
            elif ending == "send_timeout":
                await until(site.exporter.get_finished_spans)
            elif ending == "complete":
                await answer.aread()
            else:
                with pytest.raises(httpx.RemoteProtocolError):
                    await answer.aread()
        await until(lambda: any(name.startswith("sse") for name in site.spans()))
        assert await ended() == {("sse_streams_total", route, ending): 1}
        assert (await site.scraped())["sse_streams_open", route] == 0


async def test_a_shutdown_is_an_ending_of_its_own(until: Until):
    """The server's stop ends the streams, which the observers see before the server is gone."""
    async with serving() as site:
        async with site.client.stream("GET", f"{site.url}/in/a/rooms/b") as answer:
            site.rooms["b"].put_nowait("hello")
            lines = answer.aiter_lines()  # dropping it would close the connection
            assert await anext(lines) == "data: hello"
            site.server.should_exit = True
            await until(lambda: "sse /in/{house}/rooms/{room}" in site.spans())
        span = site.spans()["sse /in/{house}/rooms/{room}"]
    assert span.attributes and span.attributes["sse.ending"] == "shutdown"
    assert span.status.status_code is trace.StatusCode.UNSET


async def test_many_streams_at_once_add_up_in_every_scrape():
    """While a hundred streams open, run and end, no counter goes back; in the end nothing is missing."""
    streams, events = 100, 50
    route = "/count/{n:int}"
    seen: list[dict[tuple[str, ...], float]] = []

    async def scrape_until(done: anyio.Event) -> None:
        while not done.is_set():
            seen.append(await site.scraped())

    async with serving() as site, anyio.create_task_group() as scrapers:
        done = anyio.Event()
        scrapers.start_soon(scrape_until, done)
        bodies = await asyncio.gather(*(site.read(f"/count/{events}") for _ in range(streams)))
        done.set()
        last = await site.scraped()
        with anyio.fail_after(5):  # a client has its last byte before the server has counted the end
            while last["sse_streams_open", route]:
                last = await site.scraped()
    assert all(body.count("data:") == events for body in bodies)
    for earlier, later in zip(seen, [*seen[1:], last], strict=True):
        back = [key for key, value in earlier.items() if later[key] < value and key[0] != "sse_streams_open"]
        assert back == []
    assert last["sse_streams_total", route, "complete"] == streams
    assert last["sse_events_total", route] == streams * events
    assert last["sse_streams_open", route] == 0


async def test_openmetrics_is_understood_too():
    """The same numbers in the format that Prometheus asks for."""
    async with serving() as site:
        await site.read("/count/2")
        assert await site.scraped(**OPENMETRICS) == await site.scraped()


async def test_a_stream_is_a_span_inside_the_requests_span():
    """With its numbers, its first event, and no error."""
    async with serving() as site:
        await site.read("/count/3")
    spans = site.spans()  # when the server is through: the client has its answer before the spans are ended
    stream, request = spans["sse /count/{n:int}"], spans["GET /count/3"]
    assert stream.parent and stream.parent.span_id == request.context.span_id
    assert stream.attributes and stream.attributes["sse.events"] == 3
    assert stream.attributes["sse.ending"] == "complete"
    assert [event.name for event in stream.events] == ["sse.first_event"]
    assert stream.start_time and stream.end_time
    assert stream.attributes["sse.time_to_first_event"] <= (stream.end_time - stream.start_time) / 1e9 + 0.01


async def test_a_failed_stream_is_a_failed_span_with_its_exception():
    """The status the client saw was 200; the span tells what the access log cannot."""
    async with serving() as site:
        with pytest.raises(httpx.RemoteProtocolError):
            await site.read("/broken")
        span = site.spans()["sse /broken"]
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.attributes and span.attributes["error.type"].endswith("Broken")
    assert [event.name for event in span.events] == ["sse.first_event", "exception"]
    assert (span.events[1].attributes or {})["exception.message"] == "in the content"


async def test_an_observer_that_fails_costs_nothing_but_a_log_line(caplog: pytest.LogCaptureFixture):
    """The stream arrives whole, and the observers beside it saw it; the first of them fails at every call."""
    async with serving(Raising()) as site:
        assert (await site.read("/count/3")).count("data:") == 3
        assert (await site.scraped())["sse_events_total", "/count/{n:int}"] == 3
    failures = [line for line in caplog.records if line.name == "streamgate.observe.sse"]
    assert [str(line.exc_info[1]) for line in failures if line.exc_info] == ["opened", "first_event", "closed"]
