"""The harness for authors of plugins: a plugin against scripted streams, without a server."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import BaseModel

from streamgate.hooks import Identity, Plugin, Refuse, ServerSentEvent
from streamgate.hooks.loader import PluginError
from streamgate.testing import Delta, PluginHarness

pytestmark = pytest.mark.anyio


class Busy(Plugin):
    """Uses everything."""

    class Settings(BaseModel):
        word: str = "x"

    def __init__(self, settings, gateway):
        super().__init__(settings, gateway)
        self.hits = gateway.metrics.counter("hits_total", "Hits.", ("tenant",))
        self.waits_for = gateway.metrics.histogram("wait_seconds", "Waits.")
        self.began = gateway.now()
        self.began_at = gateway.wall()

    def authenticate(self, head):
        if "x-user" not in head.headers:
            raise Refuse(401, "who", "Who are you?", 3.0)
        return Identity(tenant=head.headers["x-user"])

    def on_request(self, request, stream):
        self.hits.inc(tenant=stream.tenant)
        if request.json.get("refuse"):
            raise Refuse(429, "budget", "Spent.")
        return request.replaced(json={**request.json, "word": self.settings.word})

    def choose_upstream(self, names, stream):
        return names[::-1]

    def on_upstream_request(self, call, stream):
        return call.replaced(headers={"x-word": self.settings.word})

    def on_end(self, record):
        for level in ("debug", "info", "warning", "error"):
            getattr(self.gateway.log, level)("ended", outcome=record.outcome)
        self.waits_for.observe(self.gateway.now() - self.began)


async def test_a_whole_request():
    """Every hook is called, and what became of the request can be looked at."""
    async with PluginHarness(Busy, {"word": "y"}) as gateway:
        received = await gateway.stream(["he", "llo"], tenant="ann", headers={"a": "b"}, split=7)
        gateway.ahead = 100.0
        assert gateway.plugin.gateway.wall() - gateway.plugin.began_at >= 100
        await gateway.answer("hello", body=b'{"choices":[{"message":{"content":"other"}}]}')
        assert gateway.metric("wait_seconds") >= 100
    assert received.text == "hello" and received.outcome == received.ended.outcome == "completed"
    assert received.request is not None and received.request.json["word"] == "y"
    assert received.request.headers["a"] == "b"
    assert list(received.upstreams) == ["second", "first"]
    assert received.upstream_request is not None
    assert (received.upstream_request.upstream, received.upstream_request.json["word"]) == ("second", "y")
    assert received.upstream_request.headers == {"x-word": "y"}
    assert gateway.metric("hits_total", tenant="ann") == 1 and gateway.metric("hits_total", tenant="bob") == 0
    assert [line[:2] for line in gateway.log.lines[:4]] == [
        ("debug", "ended"), ("info", "ended"), ("warning", "ended"), ("error", "ended"),
    ]  # fmt: skip
    assert gateway.failures == [] and gateway.books.seconds["on_end"] > 0


async def test_who_is_asking():
    """As the plugin says; a refusal as the plugin raised it."""
    async with PluginHarness(Busy) as gateway:
        assert await gateway.authenticate({"X-User": "ann"}) == Identity(tenant="ann")
        with pytest.raises(Refuse) as refused:
            await gateway.authenticate({})
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (401, "who", 3.0)


async def test_a_refused_request():
    """What the client would read, and the end that is told all the same."""
    async with PluginHarness(Busy) as gateway:
        received = await gateway.stream(["a"], json={"refuse": True})
    assert (received.status, received.outcome, received.ended.reason) == (429, "", "plugin")
    assert (received.code, received.message, received.json["error"]["code"]) == ("budget", "Spent.", "budget")


async def test_a_script_of_many_things():
    """Texts of several choices, events, bytes; each choice ends, and the stream."""
    async with PluginHarness(Busy) as gateway:
        event = ServerSentEvent('{"choices":[{"index":1,"text":"!"}]}')
        received = await gateway.stream(["a", Delta("b", 1), Delta("c", 0, "reasoning"), event, b": note\n\n"])
    assert received.texts() == {0: "a", 1: "b!"} and received.texts("reasoning") == {0: "c"}
    assert received.events[-1].data == "[DONE]"
    assert received.frames and received.body == b"".join(received.frames)


async def test_an_upstream_that_fails_its_last_hook():
    """A strict plugin that breaks before the upstream is asked: 503, as the relay says it."""

    class Broken(Plugin):
        fail = "closed"

        def on_upstream_request(self, call, stream):
            raise ValueError

    async with PluginHarness(Broken) as gateway:
        received = await gateway.stream(["a"])
    assert (received.status, received.code, received.body[:8]) == (503, "plugin_failed", b'{"error"')


async def test_an_upstream_without_an_answer():
    """Nothing came: an error with a status."""
    async with PluginHarness(Busy) as gateway:
        received = await gateway.stream([], ends=False)
    assert (received.outcome, received.status) == ("truncated", 502)


def test_settings_are_validated():
    """As `streamgate check` would."""
    with pytest.raises(PluginError, match="word"):
        PluginHarness(Busy, {"word": 7})


class Leaking(Plugin):
    def on_request(self, request, stream):
        self.task = asyncio.get_running_loop().create_task(asyncio.Event().wait())


async def test_a_leaked_task_is_found():
    """The stream goes well; leaving the harness tells, and ends the task."""
    with pytest.raises(AssertionError, match="tasks behind"):
        async with PluginHarness(Leaking) as gateway:
            gateway.patience = 0.01
            assert (await gateway.stream(["a"])).text == "a"
    assert gateway.plugin.task.cancelling()
    await asyncio.wait([gateway.plugin.task])


async def test_an_error_of_the_tests_own_comes_first():
    """A leaked task does not hide it."""
    with pytest.raises(KeyError):
        async with PluginHarness(Leaking) as gateway:
            gateway.patience = 0.01
            await gateway.stream(["a"])
            raise KeyError
    await asyncio.wait([gateway.plugin.task])


async def test_a_stuck_hook_is_a_failure():
    """As the watchdog names it."""
    async with PluginHarness(Busy) as gateway:
        gateway.books.stuck("plugin", "on_text", 2.0)
        assert gateway.failures == [("on_text", "stuck", "2.0 s")]
