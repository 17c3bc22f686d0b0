"""Events and their bytes."""

from __future__ import annotations

from enum import Enum

import pytest

from streamgate.sse.event import JSONServerSentEvent, ServerSentEvent, ensure_bytes


class Kind(str, Enum):  # noqa: UP042 - str() of a StrEnum would hide the trap
    """The way most code still spells a string enum."""

    TOKEN = "token"


ENCODED = [
    (ServerSentEvent("x"), b"data: x\r\n\r\n"),
    (ServerSentEvent(""), b"data: \r\n\r\n"),
    (ServerSentEvent(), b"\r\n"),
    (ServerSentEvent(7), b"data: 7\r\n\r\n"),
    (ServerSentEvent(b"x"), b"data: b'x'\r\n\r\n"),
    (ServerSentEvent({"a": 1}), b"data: {'a': 1}\r\n\r\n"),
    (ServerSentEvent("x", sep="\n"), b"data: x\n\n"),
    (ServerSentEvent("a\nb", sep="\r"), b"data: a\rdata: b\r\r"),
    (ServerSentEvent("a\r\nb\rc\nd", sep="\n"), b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
    (ServerSentEvent("\n", sep="\n"), b"data: \ndata: \n\n"),
    (ServerSentEvent("\r\r\n", sep="\n"), b"data: \ndata: \ndata: \n\n"),
    (ServerSentEvent("a\u2028b\x85c\x0bd\x0ce\x1cf", sep="\n"), "data: a\u2028b\x85c\x0bd\x0ce\x1cf\n\n".encode()),
    (
        ServerSentEvent("d", event="e", id="i", retry=3, comment="c", sep="\n"),
        b": c\nid: i\nevent: e\ndata: d\nretry: 3\n\n",
    ),
    (ServerSentEvent("d", event="", id="", sep="\n"), b"id: \nevent: \ndata: d\n\n"),
    (ServerSentEvent(comment="a\ndata: b", sep="\n"), b": a\n: data: b\n\n"),
    (ServerSentEvent(comment="a\r\nb\rc", sep="\n"), b": a\n: b\n: c\n\n"),
    (ServerSentEvent("d", event="a\r\ndata: b", id="1\n\r2\x00", sep="\n"), b"id: 12\nevent: adata: b\ndata: d\n\n"),
    (ServerSentEvent("d", id=7, event=8, sep="\n"), b"id: 7\nevent: 8\ndata: d\n\n"),
    (ServerSentEvent("d", event=Kind.TOKEN, sep="\n"), b"event: token\ndata: d\n\n"),
    (ServerSentEvent(retry=0, sep="\n"), b"retry: 0\n\n"),
    (ServerSentEvent("\ud83d\ude00 \ud83d", sep="\n"), "data: 😀 �\n\n".encode()),
    (ServerSentEvent("x", event="\udc00", sep="\n"), "event: �\ndata: x\n\n".encode()),
    (JSONServerSentEvent({"é": [1, None]}, sep="\n"), 'data: {"é":[1,null]}\n\n'.encode()),
    (JSONServerSentEvent("a\nb", id=1, event="e", retry=2, comment="c", sep="\n"), None),
    (JSONServerSentEvent(event="e", sep="\n"), b"event: e\n\n"),
]


@pytest.mark.parametrize(("event", "encoded"), ENCODED)
def test_encode(event: ServerSentEvent, encoded: bytes | None) -> None:
    """Each field is a line of its own, and nothing that a field holds can begin another one."""
    assert event.encode() == (encoded or b': c\nid: 1\nevent: e\ndata: "a\\nb"\nretry: 2\n\n')


@pytest.mark.parametrize("retry", [True, 1.5, "3"])
def test_retry_is_an_int(retry: object) -> None:
    """A retry that is no int is a TypeError, when the event is encoded and not before."""
    event = ServerSentEvent("x", retry=retry)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="retry argument must be int"):
        event.encode()


def test_retry_is_not_negative() -> None:
    """A negative retry is a ValueError: clients would ignore it."""
    with pytest.raises(ValueError, match="negative"):
        ServerSentEvent(retry=-1).encode()


@pytest.mark.parametrize("event", [ServerSentEvent("x", sep=""), ServerSentEvent("x", id=1, sep="\n\n")])
def test_sep_is_one_of_three(event: ServerSentEvent) -> None:
    """Only CRLF, LF and CR end a line."""
    with pytest.raises(ValueError, match="sep must be one of"):
        event.encode()


def test_nan_is_refused() -> None:
    """NaN is no JSON."""
    with pytest.raises(ValueError, match="JSON"):
        JSONServerSentEvent(float("nan"))


def test_attributes_are_assignable() -> None:
    """What is assigned before encoding counts; there is no room for other attributes."""
    event = ServerSentEvent("x")
    event.data, event.id, event.sep = "y", "5", "\n"
    assert event.encode() == b"id: 5\ndata: y\n\n"
    assert repr(event) == "ServerSentEvent(data='y', id='5', sep='\\n')"
    with pytest.raises(AttributeError):
        event.ident = 1  # type: ignore[attr-defined]


def test_default_separator_of_a_subclass() -> None:
    """A subclass may change the line end of all its events."""

    class LineFeed(ServerSentEvent):
        DEFAULT_SEPARATOR = "\n"

    assert LineFeed("x").encode() == b"data: x\n\n"


class Text(str):
    """A subclass of str, which the fast path leaves to the slow one."""

    __slots__ = ()


YIELDED: list[tuple[object, bytes]] = [
    (b"as it is", b"as it is"),
    (bytearray(b"raw"), b"raw"),
    ("x", b"data: x\n\n"),
    (Text("x"), b"data: x\n\n"),
    ("a\r\nb", b"data: a\ndata: b\n\n"),
    (None, b"data: None\n\n"),
    (5, b"data: 5\n\n"),
    (ServerSentEvent("x"), b"data: x\r\n\r\n"),
    ({"data": "x"}, b"data: x\n\n"),
    ({"data": "x", "event": "e", "sep": "\r"}, b"event: e\ndata: x\n\n"),
    ({}, b"\n"),
]


@pytest.mark.parametrize(("item", "sent"), YIELDED)
def test_ensure_bytes(item: object, sent: bytes) -> None:
    """Whatever an iterator yields has bytes; an event keeps its own line end, a dict takes the response's."""
    assert ensure_bytes(item, "\n") == sent


def test_ensure_bytes_does_not_copy() -> None:
    """Bytes and memoryviews pass as the objects they are, without validation."""
    raw, view = b"\xff", memoryview(b"x")
    assert ensure_bytes(raw, "\n") is raw
    assert ensure_bytes(view, "\n") == bytes(view)


def test_ensure_bytes_leaves_a_dict_alone() -> None:
    """What was given is not changed, and a key that is no field is a TypeError."""
    item = {"data": "x", "sep": "\r"}
    ensure_bytes(item, "\n")
    assert item == {"data": "x", "sep": "\r"}
    with pytest.raises(TypeError, match="colour"):
        ensure_bytes({"colour": 1}, "\n")


def test_ensure_bytes_checks_sep() -> None:
    """An empty line end would glue events together."""
    with pytest.raises(ValueError, match="sep must be one of"):
        ensure_bytes("x", "")
