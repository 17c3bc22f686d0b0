"""Spans of real streams, through the SDK's in-memory exporter; and the trace context that goes up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from stage import DONE, ERROR, FINISH, Peer, Stage, delta

from streamgate.observe import semconv
from streamgate.observe.export import Pipeline
from streamgate.observe.sampling import Sampler
from streamgate.observe.traced import Traced
from streamgate.server import Server

pytestmark = pytest.mark.anyio

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"traceparent: 00-{TRACE}-{SPAN}-01"
Until = Callable[..., Awaitable[None]]


class Kept:
    """A gateway's tracing, and the spans it made."""

    def __init__(self, server: Server, until: Until, **sampler: Any) -> None:
        self._server = server
        self._until = until
        self._memory = InMemorySpanExporter()
        out = Pipeline(self._memory, log=structlog.get_logger())
        server.observer.tracing = self._tracing = Traced(out, Sampler(**({"share": 1.0} | sampler)))

    async def spans(self) -> list[ReadableSpan]:
        """Once every request is over: first the SERVER's, then the model's, then the tries'."""
        await self._until(lambda: not self._server.observer.live)
        await self._tracing.flush()
        return list(self._memory.get_finished_spans())


def words(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def sent(peer: Peer) -> dict[str, str]:
    lines = peer.head.decode().split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


async def finishing(peer: Peer) -> None:
    peer.stream(delta("a"), FINISH, DONE)
    peer.end()


async def test_a_stream_is_three_spans_in_one_trace(stage: Stage, until: Until):
    """SERVER, then the model's operation, then its HTTP attempt; each inside its parent, ids as they went up."""
    upstream = await stage.upstream(finishing)
    server = await stage.gateway(upstream)
    kept = Kept(server, until)
    client = await stage.chat(server)
    await client.head()
    await client.body()
    root, model, tried = await kept.spans()
    assert [(span.name, span.kind) for span in (root, model, tried)] == [
        ("POST /v1/chat/completions", SpanKind.SERVER),
        ("chat m", SpanKind.CLIENT),
        ("POST", SpanKind.CLIENT),
    ]
    assert root.parent is None and root.links == ()
    assert model.parent.span_id == root.context.span_id and tried.parent.span_id == model.context.span_id
    assert len({span.context.trace_id for span in (root, model, tried)}) == 1
    assert root.start_time <= model.start_time <= tried.start_time < tried.end_time <= model.end_time <= root.end_time
    parent = f"00-{root.context.trace_id:032x}-{tried.context.span_id:016x}-01"
    assert sent(upstream.peers[0])["traceparent"] == parent
    assert "tracestate" not in sent(upstream.peers[0])


async def test_a_completed_stream(stage: Stage, until: Until):
    """What its spans say, and that they say nothing that is not promised."""
    upstream = await stage.upstream(finishing)
    server = await stage.gateway(upstream)
    kept = Kept(server, until)
    client = await stage.chat(server)
    await client.head()
    await client.body()
    root, model, tried = await kept.spans()
    port = int(upstream.url.rpartition(":")[2])
    assert {span.status.status_code for span in (root, model, tried)} == {StatusCode.UNSET}
    said = words(root)
    assert said[semconv.OUTCOME] == "completed" and said[semconv.HTTP_STATUS] == 200
    assert said[semconv.HTTP_ROUTE] == said[semconv.URL_PATH] == "/v1/chat/completions"
    assert said[semconv.REQUEST_ID] == client.headers["x-request-id"]
    assert said[semconv.CHUNKS] == 3 and said[semconv.ATTEMPTS] == 1 and said[semconv.KEPT_FOR] == "ratio"
    said = words(model)
    assert said[semconv.OPERATION] == "chat" and said[semconv.PROVIDER] == "openai" and said[semconv.MODEL] == "m"
    assert said[semconv.STREAM] is True and said[semconv.FINISH_REASONS] == ["stop"]
    assert said[semconv.SERVER_ADDRESS] == "127.0.0.1" and said[semconv.SERVER_PORT] == port
    said = words(tried)
    assert said[semconv.URL_FULL] == f"{upstream.url}/v1/chat/completions" and said[semconv.HTTP_STATUS] == 200
    assert semconv.HTTP_RESEND not in said
    assert semconv.ERROR_TYPE not in words(root) | words(model) | words(tried)
    assert set(words(root)) <= set(semconv.SERVER_SPAN)
    assert set(words(model)) <= set(semconv.MODEL_SPAN)
    assert set(words(tried)) <= set(semconv.TRY_SPAN)


async def test_a_client_that_left(stage: Stage, until: Until):
    """Its spans are still made; nobody is to blame."""

    async def script(peer: Peer) -> None:
        peer.stream(delta("a"))
        await peer.closed()

    server = await stage.gateway(await stage.upstream(script))
    kept = Kept(server, until)
    client = await stage.chat(server)
    await client.head()
    await client.piece()
    client.reset()
    root, model, tried = await kept.spans()
    assert words(root)[semconv.OUTCOME] == "client_closed"
    assert words(root)[semconv.ERROR_TYPE] == semconv.CLIENT_DISCONNECT
    assert words(model)[semconv.FINISH_REASONS] == ["error"]
    assert {span.status.status_code for span in (root, model, tried)} == {StatusCode.UNSET}
    assert semconv.ERROR_TYPE not in words(model) | words(tried)


@pytest.mark.parametrize(
    ("last", "outcome", "error"),
    [(delta("b"), "truncated", "upstream_truncated"), (ERROR, "upstream_error", "upstream_error")],
)
async def test_a_stream_that_broke(stage: Stage, until: Until, last, outcome, error):
    """The status that was sent, and the error all the same, on all three."""

    begun = asyncio.Event()

    async def script(peer: Peer) -> None:
        peer.stream(delta("a"))
        await begun.wait()
        peer.chunk(last)
        await peer.close()

    server = await stage.gateway(await stage.upstream(script))
    kept = Kept(server, until, share=0.0)
    client = await stage.chat(server)
    await client.head()
    begun.set()
    await client.body()
    spans = await kept.spans()
    assert words(spans[0])[semconv.OUTCOME] == spans[0].status.description == outcome
    assert words(spans[0])[semconv.KEPT_FOR] == "broken" and words(spans[0])[semconv.HTTP_STATUS] == 200
    assert words(spans[1])[semconv.FINISH_REASONS] == ["error"]
    for span in spans:
        assert span.status.status_code is StatusCode.ERROR and words(span)[semconv.ERROR_TYPE] == error


async def test_every_try_is_a_span_and_a_context_of_its_own(stage: Stage, until: Until):
    """Two that failed, one that answered: two events, three spans, three contexts."""

    async def refusing(peer: Peer) -> None:
        peer.answer(503, b"{}", b"connection: close")
        await peer.close()

    bad, good = await stage.upstream(refusing), await stage.upstream(finishing)
    route = {"models": ["*"], "upstreams": ["up0", "up1"], "balance": "in_order"}
    server = await stage.gateway(bad, good, routes=[route])
    kept = Kept(server, until)
    client = await stage.chat(server)
    await client.head()
    await client.body()
    root, model, *tries = await kept.spans()
    assert words(root)[semconv.ATTEMPTS] == len(tries) > 1
    assert [words(tried).get(semconv.HTTP_RESEND, 0) for tried in tries] == list(range(len(tries)))
    assert words(tries[0])[semconv.ERROR_TYPE] == "503" and tries[0].status.status_code is StatusCode.ERROR
    assert tries[-1].status.status_code is model.status.status_code is StatusCode.UNSET
    assert [event.name for event in model.events][-1] == "failover"
    assert len(model.events) == len(tries) - 1
    assert dict(model.events[0].attributes) == {semconv.REASON: "error", semconv.UPSTREAM: "up0"}
    went_up = [sent(peer)["traceparent"] for peer in (*bad.peers, *good.peers)]
    assert went_up == [f"00-{root.context.trace_id:032x}-{tried.context.span_id:016x}-01" for tried in tries]


async def test_an_upstream_that_is_not_there(stage: Stage, until: Until):
    """No status came: none is invented."""
    upstream = await stage.upstream(finishing)
    url = upstream.url
    await upstream.__aexit__()
    server = await stage.gateway(url, retry={"attempts": 0})
    kept = Kept(server, until)
    client = await stage.chat(server)
    assert await client.head() == 502
    _, model, tried = await kept.spans()
    assert words(tried)[semconv.ERROR_TYPE] == words(model)[semconv.ERROR_TYPE] == "upstream_unreachable"
    assert semconv.HTTP_STATUS not in words(tried)


async def test_a_relayed_4xx_is_an_error_of_the_calls_but_not_of_the_server(stage: Stage, until: Until):
    """As the HTTP conventions have it."""

    async def script(peer: Peer) -> None:
        peer.answer(404, b'{"error":{"message":"no"}}')

    server = await stage.gateway(await stage.upstream(script))
    kept = Kept(server, until)
    client = await stage.chat(server)
    assert await client.head() == 404
    root, model, tried = await kept.spans()
    assert [span.status.status_code for span in (root, model, tried)] == [
        StatusCode.UNSET, StatusCode.ERROR, StatusCode.ERROR,
    ]  # fmt: skip
    assert words(model)[semconv.ERROR_TYPE] == words(tried)[semconv.ERROR_TYPE] == "404"
    assert words(root)[semconv.HTTP_STATUS] == 404


async def test_a_refused_request_is_one_span(stage: Stage, until: Until):
    """It says why; it is not broken, so only the share keeps it."""
    server = await stage.gateway(await stage.upstream(finishing))
    kept = Kept(server, until)
    client = await stage.client(server)
    client.post("/v1/chat/completions", {"messages": []})
    assert await client.head() == 400
    [root] = await kept.spans()
    assert words(root)[semconv.REFUSED] == "bad_request" and words(root)[semconv.HTTP_STATUS] == 400
    assert root.status.status_code is StatusCode.UNSET and semconv.OUTCOME not in words(root)


@pytest.mark.parametrize("trusted", [False, True])
async def test_a_clients_trace(stage: Stage, until: Until, trusted: bool):
    """Joined with its state when it is trusted; else a new trace that only links to it."""
    upstream = await stage.upstream(finishing)
    server = await stage.gateway(upstream)
    kept = Kept(server, until, trust_incoming=trusted)
    client = await stage.chat(server, "m", PARENT, "tracestate: a=b")
    await client.head()
    await client.body()
    root, *_ = await kept.spans()
    up = sent(upstream.peers[0])
    assert (f"{root.context.trace_id:032x}" == TRACE) is trusted
    assert re.fullmatch(f"00-{root.context.trace_id:032x}-[0-9a-f]{{16}}-01", up["traceparent"])
    assert up.get("tracestate") == ("a=b" if trusted else None)
    if trusted:
        assert f"{root.parent.span_id:016x}" == SPAN and root.parent.is_remote and root.links == ()
        assert root.context.trace_state.to_header() == "a=b" and words(root)[semconv.KEPT_FOR] == "parent"
    else:
        assert root.parent is None
        assert [f"{link.context.trace_id:032x}" for link in root.links] == [TRACE]


async def test_a_healthy_stream_that_is_not_sampled_has_no_spans(stage: Stage, until: Until):
    """Upstreams hear that it is not sampled, and the line names no trace."""
    upstream = await stage.upstream(finishing)
    with structlog.testing.capture_logs() as lines:
        server = await stage.gateway(upstream)
        kept = Kept(server, until, share=0.0)
        client = await stage.chat(server)
        await client.head()
        await client.body()
        assert await kept.spans() == []
    assert sent(upstream.peers[0])["traceparent"].endswith("-00")
    [line] = [line["fields"] for line in lines if line["event"] == "stream_finished"]
    assert line["trace_id"] is line["span_id"] is None


async def test_a_slow_stream_is_kept_whatever_the_share(stage: Stage, until: Until):
    """And its line says where to look."""
    gone_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await gone_on.wait()
        await finishing(peer)

    with structlog.testing.capture_logs() as lines:
        server = await stage.gateway(await stage.upstream(script))
        kept = Kept(server, until, share=0.0, slow=0.05)
        client = await stage.chat(server)
        asyncio.get_running_loop().call_later(0.1, gone_on.set)
        await client.head()
        await client.body()
        root, *_ = await kept.spans()
    assert words(root)[semconv.KEPT_FOR] == "slow"
    [line] = [line["fields"] for line in lines if line["event"] == "stream_finished"]
    assert (line["trace_id"], line["span_id"]) == (f"{root.context.trace_id:032x}", f"{root.context.span_id:016x}")


async def test_without_an_endpoint_a_clients_context_passes_as_it_came(stage: Stage):
    """A gateway that makes no spans is not a hop of the trace."""
    upstream = await stage.upstream(finishing)
    server = await stage.gateway(upstream)
    client = await stage.chat(server, "m", PARENT, "tracestate: a=b")
    await client.head()
    await client.body()
    up = sent(upstream.peers[0])
    assert (up["traceparent"], up["tracestate"]) == (PARENT.partition(": ")[2], "a=b")
