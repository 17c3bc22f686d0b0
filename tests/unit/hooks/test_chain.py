"""Which plugins are called for a request, in what order, with what."""

from __future__ import annotations

import asyncio

import pytest

from streamgate.errors import BadStatus, ErrorEvent, PluginFailed, Reason, Refusal
from streamgate.hooks import (
    Answer,
    Headers,
    Identity,
    Plugin,
    Refuse,
    Request,
    RequestHead,
    ResponseHead,
    ServerSentEvent,
    UpstreamRequest,
)
from streamgate.hooks import chain as chains
from streamgate.hooks.breaker import FAILURES
from streamgate.hooks.chain import Plugins
from streamgate.hooks.ended import ended_of
from streamgate.hooks.faults import NotStarted
from streamgate.hooks.member import Member
from streamgate.hooks.watchdog import Running
from streamgate.record import COMPLETED, Ending, StreamRecord, Usage
from streamgate.testing.harness import Books

pytestmark = pytest.mark.anyio

HEAD = RequestHead(method="POST", path="/v1/completions", headers=Headers({"x-user": "ann"}))
REQUEST = Request(method="POST", path="/v1/completions", model="m", stream=True, headers=Headers(), json={"model": "m"})
CALL = UpstreamRequest(upstream="up", method="POST", path="/v1/completions", headers=Headers(), body=b"{}")
OPEN = ResponseHead(status=200, headers=Headers({"content-type": "text/event-stream"}))


class Asked(Plugin):
    """Answers each hook with what is set, or raises it."""

    def __init__(self, **answers) -> None:
        super().__init__(None, None)
        self.answers = answers
        self.given: list[object] = []

    def tell(self, hook, given):
        self.given.append(given)
        answer = self.answers.get(hook)
        if isinstance(answer, Exception):
            raise answer
        return answer(given) if callable(answer) else answer


class All(Asked):
    async def startup(self):
        self.tell("startup", "startup")

    def shutdown(self):
        self.tell("shutdown", "shutdown")

    def authenticate(self, head):
        return self.tell("authenticate", head)

    async def on_request(self, request, stream):
        return self.tell("on_request", request)

    def choose_upstream(self, names, stream):
        return self.tell("choose_upstream", names)

    def on_upstream_request(self, call, stream):
        return self.tell("on_upstream_request", call)

    def on_open(self, head, stream):
        return self.tell("on_open", head)

    def on_event(self, event, stream):
        return self.tell("on_event", event)

    async def on_end(self, record):
        return self.tell("on_end", record)


class Events(Asked):
    def on_event(self, event, stream):
        return self.tell("on_event", event)


def plugins(*given: Plugin, books: Books | None = None, **options) -> Plugins:
    books, running = books or Books(), Running()
    members = [Member(f"p{at}", plugin, books, running, **options) for at, plugin in enumerate(given)]
    return Plugins(members, books, running)


def stream(*given: Plugin, record: StreamRecord | None = None, **options):
    return plugins(*given, **options).stream(record or StreamRecord(1.0))


async def refused(awaitable) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await awaitable
    return caught.value


async def test_plugins_start_in_order_and_stop_in_reverse():
    """Those that never started are not shut down; a failing shutdown does not keep the others from theirs."""
    order = []
    first = All(startup=lambda _: order.append("a"), shutdown=lambda _: order.append("c"))
    second = All(startup=lambda _: order.append("b"), shutdown=RuntimeError("x"))
    both = plugins(first, second)
    await both.startup()
    await both.shutdown()
    await both.shutdown()
    assert order == ["a", "b", "c"]
    assert both.journal.failures == [("shutdown", "error", "RuntimeError")]


async def test_a_plugin_that_cannot_start():
    """It is told, and those before it are shut down."""
    first, second = All(), All(startup=RuntimeError("no file"))
    with pytest.raises(NotStarted, match="p1 cannot start: RuntimeError: no file"):
        await plugins(first, second).startup()
    assert first.given == ["startup", "shutdown"] and second.given == ["startup"]


async def test_a_plugin_that_does_not_start_in_time(monkeypatch):
    """A deadline, as for everything that is waited for."""

    class Forever(Plugin):
        async def startup(self):
            await asyncio.Event().wait()

    monkeypatch.setattr(chains, "STARTUP", 0.01)
    with pytest.raises(NotStarted, match="it took too long"):
        await plugins(Forever(None, None)).startup()


