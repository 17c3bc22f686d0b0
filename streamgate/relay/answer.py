"""What a try's answer is, decided from its head and, where needed, its body."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from streamgate.clock import wall
from streamgate.dialects.bodies import read_error
from streamgate.errors import BadStatus, Empty, ErrorEvent, Fault, KeyRejected, Redirected, Truncated, WrongContent
from streamgate.upstream.retry import retry_after

Headers = Sequence[tuple[bytes, bytes]]


class Kind(Enum):
    """How an answer is read."""

    NOTHING = "nothing"  # no head yet
    EVENTS = "events"
    JSON = "json"  # held while it may still be an error in disguise
    BODY = "body"
    ERROR = "error"  # a 4xx or 5xx, or JSON in place of promised events: its body is collected
    FAILED = "failed"  # this try is over; whatever else it says is not heard


def kind_of(status: int, headers: Headers, *, events_only: bool) -> Kind | Fault:
    """Read the head. `events_only`: the client was already promised events, so nothing else can be relayed."""
    if status >= 400:
        return Kind.ERROR
    if status >= 300:
        return Redirected(f"status {status}")
    content = _content_type(headers)
    if content == b"text/event-stream":
        return Kind.EVENTS
    if events_only and content == b"application/json":
        return Kind.ERROR  # too late to be an answer, but it may say what is wrong
    if events_only or content == b"text/html":
        return WrongContent(content.decode("latin-1")[:64])
    return Kind.JSON if content == b"application/json" else Kind.BODY


def fault_of_status(status: int, headers: Headers, body: bytes, *, own_key: bool) -> Fault:
    """A 4xx or 5xx. 401 and 403 for the gateway's own key are the operator's business, so the words are dropped."""
    if status < 400:
        return fault_of_json(body) or WrongContent("application/json")
    if own_key and status in (401, 403):
        return KeyRejected(f"status {status}")
    return BadStatus(status, tuple(headers), body, retry_after=retry_after(headers, wall()))


def fault_of_json(body: bytes) -> Fault | None:
    """A whole 2xx JSON body: an answer, nothing at all, a part of one, or an error that calls itself a success."""
    text = body.strip()
    if not text:
        return Empty()
    if text[:1] == b"{" and text[-1:] != b"}":  # a Content-Length that was too small
        return Truncated("a JSON object without its end")
    said = read_error(body) if b'"error"' in body else None
    return ErrorEvent(said[0], code=said[1]) if said is not None else None


def valid_utf8(frame: bytes) -> bytes:
    """What is not UTF-8 becomes U+FFFD: the output is always valid. Frames that are ASCII need not come here."""
    try:
        frame.decode()
    except UnicodeDecodeError:
        return frame.decode("utf-8", "replace").encode()
    return frame


def _content_type(headers: Headers) -> bytes:
    for name, value in headers:
        if name == b"content-type":
            return value.partition(b";")[0].strip().lower()
    return b""
