"""Spans from a record: what the wire tests cannot easily provoke."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from streamgate.errors import Drained, FirstTokenTimeout, Internal, Killed, Reason, Refusal, Truncated
from streamgate.observe import semconv
from streamgate.observe.context import Incoming
from streamgate.observe.facts import Trace, Try, full_url
from streamgate.observe.sampling import Sampler
from streamgate.observe.spans import MOST_EVENTS, Maker
from streamgate.observe.traced import Traced
from streamgate.record import Ending, Outcome, StreamRecord, Usage

BASE = "http://10.0.0.5:8000"


def record(**more: object) -> StreamRecord:
    made = StreamRecord(100.0)
    made.method, made.route, made.model, made.stream = "POST", "/v1/chat/completions", "llama", True
    made.status, made.t_read, made.t_end = 200, 100.5, 109.0
    for name, value in more.items():
        setattr(made, name, value)
    return made


def trace(*upstreams: str, incoming: Incoming | None = None, trusted: bool = False) -> Trace:
    made = Trace(5, 6, 7, incoming, trusted=trusted)
    made.kept = "ratio"
    for count, upstream in enumerate(upstreams):
        tried = Try(10 + count, 101.0 + count, upstream, BASE)
        tried.until = 101.5 + count
        made.tries.append(tried)
    return made


def spans(
    found: StreamRecord, outcome: Outcome | None, of: Trace, convention: semconv.Convention = semconv.V1_41
) -> list[ReadableSpan]:
    return list(Maker(Resource.get_empty(), convention, "1").spans(of, found, outcome, 1000.0))


def ended(outcome: Outcome, fault: Exception | None = None, **more: object) -> list[ReadableSpan]:
    return spans(record(ending=Ending(outcome, fault), **more), outcome, trace("a"))


def error(span: ReadableSpan) -> tuple[object, StatusCode]:
    return (span.attributes or {}).get(semconv.ERROR_TYPE), span.status.status_code


@pytest.mark.parametrize(
    ("outcome", "fault", "server", "calls"),
    [
        (Outcome.COMPLETED, None, (None, StatusCode.UNSET), (None, StatusCode.UNSET)),
        (Outcome.CLIENT_CLOSED, None, ("client_disconnect", StatusCode.UNSET), (None, StatusCode.UNSET)),
        (Outcome.CLIENT_GAVE_UP, None, ("client_disconnect", StatusCode.ERROR), (None, StatusCode.UNSET)),
        (Outcome.SLOW_CLIENT, None, ("slow_client", StatusCode.UNSET), (None, StatusCode.UNSET)),
        (Outcome.KILLED, Killed(), ("killed", StatusCode.UNSET), (None, StatusCode.UNSET)),
        (Outcome.PLUGIN_ABORT, None, ("plugin_abort", StatusCode.UNSET), (None, StatusCode.UNSET)),
        (Outcome.DRAINED, Drained(), ("gateway_draining", StatusCode.ERROR), (None, StatusCode.UNSET)),
        (
            Outcome.TRUNCATED, Truncated(), ("upstream_truncated", StatusCode.ERROR),
            ("upstream_truncated", StatusCode.ERROR),
        ),
        (
            Outcome.TIMEOUT_FIRST_TOKEN, FirstTokenTimeout(), ("first_token_timeout", StatusCode.ERROR),
            ("first_token_timeout", StatusCode.ERROR),
        ),
        (
            Outcome.INTERNAL_ERROR, Internal("a secret"), ("internal_error", StatusCode.ERROR),
            ("internal_error", StatusCode.ERROR),
        ),
        (Outcome.INTERNAL_ERROR, None, ("internal_error", StatusCode.ERROR), (None, StatusCode.UNSET)),
    ],
)  # fmt: skip
def test_who_is_to_blame(outcome, fault, server, calls):
    """The server's span and the calls' each say it; nobody's words are in them."""
    made = ended(outcome, fault)
    assert error(made[0]) == server
    assert [error(span) for span in made[1:]] == [calls, calls]
    assert not [span for span in made if "secret" in f"{span.attributes}{span.status.description}"]


def test_a_stream_that_broke_before_an_ending_was_noted():
    """Our own bug: the calls are not blamed."""
    made = spans(record(ending=None), Outcome.INTERNAL_ERROR, trace("a"))
    assert error(made[0]) == ("internal_error", StatusCode.ERROR)
    assert error(made[1]) == (None, StatusCode.UNSET)