async def test_the_first_who_knows_says_who_is_asking():
    """None means: not mine; later plugins are not asked."""
    knows, never = All(authenticate=Identity(tenant="ann")), All()
    assert await plugins(All(), knows, never).authenticate(HEAD) == Identity(tenant="ann")
    assert never.given == []
    assert await plugins(All()).authenticate(HEAD) is None


async def test_authenticate_refuses_and_fails_closed():
    """401 as the plugin says it; 503 where it breaks; passed over only where that was asked for."""
    refusal = await refused(plugins(All(authenticate=Refuse(401, "who", "No."))).authenticate(HEAD))
    assert (refusal.reason, refusal.status, refusal.code) == (Reason.PLUGIN, 401, "who")
    for wrong in (ValueError(), "ann"):
        refusal = await refused(plugins(All(authenticate=wrong)).authenticate(HEAD))
        assert (refusal.status, refusal.code) == (503, "plugin_failed")
    assert await plugins(All(authenticate=ValueError()), fail="open").authenticate(HEAD) is None


async def test_each_gets_what_the_one_before_gave_back():
    """Requests, names, calls and heads; None leaves them."""
    changed = REQUEST.replaced(json={"model": "n"})
    first = All(
        on_request=changed,
        choose_upstream=reversed,
        on_upstream_request=lambda call: call.replaced(headers={"a": "1"}),
        on_open=lambda head: head.replaced(status=201),
    )
    second = All()
    hooks = stream(first, second)
    assert await hooks.request(REQUEST) is changed
    assert await hooks.upstreams(["a", "b"]) == ["b", "a"]
    assert (await hooks.upstream_request(CALL)).headers == {"a": "1"}
    assert (await hooks.head(OPEN)).status == 201
    assert second.given[0] is changed and second.given[1] == ["b", "a"]
    assert [hooks.view(member).request for member in hooks.members] == [REQUEST, changed]


async def test_a_plugin_may_answer_itself():
    """Later plugins are not asked; their event hooks see the answer, its own do not; all are told of the end."""
    answer = Answer(events=[ServerSentEvent("x")])
    before, own, after = All(), All(on_request=answer), All()
    hooks = stream(before, own, after)
    assert await hooks.request(REQUEST) is answer
    assert [member.plugin for member in hooks.chunked] == [after]
    assert after.given == []
    await hooks.ended()
    assert [len(plugin.given) for plugin in (before, own, after)] == [2, 2, 1]


async def test_a_request_is_refused():
    """By the plugin, or because it broke."""
    refusal = await refused(stream(All(on_request=Refuse(429, "budget", "Spent.", 3.0))).request(REQUEST))
    assert (refusal.status, refusal.code, refusal.retry_after) == (429, "budget", 3.0)
    refusal = await refused(stream(All(on_request=ValueError())).request(REQUEST))
    assert (refusal.status, refusal.code) == (503, "plugin_failed")
    assert await stream(All(on_request=ValueError()), fail="open").request(REQUEST) is REQUEST


async def test_a_strict_plugin_that_is_broken_refuses_early():
    """Better a 503 than a stream that breaks at its first event; once its breaker may try again, it does."""
    hooks = stream(Events(), fail="closed")
    [member] = hooks.members
    for _ in range(FAILURES):
        member.breaker.failed(chains.monotonic())
    assert (await refused(hooks.request(REQUEST))).code == "plugin_failed"
    member.breaker.until = chains.monotonic() - 1
    assert await hooks.request(REQUEST) is REQUEST
    hooks = stream(Events())
    for _ in range(FAILURES):
        hooks.members[0].breaker.failed(chains.monotonic())
    assert await hooks.request(REQUEST) is REQUEST


@pytest.mark.parametrize("answer", [["c"], ["a", "a"], "a", 7])
async def test_upstreams_that_were_not_offered(answer):
    """Counted, and passed over."""
    books = Books()
    assert await stream(All(choose_upstream=answer), books=books).upstreams(["a", "b"]) == ["a", "b"]
    assert [failure.reason for failure in books.failures] == ["garbage"]


async def test_no_upstream_left():
    """A refusal of its own reason."""
    refusal = await refused(stream(All(choose_upstream=[])).upstreams(["a"]))
    assert (refusal.reason, refusal.status) == (Reason.NO_UPSTREAM, 503)


