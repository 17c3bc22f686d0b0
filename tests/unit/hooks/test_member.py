"""One plugin as it is called: its budget, its breaker, and what its failures mean."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from streamgate.errors import PluginFailed
from streamgate.hooks import Abort, Plugin, Refuse
from streamgate.hooks import member as members
from streamgate.hooks.breaker import FAILURES, OPEN_FOR, State
from streamgate.hooks.member import SKIPPED, Garbage, Member
from streamgate.hooks.watchdog import Running
from streamgate.testing.harness import Books

pytestmark = pytest.mark.anyio


class Doing(Plugin):
    """Does in each hook what it is given."""

    def on_event(self, event, stream):
        return event(stream)

    def on_end(self, record):
        return record()

    async def on_open(self, head, stream):
        return await head()

    async def on_request(self, request, stream):
        return await request()


class Threaded(Doing):
    threaded = True


def block(seconds: float) -> None:
    """Stop the event loop, as a hook should not."""
    threading.Event().wait(seconds)


def raising(error):
    def call(*_):
        raise error

    return call


def given_back(answer, *_):
    return answer


class Stage:
    def __init__(self, monkeypatch, kind=Doing, **options) -> None:
        self.now = 1000.0
        self.books = Books()
        self.running = Running()
        self.member = Member("doing", kind(None, None), self.books, self.running, **options)
        monkeypatch.setattr(members, "monotonic", lambda: self.now)

    def event(self, call, check=given_back):
        return self.member.at_once("on_event", self.member.plugin.on_event, check, call, None)

    @property
    def reasons(self) -> list[str]:
        return [failure.reason for failure in self.books.failures]

    def takes(self, seconds: float):
        def call(*_):
            assert (self.running.plugin, self.running.hook, self.running.since) == ("doing", "on_event", self.now)
            self.now += seconds
            return "answer"

        return call


@pytest.fixture
def stage(monkeypatch):
    return Stage(monkeypatch)


def test_a_good_call(stage):
    """The answer, the time it took; nobody is marked as running afterwards."""
    assert stage.event(stage.takes(0.02)) == "answer"
    assert stage.member.took == pytest.approx(0.02)
    assert stage.running.plugin == "" and stage.books.failures == []


@pytest.mark.parametrize("error", [ValueError("private"), SystemExit(1), Refuse(400, "c", "m"), TimeoutError()])
def test_a_failure_is_passed_over(stage, error):
    """Whatever it raises, exits and refusals out of place included; the message, which may hold text, is not noted."""
    assert stage.event(raising(error)) is SKIPPED
    [failure] = stage.books.failures
    assert (failure.hook, failure.reason) == ("on_event", "error")
    assert type(error).__name__ in failure.detail and "private" not in failure.detail
    assert "test_member.py" in failure.detail


def test_a_failure_ends_the_stream_where_the_policy_says_so(monkeypatch):
    """`fail: closed`, of the configuration or of the plugin itself; the configuration's word is the last."""

    class Strict(Doing):
        fail = "closed"

    for kind, fail in ((Doing, "closed"), (Strict, None)):
        with pytest.raises(PluginFailed, match=r"doing\.on_event: error"):
            Stage(monkeypatch, kind, fail=fail).event(raising(ValueError()))
    assert Stage(monkeypatch, Strict, fail="open").event(raising(ValueError())) is SKIPPED
    assert Stage(monkeypatch).member.closed("on_request") and Stage(monkeypatch).member.closed("authenticate")


def test_an_answer_that_was_not_asked_for(stage):
    """Told apart from an error, with what it was."""

    def check(answer, *_):
        raise Garbage("int instead of str")

    assert stage.event(lambda _: 1, check) is SKIPPED
    assert stage.books.failures == [("on_event", "garbage", "int instead of str")]


def test_an_abort_is_no_failure(stage):
    """It is what the hook is for, and it heals the breaker."""
    stage.event(raising(ValueError()))
    with pytest.raises(Abort):
        stage.event(raising(Abort("stop")))
    assert stage.member.breaker.failures == 0


def test_the_breaker_opens_and_heals(stage):
    """After five failures it is not called; after a while one call is tried, and its success closes the breaker."""
    for _ in range(FAILURES):
        stage.event(raising(ValueError()))
    called = []
    assert stage.event(called.append) is SKIPPED
    assert called == [] and stage.member.took == 0.0
    stage.now += OPEN_FOR
    assert stage.event(lambda _: "well") == "well"
    assert stage.books.states == [State.OPEN, State.HALF_OPEN, State.CLOSED]
    assert len(stage.books.failures) == FAILURES


