"""What an upstream's answer is, by its head and body."""

from __future__ import annotations

import pytest

from streamgate.errors import BadStatus, Empty, ErrorEvent, Fault, KeyRejected, Redirected, WrongContent
from streamgate.relay.answer import Kind, fault_of_json, fault_of_status, kind_of, valid_utf8


def headers(kind: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"server", b"x"), (b"content-type", kind)]


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (200, b"text/event-stream", Kind.EVENTS),
        (200, b"Text/Event-Stream ; charset=utf-8", Kind.EVENTS),
        (201, b"application/json", Kind.JSON),
        (200, b"application/json; charset=utf-8", Kind.JSON),
        (200, b"application/x-ndjson", Kind.BODY),
        (200, b"audio/mpeg", Kind.BODY),
        (200, b"text/html", WrongContent),
        (200, b"text/html; charset=utf-8", WrongContent),
        (204, b"", Kind.BODY),
        (301, b"text/event-stream", Redirected),
        (304, b"", Redirected),
        (400, b"text/html", Kind.ERROR),
        (503, b"text/event-stream", Kind.ERROR),
    ],
)
def test_kinds(status: int, content: bytes, kind: object) -> None:
    """By status, then by content type."""
    found = kind_of(status, headers(content), events_only=False)
    assert (type(found) if isinstance(found, Fault) else found) is kind


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (200, b"text/event-stream", Kind.EVENTS),
        (200, b"application/json", Kind.ERROR),
        (200, b"application/x-ndjson", WrongContent),
        (200, b"audio/mpeg", WrongContent),
        (200, b"text/html", WrongContent),
        (302, b"", Redirected),
        (404, b"application/json", Kind.ERROR),
    ],
)
def test_kinds_where_events_were_promised(status: int, content: bytes, kind: object) -> None:
    """After an early commit only events can be relayed; JSON is read for the error it may be."""
    found = kind_of(status, headers(content), events_only=True)
    assert (type(found) if isinstance(found, Fault) else found) is kind


def test_no_content_type() -> None:
    """A body of no kind is a body."""
    assert kind_of(200, [], events_only=False) is Kind.BODY
    assert isinstance(kind_of(200, [], events_only=True), WrongContent)


@pytest.mark.parametrize("status", [401, 403])
def test_our_own_key(status: int) -> None:
    """Refused, it is the operator's business; the client's own key is the client's."""
    said = b'{"error":"sk-secret"}'
    ours = fault_of_status(status, [], said, own_key=True)
    assert isinstance(ours, KeyRejected) and "secret" not in str(ours)
    theirs = fault_of_status(status, [], said, own_key=False)
    assert isinstance(theirs, BadStatus) and theirs.body == said


def test_statuses() -> None:
    """Status, headers, body and how long to wait are kept."""
    found = fault_of_status(429, [(b"retry-after", b"7")], b"x", own_key=True)
    assert isinstance(found, BadStatus)
    assert (found.answered, found.headers, found.body, found.retry_after) == (429, ((b"retry-after", b"7"),), b"x", 7.0)


def test_json_where_events_were_promised() -> None:
    """Its own words when it is an error, else that it cannot be relayed."""
    found = fault_of_status(200, [], b'{"error":{"message":"no","code":"x"}}', own_key=True)
    assert isinstance(found, ErrorEvent) and (found.said, found.said_code) == ("no", "x")
    assert isinstance(fault_of_status(200, [], b'{"choices":[]}', own_key=True), WrongContent)
    assert isinstance(fault_of_status(200, [], b"", own_key=True), Empty)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", Empty),
        (b" \r\n", Empty),
        (b'{"error":{"message":"no"}}', ErrorEvent),
        (b'{"error":"no"}', ErrorEvent),
        (b'{"error":null,"data":[]}', type(None)),
        (b'{"choices":[{"text":"an \\"error\\""}]}', type(None)),
        (b'{"choices":[],"x":{"error":1}}', type(None)),
        (b"[1]", type(None)),
    ],
)
def test_json(body: bytes, fault: type) -> None:
    """An answer, nothing, or an error that calls itself a success."""
    assert type(fault_of_json(body)) is fault


def test_valid_utf8() -> None:
    """What is valid is the same object; what is not becomes U+FFFD."""
    good = "data: żółw\n\n".encode()
    assert valid_utf8(good) is good
    assert valid_utf8(b"data: \xff\xc3(\n\n") == "data: \ufffd\ufffd(\n\n".encode()