@pytest.mark.parametrize(
    ("reason", "status", "said", "expected"),
    [
        (Reason.AUTH, 401, 401, (None, StatusCode.UNSET)),
        (Reason.QUEUE_FULL, 503, 503, ("queue_full", StatusCode.ERROR)),
        (Reason.CLIENT_LEFT, 499, None, ("client_disconnect", StatusCode.UNSET)),
    ],
)
def test_a_refusal(reason, status, said, expected):
    """A 4xx is the client's business; one who left was told nothing."""
    found = record(refusal=Refusal(reason, status, "no"), status=status)
    [made] = spans(found, None, trace())
    assert error(made) == expected
    assert made.attributes[semconv.REFUSED] == reason.value
    assert made.attributes.get(semconv.HTTP_STATUS) == said


@pytest.mark.parametrize(
    ("method", "route", "name", "path"),
    [
        ("GET", "/v1/models", "GET /v1/models", "/v1/models"),
        ("GET", "/v1/models/{id}", "GET /v1/models/{id}", None),
        ("GET", "", "GET", None),
        ("BREW", "", "_OTHER", None),
    ],
)
def test_names_are_never_the_clients(method, route, name, path):
    """Known methods and known paths only."""
    [made] = spans(record(method=method, route=route), None, trace())
    assert made.name == name and made.attributes.get(semconv.URL_PATH) == path
    assert made.attributes[semconv.HTTP_METHOD] in (method, "_OTHER")


def test_times_are_the_records_on_the_wall():
    """Monotonic seconds plus what is between the two clocks."""
    root, model, tried = ended(Outcome.COMPLETED)
    assert (root.start_time, root.end_time) == (1100 * 10**9, 1109 * 10**9)
    assert (model.start_time, model.end_time) == (tried.start_time, tried.end_time) == (1101 * 10**9, 1101_500_000_000)


def test_a_try_that_never_said_it_was_over_ends_with_the_stream():
    """And no span ends before it began."""
    of = trace("a")
    of.tries[0].until = 0.0
    *_, tried = spans(record(ending=Ending(Outcome.COMPLETED)), Outcome.COMPLETED, of)
    assert tried.end_time == 1109 * 10**9
    [root] = spans(record(t_end=99.0), None, trace())
    assert root.end_time == root.start_time


def test_numbers_of_a_stream():
    """What happened is there, what did not is left out."""
    found = record(
        ending=Ending(Outcome.COMPLETED), usage=Usage(100, 20, 40, 10, 5), finish_reason="stop,length", t_chunk=103.0,
        t_leased=100.75, t_first=102.5, max_gap=0.25, tenant="team", upstream="a", upstream_request_id="u1",
    )  # fmt: skip
    root, model, _ = spans(found, Outcome.COMPLETED, trace("a"))
    said = dict(root.attributes)
    assert (said[semconv.QUEUE_MS], said[semconv.TTFT_MS], said[semconv.MAX_GAP_MS]) == (250.0, 2000.0, 250.0)
    assert (said[semconv.TENANT], said[semconv.UPSTREAM], said[semconv.UPSTREAM_REQUEST_ID]) == ("team", "a", "u1")
    assert semconv.OVERHEAD_MS not in said
    said = dict(model.attributes)
    assert said[semconv.FIRST_CHUNK] == 2.0 and said[semconv.FINISH_REASONS] == ["stop", "length"]
    assert (said[semconv.INPUT_TOKENS], said[semconv.OUTPUT_TOKENS], said[semconv.CACHED_TOKENS]) == (100, 20, 40)
    assert said[semconv.REASONING_TOKENS] == 5 and said[semconv.V1_41.cache_write] == 10


@pytest.mark.parametrize("convention", [semconv.V1_41, semconv.LATEST])
def test_the_two_conventions_differ_in_a_name_and_the_schema(convention):
    """And in nothing else."""
    found = record(ending=Ending(Outcome.COMPLETED), usage=Usage(1, 1, 0, 3, 0))
    root, model, _ = spans(found, Outcome.COMPLETED, trace("a"), convention)
    other = semconv.LATEST if convention is semconv.V1_41 else semconv.V1_41
    assert model.attributes[convention.cache_write] == 3 and other.cache_write not in model.attributes
    assert root.instrumentation_scope.schema_url == convention.schema_url


@pytest.mark.parametrize(
    ("setting", "opt_in", "version"),
    [
        ("1.41", "", "1.41"), ("latest", "", "latest"), ("1.41", "http, gen_ai_latest_experimental", "latest"),
        ("1.41", "http/dup", "1.41"),
    ],
)  # fmt: skip
def test_which_convention(setting, opt_in, version):
    """Either may ask for the latest."""
    assert semconv.convention(setting, opt_in).version == version