def test_an_open_breaker_of_a_strict_plugin(monkeypatch):
    """It is not passed over because it is broken."""
    stage = Stage(monkeypatch, fail="closed")
    for _ in range(FAILURES):
        with pytest.raises(PluginFailed):
            stage.event(raising(ValueError()))
    with pytest.raises(PluginFailed, match="breaker is open"):
        stage.event(lambda _: "never")


def test_a_hook_that_stops_the_loop(stage):
    """Its answer counts, and so does the stall; the third one opens the breaker."""
    for _ in range(3):
        assert stage.event(stage.takes(0.2)) == "answer"
    assert stage.reasons == ["stall"] * 3
    assert stage.books.states == [State.OPEN]
    assert stage.event(stage.takes(0.0)) is SKIPPED


def test_a_plain_hook_over_its_budget(stage):
    """It cannot be interrupted; it is counted."""
    assert stage.event(stage.takes(1.5)) == "answer"
    assert stage.reasons == ["timeout", "stall"]


async def test_an_async_hook(stage):
    """Awaited, and its time is not taken for a stall."""
    opened = asyncio.Event()

    async def waits():
        asyncio.get_running_loop().call_soon(opened.set)
        await opened.wait()
        stage.now += 0.5
        return "answer"

    stage.member.journal.failures.clear()
    assert await stage.member.call("on_open", given_back, waits, None) == "answer"
    assert stage.member.took == pytest.approx(0.5)


async def test_a_plain_hook_by_the_same_door(stage):
    """Called at once."""
    assert await stage.member.call("on_end", given_back, lambda: "x") == "x"


async def test_an_async_hook_over_its_budget(monkeypatch):
    """It is cancelled, and that is told apart from a TimeoutError of its own."""
    stage = Stage(monkeypatch, budget=0.01)
    cancelled = []

    async def forever():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    assert await stage.member.call("on_open", given_back, forever, None) is SKIPPED

    async def own():
        raise TimeoutError

    assert await stage.member.call("on_open", given_back, own, None) is SKIPPED
    assert stage.reasons == ["timeout", "error"] and cancelled == [True]


async def test_refusing_is_no_failure(stage):
    """Of on_request; on_open has nothing to refuse."""

    async def refuses():
        raise Refuse(429, "budget", "no")

    with pytest.raises(Refuse):
        await stage.member.call("on_request", given_back, refuses, None)
    assert await stage.member.call("on_open", given_back, refuses, None) is SKIPPED
    assert stage.reasons == ["error"]


async def test_an_async_hook_that_stops_the_loop(stage):
    """Each of its steps is measured; the longest is the stall."""

    async def blocks():
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop
        stage_clock()
        return "answer"

    def stage_clock():
        block(0.15)

    for _ in range(3):
        assert await stage.member.call("on_open", given_back, blocks, None) == "answer"
    assert stage.reasons == ["stall"] * 3
    assert await stage.member.call("on_open", given_back, blocks, None) is SKIPPED


async def test_a_threaded_hook_blocks_nobody(monkeypatch):
    """It runs in a worker thread while the loop goes on; over its budget its answer is nobody's."""
    stage = Stage(monkeypatch, Threaded)
    main, ticked = threading.get_ident(), threading.Event()
    asyncio.get_running_loop().call_soon(ticked.set)

    def waits():
        assert ticked.wait(5), "the loop did not go on"
        return threading.get_ident()

    assert await stage.member.call("on_end", given_back, waits) not in (main, SKIPPED)
    released = threading.Event()
    stage = Stage(monkeypatch, Threaded, budget=0.01)
    try:
        assert await stage.member.call("on_end", given_back, lambda: released.wait(5)) is SKIPPED
    finally:
        released.set()
    assert stage.reasons == ["timeout"]


async def test_the_breaker_bars_async_hooks_too(stage):
    """Without calling them."""
    for _ in range(FAILURES):
        stage.event(raising(ValueError()))
    assert await stage.member.call("on_open", given_back, None, None) is SKIPPED


async def test_a_client_that_leaves_is_no_failure(stage):
    """The cancellation goes through, and nothing is counted."""
    begun = asyncio.Event()

    async def forever():
        begun.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(stage.member.call("on_open", given_back, forever, None))
        await begun.wait()
        task.cancel()
    assert task.cancelled() and stage.books.failures == []


def test_time_itself_is_measured():
    """By the real clock: a call that takes a tenth of a second is a stall."""
    books = Books()
    member = Member("doing", Doing(None, None), books, Running())
    before = time.monotonic()
    member.at_once("on_event", member.plugin.on_event, given_back, lambda _: block(0.12), None)
    assert 0.1 <= member.took <= time.monotonic() - before
    assert [failure.reason for failure in books.failures] == ["stall"]
