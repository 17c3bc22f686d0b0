"""What an event's fields become on the wire, and what a browser makes of them."""

# Each complaint, where it was made, and the tests that hold it.
# an integer id or event kills the stream (TypeError in re.sub)
#     integer_id_or_event
# a NUL in an id is sent: browsers then ignore the id (WHATWG HTML 9.2.6)
#     nul_in_an_id
# retry=True and retry=-1 are sent: browsers ignore them (WHATWG HTML 9.2.6)
#     retry_that_is
# half of a surrogate pair kills the stream (UnicodeEncodeError)
#     lone_surrogate
# a bytearray is sent as its repr
#     bytearray_is_sent
# the caller's dict is changed (fixed in sse-starlette)
#     dict_is_changed
# SSE injection through id, event, comment, data
# (dpskvn/express-sse#60, javalin/javalin#2579, nestjs/nest#16686, kennethreitz/responder#616,
# fanout/django-eventstream#185, fastapi/fastapi#15187, #15651)
#     field_injects
# other line ends split data that a browser does not split (str.splitlines)
#     unicode_line_ends
# an id does not come back as it was sent (WHATWG HTML 9.2.6)
#     id_does_not_come_back

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest
import sse_starlette
from complaints.client import Client, served

from streamgate.sse import EventSourceResponse, EventStreamParser, JSONServerSentEvent, ServerSentEvent, ensure_bytes
from streamgate.sse.request import last_event_id

Theirs = sse_starlette.ServerSentEvent


@dataclass
class Browser:
    """The event stream of the WHATWG HTML standard, 9.2.6, by the letter and for whole bodies only."""

    body: bytes
    last_event_id: str = ""
    retry: int | None = None
    events: list[tuple[str, str, str]] = field(default_factory=list)  # type, data, last event id

    def __post_init__(self) -> None:
        kind, data, mark = "", [], self.last_event_id
        *lines, _unfinished = re.split("\r\n|\r|\n", self.body.decode().removeprefix("\ufeff"))
        for line in lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                self.last_event_id = mark
                if data:
                    self.events.append((kind or "message", "\n".join(data), mark))
                kind, data = "", []
            elif name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "id" and "\0" not in value:
                mark = value
            elif name == "retry" and re.fullmatch("[0-9]+", value):
                self.retry = int(value)


@pytest.mark.parametrize(("field", "value"), [("id", 7), ("id", 0), ("event", 7), ("id", 1.5)])
def test_integer_id_or_event_kills_the_stream(field: str, value: object) -> None:
    """Ids are often a database's: what is no text is sent as its text."""
    for encoded in (ServerSentEvent("x", **{field: value}).encode(), ensure_bytes({"data": "x", field: value}, "\n")):
        kind, data, mark = Browser(encoded).events[0]
        assert (mark if field == "id" else kind, data) == (str(value), "x")
    with pytest.raises(TypeError):
        Theirs("x", **{field: value}).encode()  # type: ignore[arg-type]


class Kind(str, Enum):  # noqa: UP042 - as it was written before StrEnum
    TOKEN = "token"


def test_integer_id_or_event_kills_the_stream_but_names_keep_their_value() -> None:
    """The name of an event that is an enum of strings is its value."""
    assert Browser(ServerSentEvent("x", event=Kind.TOKEN).encode()).events == [("token", "x", "")]


def test_nul_in_an_id_is_sent() -> None:
    """A browser ignores an id with a NUL, and would come back with an older one: the NUL is left out."""
    assert Browser(ServerSentEvent("x", id="a\0b").encode()).last_event_id == "ab"
    assert b"\0" not in ServerSentEvent("x", event="a\0b").encode()
    assert Browser(Theirs("x", id="a\0b").encode()).last_event_id == ""


@pytest.mark.parametrize("retry", [True, False, -1, 1.0, "5"])
def test_retry_that_is_no_time_is_sent(retry: Any) -> None:
    """A retry that browsers would ignore is an error where it was made."""
    with pytest.raises((TypeError, ValueError)):
        ServerSentEvent("x", retry=retry).encode()
    with pytest.raises((TypeError, ValueError)):
        ensure_bytes({"data": "x", "retry": retry}, "\n")
    if retry in {True, False, -1} and type(retry) is not float:
        assert Browser(Theirs("x", retry=retry).encode()).retry is None


class Delay(int, Enum):
    SHORT = 250


@pytest.mark.parametrize("retry", [0, 3000, Delay.SHORT])
def test_retry_that_is_a_time_is_refused(retry: int) -> None:
    """Whole milliseconds from 0 on are sent as digits, an enum of integers too."""
    assert Browser(ServerSentEvent("x", retry=retry).encode()).retry == int(retry)