GARBAGE = [
    ("request", "on_request", REQUEST, [
        7, Answer(status=99), Answer(headers={"a b": "c"}), Answer(headers={"a": "b\n"})
    ]),
    ("upstream_request", "on_upstream_request", CALL, [
        7, UpstreamRequest(upstream="other", method="POST", path="/v1/completions", headers=Headers(), body=b"{}"),
        UpstreamRequest(upstream="up", method="POST", path="/v1/completions", headers=Headers()),
        CALL.replaced(headers={"x": "a\r\nb: c"}),
    ]),
    ("head", "on_open", OPEN, [7, OPEN.replaced(status=101), OPEN.replaced(headers={"x": "\u20ac"})]),
]  # fmt: skip


@pytest.mark.parametrize("call, hook, given, answers", GARBAGE)
async def test_garbage_is_passed_over_or_ends_the_request(call, hook, given, answers):
    """As the policy says; what cannot be sent as a header is garbage, too."""
    for answer in answers:
        books = Books()
        assert await getattr(stream(All(**{hook: answer}), books=books, fail="open"), call)(given) is given
        assert [failure.reason for failure in books.failures] == ["garbage"]
        with pytest.raises((PluginFailed, Refusal)):
            await getattr(stream(All(**{hook: answer}), fail="closed"), call)(given)


async def test_a_good_changed_request_has_its_headers_judged():
    """They go to the upstream."""
    bad = REQUEST.replaced(headers={"x": "a\nb"})
    assert (await refused(stream(All(on_request=bad)).request(REQUEST))).code == "plugin_failed"


async def test_routes_decide_who_is_asked():
    """Until the route is known only plugins of all models; then those of its model, and among them those it names."""
    books, running = Books(), Running()
    everywhere, some = (
        Member("a", All(), books, running),
        Member("b", All(), books, running, routes=("llama-*", "g[1]")),
    )
    hooks = Plugins([everywhere, some], books, running).stream(StreamRecord(1.0))
    assert hooks.members == (everywhere,)
    hooks.routed("llama-3")
    assert hooks.members == (everywhere, some)
    hooks.routed("g[1]", ["b"])
    assert hooks.members == (some,)
    hooks.routed("g1")
    assert hooks.members == (everywhere,)


async def test_who_listens():
    """To events and text, and to the head."""
    hooks = stream(All(), Events())
    assert [member.name for member in hooks.chunked] == ["p0", "p1"]
    assert [member.name for member in hooks.opening] == ["p0"]


async def test_the_end_is_told_once_to_each():
    """Whatever one of them raises; what on_end answers with is of no use to anybody."""
    books = Books()
    first, second = All(on_end=ValueError()), All(on_end=7)
    hooks = stream(first, Events(), second, books=books, fail="closed")
    await hooks.ended()
    assert [len(first.given), len(second.given)] == [1, 1]
    assert [failure.reason for failure in books.failures] == ["error", "garbage"]
    assert books.seconds["on_end"] > 0


def record_of(**facts) -> StreamRecord:
    record = StreamRecord(100.0)
    for name, value in facts.items():
        setattr(record, name, value)
    return record


def test_an_ended_stream():
    """Its facts; times count from the request's first byte."""
    record = record_of(
        request_id="req", tenant="t", model="m", upstream="up", usage=Usage(1, 2), ending=COMPLETED, t_end=110.0,
        t_queued=101.0, t_leased=103.0, t_first=104.0, status=200, attempts=1, finish_reason="stop",
    )  # fmt: skip
    view = stream(Events(), record=record).view
    ended = ended_of(record, view)  # type: ignore[arg-type]
    assert (ended.outcome, ended.reason, ended.code, ended.usage) == ("completed", "", "", Usage(1, 2))
    assert (ended.duration, ended.queued, ended.first_token, ended.stream) == (10.0, 2.0, 4.0, view)


@pytest.mark.parametrize(
    "facts, said",
    [
        ({"refusal": Refusal(Reason.RATE, 429, "no", code="rate_limit")}, ("", "rate", "rate_limit")),
        ({"ending": Ending.by(ErrorEvent("no", code="oom"))}, ("upstream_error", "", "oom")),
        ({"ending": Ending.by(BadStatus(500, (), b""))}, ("upstream_error", "", "upstream_error")),
        ({}, ("internal_error", "", "internal_error")),
    ],
)
def test_how_it_ended(facts, said):
    """An outcome or a reason, and the code that the client read."""
    ended = ended_of(record_of(**facts), None)  # type: ignore[arg-type]
    assert (ended.outcome, ended.reason, ended.code) == said
    assert (ended.queued, ended.first_token) == (0.0, None) and ended.duration > 0
