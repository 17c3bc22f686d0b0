"""What hooks are given and give back."""

from __future__ import annotations

import json

import pytest

from streamgate.errors import Aborted, PluginFailed, Reason
from streamgate.hooks import (
    HOOKS,
    Answer,
    Headers,
    Plugin,
    Refuse,
    Request,
    ResponseHead,
    Stream,
    Text,
    UpstreamRequest,
    hooks_of,
)
from streamgate.hooks.faults import refusal_of
from streamgate.record import StreamRecord

REQUEST = Request(method="POST", path="/v1/completions", model="m", stream=True, headers=Headers({"A": "1"}))
CALL = UpstreamRequest(upstream="up", method="POST", path="/v1/completions", headers=Headers(), body=b'{"a":1}')


def test_headers_are_looked_up_in_any_case():
    """Names are in lower case, repeated ones joined, and their values are in no repr."""
    headers = Headers([("X-One", "1"), ("set-cookie", "a"), ("Set-Cookie", "b")])
    assert headers["X-ONE"] == "1" and headers["set-cookie"] == "a, b"
    assert list(headers) == ["x-one", "set-cookie"] and len(headers) == 2
    assert headers.pairs == (("x-one", "1"), ("set-cookie", "a"), ("set-cookie", "b"))
    assert repr(Headers({"authorization": "secret"})) == "Headers(authorization)"
    assert "x-two" not in headers


def test_headers_are_replaced_in_a_copy():
    """Set, or with None taken out."""
    headers = Headers({"a": "1", "b": "2"})
    assert dict(headers.replaced({"A": "3", "B": None, "c": None})) == {"a": "3"}
    assert dict(headers) == {"a": "1", "b": "2"}


def test_a_request_with_another_body():
    """Body, model and stream follow the JSON; a lone surrogate has bytes, too."""
    changed = REQUEST.replaced(json={"model": "n", "prompt": "\ud83d"})
    assert (changed.model, changed.stream) == ("n", False)
    assert json.loads(changed.body) == {"model": "n", "prompt": "\ud83d"}
    assert REQUEST.replaced(json={"model": 7}).model == ""
    assert REQUEST.replaced(headers={"a": None}).headers == {}
    assert REQUEST.replaced() is REQUEST


def test_an_upstream_request_with_another_body():
    """By bytes or by JSON; headers apart."""
    assert CALL.json == {"a": 1}
    assert CALL.replaced(json={"b": 2}).body == b'{"b":2}'
    assert CALL.replaced(body=b"x", headers={"y": "z"}) == UpstreamRequest(
        upstream="up", method="POST", path="/v1/completions", headers=Headers({"y": "z"}), body=b"x"
    )
    with pytest.raises(ValueError):
        CALL.replaced(body=b"").json  # noqa: B018


def test_a_response_head_with_other_headers():
    """Status and headers, either alone."""
    head = ResponseHead(status=200, headers=Headers({"a": "1"}))
    assert head.replaced(status=201) == ResponseHead(status=201, headers=Headers({"a": "1"}))
    assert head.replaced(headers={"a": None}).headers == {}


def test_an_answer_of_json():
    """With its content type."""
    answer = Answer.of_json({"a": 1}, status=202, headers={"x": "y"})
    assert (answer.status, answer.body) == (202, b'{"a":1}')
    assert answer.headers == {"content-type": "application/json", "x": "y"}


def test_a_refusal_has_the_status_of_one():
    """400 to 599; else it is a mistake of the plugin's."""
    with pytest.raises(ValueError, match="400 to 599"):
        Refuse(200, "code", "no")
    refusal = refusal_of(Refuse(429, "budget", "Too much.", 7.0, headers={"X-Left": "0"}))
    assert (refusal.reason, refusal.status, refusal.code, refusal.message, refusal.retry_after, refusal.headers) == (
        Reason.PLUGIN, 429, "budget", "Too much.", 7.0, ((b"x-left", b"0"),),
    )  # fmt: skip


def test_a_failed_plugin_tells_nobody_who_it_was():
    """The client reads that it was not at fault; the name is for the log."""
    refusal = refusal_of(PluginFailed("redact.on_text: error"))
    assert (refusal.status, refusal.code) == (503, "plugin_failed")
    assert "redact" not in refusal.message


def test_an_abort_in_the_plugins_words():
    """Its message and code are the client's."""
    fault = Aborted("Stop.", code="policy")
    assert (fault.said, fault.said_code, fault.retryable, fault.ejects) == ("Stop.", "policy", False, False)


def test_hooks_are_those_a_class_defines():
    """Its own and those it inherits, in the order of a stream's life."""

    class One(Plugin):
        def on_text(self, text: Text, stream: Stream) -> str:
            return text.pending

    class Two(One):
        async def startup(self) -> None: ...

    assert hooks_of(Plugin) == ()
    assert hooks_of(Two) == ("startup", "on_text")
    assert set(HOOKS) == {name for name in vars(Plugin) if name.startswith(("on_", "start", "shut", "auth", "choose"))}
    with pytest.raises(NotImplementedError):
        Plugin(None, None).on_text(Text(0, "content", "", True), None)  # type: ignore[arg-type]


def test_a_stream_shows_the_record():
    """As it is at the moment."""
    record = StreamRecord(1.0)
    stream = Stream(record)
    record.request_id, record.tenant, record.client, record.route = "req", "t", "1.2.3.4", "/v1/completions"
    record.model, record.upstream, record.attempts, record.events = "m", "up", 2, 3
    seen = (stream.id, stream.tenant, stream.client, stream.path, stream.model, stream.upstream, stream.attempts)
    assert (*seen, stream.events) == ("req", "t", "1.2.3.4", "/v1/completions", "m", "up", 2, 3)
    assert stream.state is None and stream.request is None