@pytest.mark.parametrize(
    ("text", "arrives"),
    [("a\ud83d", "a\ufffd"), ("\ude00b", "\ufffdb"), ("\ud83d\ude00", "😀"), ("\ud83d\n\ude00", "\ufffd\n\ufffd")],
)
def test_lone_surrogate_kills_the_stream(text: str, arrives: str) -> None:
    """Half an escape of a token cut in two becomes U+FFFD, two halves are joined; the stream goes on."""
    for item in (text, {"data": text}, ServerSentEvent(text)):
        assert Browser(ensure_bytes(item, "\n")).events == [("message", arrives, "")]
    one_line = text.replace("\n", "")
    for name in ("id", "event", "comment"):
        ServerSentEvent("x", **{name: one_line}).encode()
    JSONServerSentEvent({"token": text}).encode()
    with pytest.raises(UnicodeEncodeError):
        Theirs(text).encode()


def test_bytearray_is_sent_as_its_repr() -> None:
    """Bytes in whatever form are sent as they are."""
    for kind in (bytes, bytearray, memoryview):
        assert ensure_bytes(kind(b"data: x\n\n"), "\n") == b"data: x\n\n"
    assert b"bytearray" in sse_starlette.event.ensure_bytes(bytearray(b"data: x\n\n"), "\n")


@pytest.mark.anyio
async def test_dict_is_changed() -> None:
    """A dict that is yielded is the caller's, and may be yielded again to somebody else."""
    event = {"data": "x", "id": 1, "sep": "\r"}
    client = Client()
    assert await served(EventSourceResponse(iter([event, event]), sep="\n"), client) is None
    assert event == {"data": "x", "id": 1, "sep": "\r"}
    assert client.body == b"id: 1\ndata: x\n\n" * 2


ENDS = ("\n", "\r", "\r\n", "\n\n", "\r\r", "\r\n\r\n", "\n\r", "\0\n")
WORDS = ("data: evil", "event: evil", "id: evil", "retry: 1", ": evil", "evil")


def attacks() -> Iterator[str]:
    for end in ENDS:
        for words in WORDS:
            yield f"good{end}{words}"
            yield f"{end}{words}"
            yield f"{end}{end}{words}{end}{end}"


@pytest.mark.parametrize("name", ["id", "event", "comment", "data"])
@pytest.mark.parametrize("sep", ["\n", "\r", "\r\n"])
def test_field_injects_another(name: str, sep: str) -> None:
    """express-sse#60, javalin#2579, nest#16686, responder#616, django-eventstream#185, fastapi#15187, #15651.

    Whatever a field holds, a browser sees one event, and nothing in it that was not in its own field.
    """
    for attack in attacks():
        given = {"data": "good"} | {name: attack}
        for encoded in (ServerSentEvent(**given, sep=sep).encode(), ensure_bytes(given, sep)):
            browser = Browser(encoded)
            assert len(browser.events) == 1
            assert browser.retry is None
            flat = re.sub("[\r\n\0]", "", attack)
            kind, data, mark = browser.events[0]
            assert data == (re.sub("\r\n|\r", "\n", attack) if name == "data" else "good")
            assert mark == (flat if name == "id" else "")
            assert kind == (flat if name == "event" and flat else "message")


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\x1d", "\x1e"])
def test_unicode_line_ends_split_data(end: str) -> None:
    """A browser ends a line at CRLF, CR and LF only; so must the encoder, or the data changes on its way."""
    for item in (f"a{end}b", {"data": f"a{end}b"}, {"data": f"a{end}b", "id": f"c{end}d"}):
        kind, data, _ = Browser(ensure_bytes(item, "\r\n")).events[0]
        assert (kind, data) == ("message", f"a{end}b")


@pytest.mark.parametrize("id", ["42", 42, "größer", "😀", "a b", "x:y", " leading", ""])
def test_id_does_not_come_back_as_it_was_sent(id: Any) -> None:
    """What a browser sends in Last-Event-ID (UTF-8) is what the event's id was; none after an empty one."""
    encoded = ServerSentEvent("x", id=id).encode()
    browser = Browser(encoded)
    parsed = next(iter(EventStreamParser().feed(encoded)))
    assert parsed.id == browser.last_event_id == str(id)
    headers = [(b"last-event-id", browser.last_event_id.encode())] if browser.last_event_id else []
    assert last_event_id({"headers": headers}) == (str(id) or None)


def test_id_does_not_come_back_before_its_event_was_dispatched() -> None:
    """An id counts from the blank line on: a client that was cut within an event comes back with the one before."""
    cut = ServerSentEvent("x", id="1").encode() + ServerSentEvent("y", id="2").encode()[:-2]
    assert Browser(cut).last_event_id == "1"
    # An id alone is no event, yet it counts: a resume mark costs no event.
    assert Browser(ServerSentEvent(id="3").encode()).last_event_id == "3"
    assert Browser(ServerSentEvent("x", id="1").encode() + ServerSentEvent("y").encode()).last_event_id == "1"
