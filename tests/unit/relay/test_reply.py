"""How an error reaches the client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamgate import errors
from streamgate.dialects.bodies import Family
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.dialects.plain import PLAIN_SSE
from streamgate.errors import BadStatus, ErrorEvent, Fault, Reason, Refusal
from streamgate.record import StreamRecord
from streamgate.relay.headers import own
from streamgate.relay.reply import refuse, tell, words_for

SECRET = "http://10.0.0.5:8000 sk-secret"


class Head:
    """As much of an outlet as a reply uses."""

    def __init__(self, *, started: bool = False) -> None:
        self.started = started
        self.status = 0
        self.headers: dict[bytes, bytes] = {}

    def start(self, status: int, headers: Any) -> None:
        self.status, self.headers = status, dict(headers)
        assert len(self.headers) == len(list(headers)), "a header twice"


def record() -> StreamRecord:
    made = StreamRecord(0.0)
    made.request_id = "r"
    return made


def told(problem: Refusal | Fault, family: Family = Family.OPENAI) -> tuple[Head, dict[str, Any]]:
    """What goes out before the first byte."""
    head, about = Head(), record()
    farewell = tell(problem, head, OPENAI_CHAT, family, about)  # type: ignore[arg-type]
    assert farewell.whole and farewell.words is not None
    assert head.headers[b"content-length"] == str(len(farewell.words)).encode()
    assert head.headers[b"content-type"] == b"application/json"
    assert head.headers.items() >= dict(own("r")).items()
    assert about.status == head.status
    return head, json.loads(farewell.words)


FAULTS = [fault for fault in vars(errors).values() if isinstance(fault, type) and issubclass(fault, Fault)]


@pytest.mark.parametrize("fault", [each for each in FAULTS if each not in (Fault, BadStatus)], ids=lambda f: f.__name__)
def test_every_fault(fault: type[Fault]) -> None:
    """Its status, code and message; never its detail. An error event says what the upstream or the plugin said."""
    head, body = told(fault(SECRET))
    assert head.status == fault.status
    assert body["error"]["code"] == fault.code
    if not issubclass(fault, ErrorEvent):
        assert body["error"]["message"] == fault.message
        assert "secret" not in json.dumps(body)


def test_an_error_event_without_words() -> None:
    """Says what every fault of an upstream says."""
    _, body = told(ErrorEvent(""))
    assert body["error"]["message"] == "The upstream failed."


def test_a_refusal() -> None:
    """Counted, with what it is about and when to come again, and its own headers."""
    refusal = Refusal(Reason.RATE, 429, "Slow down.", code="rate", param="p", retry_after=1.2, headers=((b"a", b"b"),))
    about = record()
    response = refuse(refusal, about, Family.OPENAI)
    assert (about.refusal, about.status, response.status_code) == (refusal, 429, 429)
    headers = dict(response.raw_headers)
    assert (headers[b"retry-after"], headers[b"retry-after-ms"], headers[b"a"]) == (b"2", b"1200", b"b")
    assert json.loads(bytes(response.body)) == {
        "error": {"message": "Slow down.", "type": "rate_limit_error", "param": "p", "code": "rate"}
    }


@pytest.mark.parametrize(("asked", "said"), [(0.0, b"0"), (-5.0, b"0"), (0.2, b"1"), (59.1, b"60"), (3600.0, b"60")])
def test_waiting(asked: float, said: bytes) -> None:
    """Whole seconds, at most 60: one SDK sleeps whatever it is told."""
    response = refuse(Refusal(Reason.RATE, 429, "No.", retry_after=asked), record(), Family.OPENAI)
    assert dict(response.raw_headers)[b"retry-after"] == said


def test_nothing_to_wait_for() -> None:
    """No header where waiting does not help."""
    response = refuse(Refusal(Reason.BAD_REQUEST, 400, "No."), record(), Family.OPENAI)
    assert b"retry-after" not in dict(response.raw_headers)


def test_draining() -> None:
    """A newcomer is told to come again, and to another place; so is a stream that was cut before its first byte."""
    refusal = Refusal(Reason.DRAINING, 503, "Bye.", code="gateway_draining", retry_after=1.0)
    headers = dict(refuse(refusal, record(), Family.OPENAI).raw_headers)
    assert (headers[b"connection"], headers[b"retry-after"]) == (b"close", b"1")
    for problem in (refusal, errors.Drained()):
        head, body = told(problem)
        assert body["error"]["code"] == "gateway_draining"
        assert (head.status, head.headers[b"retry-after"]) == (503, b"1")


@pytest.mark.parametrize("family", Family)
def test_families(family: Family) -> None:
    """Each SDK raises its own errors only for its own shape."""
    _, body = told(Refusal(Reason.NOT_FOUND, 404, "None."), family)
    match family:
        case Family.OPENAI:
            assert body["error"].keys() == {"message", "type", "param", "code"}
        case Family.ANTHROPIC:
            error = {"type": "not_found_error", "message": "None."}
            assert body == {"type": "error", "error": error, "request_id": "r"}
        case Family.OLLAMA:
            assert body == {"error": "None."}


def test_an_upstreams_own_error() -> None:
    """Passes with status, body and retry headers, as it came."""
    said = b'{"error": {"message":"no such model", "code":"nope"}}'
    headers = ((b"content-type", b"application/problem+json"), (b"retry-after", b"90"), (b"x-request-id", b"u"))
    fault = BadStatus(404, (*headers, (b"set-cookie", b"a")), said, retry_after=90.0)
    head, about = Head(), record()
    farewell = tell(fault, head, OPENAI_CHAT, Family.OPENAI, about)  # type: ignore[arg-type]
    assert (head.status, farewell.words) == (404, said)
    assert head.headers[b"content-type"] == b"application/json"
    assert head.headers[b"retry-after"] == b"90"
    assert head.headers[b"x-upstream-request-id"] == b"u"
    assert b"set-cookie" not in head.headers
    assert about.upstream_request_id == "u"


@pytest.mark.parametrize("said", [b"", b"<html>", b"[]", b'{"detail":null}', b'{"message":"x"}'])
def test_an_upstreams_page(said: bytes) -> None:
    """Keeps its status and gets our words."""
    head, body = told(BadStatus(503, (), said, retry_after=0.5))
    assert head.status == 503
    assert body["error"] == {
        "message": "The upstream answered with status 503.",
        "type": "server_error",
        "param": None,
        "code": "upstream_error",
    }
    assert (head.headers[b"retry-after"], head.headers[b"retry-after-ms"]) == (b"1", b"500")


def test_after_the_first_byte() -> None:
    """A known family: its event and a proper end. Another: `event: error`. No events at all: only no proper end."""
    about = record()
    known = tell(errors.Reset(SECRET), Head(started=True), OPENAI_CHAT, Family.OPENAI, about)  # type: ignore[arg-type]
    assert known.whole and known.words is not None and known.words.startswith(b'data: {"error":{')
    assert b"upstream_reset" in known.words and b"secret" not in known.words
    assert about.status == 200
    plain = tell(errors.Reset(), Head(started=True), PLAIN_SSE, Family.OPENAI, about)  # type: ignore[arg-type]
    assert not plain.whole and plain.words is not None and plain.words.startswith(b"event: error\n")
    body = tell(errors.Reset(), Head(started=True), None, Family.OPENAI, about)  # type: ignore[arg-type]
    assert not body.whole and body.words is None


def test_after_the_first_byte_the_status_stays() -> None:
    """The record keeps what the client was sent."""
    about = record()
    about.status = 201
    tell(errors.Reset(), Head(started=True), OPENAI_CHAT, Family.OPENAI, about)  # type: ignore[arg-type]
    assert about.status == 201


def test_words() -> None:
    """An upstream's status is told in its own words after the first byte, too."""
    words = words_for(BadStatus(404, (), b'{"error":{"message":"no such model","code":404}}'))
    assert (words.status, words.code, words.message) == (404, "404", "no such model")