@pytest.mark.parametrize(
    ("route", "operation", "provider"),
    [
        ("/v1/chat/completions", "chat", "openai"), ("/v1/completions", "text_completion", "openai"),
        ("/v1/messages", "chat", "anthropic"), ("/v1/messages/count_tokens", "messages/count_tokens", "anthropic"),
        ("/api/chat", "chat", "ollama"), ("/api/show", "show", "ollama"),
        ("/v1/audio/speech", "audio/speech", "openai"),
        ("/tokenize", "tokenize", "openai"), ("/v1/embeddings", "embeddings", "openai"),
    ],
)  # fmt: skip
def test_operation_and_provider_are_told_by_the_path(route, operation, provider):
    """Well-known words where there are some."""
    assert (semconv.operation(route), semconv.provider(route)) == (operation, provider)


def test_only_generation_has_finish_reasons():
    """An embedding that failed expected none."""
    found = record(route="/v1/embeddings", model="", stream=False, ending=Ending(Outcome.TRUNCATED, Truncated()))
    _, model, _ = spans(found, Outcome.TRUNCATED, trace("a"))
    assert model.name == "embeddings" and semconv.FINISH_REASONS not in model.attributes


def test_events_are_bounded_and_name_what_came_next():
    """A retry stays, a failover goes elsewhere."""
    of = trace("a", "a", "b", *["b"] * 20)
    made = spans(record(ending=Ending(Outcome.COMPLETED)), Outcome.COMPLETED, of)
    assert [event.name for event in made[1].events][:3] == ["retry", "failover", "retry"]
    assert len(made[1].events) == MOST_EVENTS
    assert made[1].events[0].attributes == {semconv.REASON: "", semconv.UPSTREAM: "a"}
    assert made[1].events[0].timestamp == 1101_500_000_000


@pytest.mark.parametrize(
    ("base", "route", "url"),
    [
        (BASE, "/v1/chat/completions", f"{BASE}/v1/chat/completions"),
        (f"{BASE}/v1", "/v1/chat/completions", f"{BASE}/v1/chat/completions"),
        (f"{BASE}/v1", "/tokenize", f"{BASE}/v1/tokenize"),
    ],
)
def test_urls(base, route, url):
    """As the upstream's client makes them."""
    assert full_url(base, route) == url


class Out:
    dropped = 3

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.flushed = False

    def put(self, spans: list[ReadableSpan]) -> None:
        self.spans += spans

    async def flush(self, within: float) -> None:
        self.flushed = within > 0


@pytest.mark.anyio
async def test_the_whole_life_of_a_trace():
    """Ids at the start, spans at the end, nothing kept."""
    out = Out()
    tracing = Traced(out, Sampler(share=1.0), "latest", {})
    found = record()
    tracing.began(found, [])
    named = found.trace_id, found.span_id
    assert [len(each) for each in named] == [32, 16]
    headers = tracing.trying(found, "a", BASE, ((b"accept", b"*/*"),))
    assert headers[1][1].startswith(b"00-" + found.trace_id.encode())
    tracing.tried(found, 200, None)
    found.ending = Ending(Outcome.COMPLETED)
    tracing.ended(found, Outcome.COMPLETED)
    assert (found.trace_id, found.span_id) == named and len(out.spans) == 3
    assert tracing.dropped == 3 and not tracing._traces
    await tracing.flush()
    assert out.flushed


def test_a_bug_in_the_spans_is_lost_with_them(caplog: pytest.LogCaptureFixture):
    """Whoever ends the stream never hears of it."""
    out = Out()
    tracing = Traced(out, Sampler(share=1.0))
    found = record(ending=Ending(Outcome.COMPLETED))
    tracing.began(found, [])
    tracing.trying(found, "a", "http://[broken", ())
    tracing.tried(found, 0, None)
    tracing.ended(found, Outcome.COMPLETED)
    assert tracing.dropped == 4 and not out.spans
    assert [line.message for line in caplog.records] == ["no spans could be made"]


@pytest.mark.parametrize("state", [b"garbage", b"=,;", b"a=b," * 100, "\xe9=1".encode("latin-1"), b""])
def test_a_trusted_state_may_be_anything(state: bytes):
    """It is passed on unread, and what the SDK cannot read is left out of the spans."""
    out = Out()
    tracing = Traced(out, Sampler(trust_incoming=True))
    found = record()
    parent = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    tracing.began(found, [parent, (b"tracestate", state)])
    up = dict(tracing.trying(found, "a", BASE, ()))
    assert up.get(b"tracestate", b"") == state
    tracing.ended(found, None)
    assert len(out.spans) == 3


def test_who_we_are(monkeypatch: pytest.MonkeyPatch):
    """The standard variables win."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gate")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=i1,team=x")
    out = Out()
    tracing = Traced(out, Sampler(share=1.0))
    found = record()
    tracing.began(found, [])
    tracing.ended(found, None)
    said = out.spans[0].resource.attributes
    assert (said["service.name"], said["service.instance.id"], said["team"]) == ("gate", "i1", "x")
    assert "service.version" in said
