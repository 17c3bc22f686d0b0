"""Events and items as bytes, beside sse-starlette's.

Left out is what is done otherwise on purpose (docs/sse.md, "Differences"): ids and events that are no text or hold NUL,
a retry that is a bool or negative, a `sep` that is no line end, lone surrogates, bytearrays.

| rule | test |
| --- | --- |
| field order, one space, line ends, empty values, `sep` | test_events |
| data and comment split at CRLF, CR, LF only, empty lines kept | test_events, test_any_event |
| id and event lose CR and LF | test_events, test_any_event |
| data None / "" / not text; a str Enum as event and as data | test_events |
| retry must be int, at encode | test_retry |
| JSON: compact, not ASCII only, no NaN; None is no data line | test_json, test_any_json, test_json_that_is_none, test_no_json |
| ensure_bytes: bytes as they are, all else str | test_items, test_any_item |
| ... dicts with the response's sep, events with their own | test_dicts, test_events_keep_their_own_line_end |
| a dict is not changed; an unknown key is a TypeError | test_dict_is_left_alone, test_dict_that_is_no_event |
"""  # noqa: E501

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections import OrderedDict, UserString
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sse_starlette.event import JSONServerSentEvent as TheirJSON
from sse_starlette.event import ServerSentEvent as TheirEvent
from sse_starlette.event import ensure_bytes as their_bytes

from streamgate.sse import JSONServerSentEvent, ServerSentEvent, ensure_bytes

SEPS = ["\r\n", "\n", "\r"]


class Colour(str, enum.Enum):  # noqa: UP042 - str() of a StrEnum would hide the trap
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Milliseconds(int):
    """An int of one's own."""


class Text(str):
    """A str of one's own, with another `str()`."""

    __slots__ = ()

    def __str__(self):
        return "other"


class Pair(NamedTuple):
    a: int
    b: str


TEXTS = [
    *("x", "", " ", " x", "x ", ":", ": x", "\n", "\r", "\r\n", "\n\n", "\r\r", "\n\r", "\r\n\r\n", "a\nb", "a\rb"),
    *("a\r\nb", "\na", "a\n", "a\n\nb", "a\r\n\nb", "a\n\r\nb", "\r\na\r\n", "data: x", "a\ndata: b", "a\n\nevent: b"),
    *("a\u2028b", "a\u2029b", "a\x85b", "a\x0bb", "a\x0cb", "a\x1cb", "a\x1db", "a\x1eb", "a\tb", "\ufeffx", "a\ufeff"),
    *("é", "\u20ac", "😀", "\x7f", "\x01", "x" * 5000, "line\n" * 200, "[DONE]", '{"a":"b\\n"}'),
]
OBJECTS: list[Any] = [
    *(0, 1, -1, 10**30, 1.5, float("nan"), float("inf"), True, False, 1j, b"x", b"\xff", bytearray(b"x")),
    *([], [1, "a"], (), (1,), {}, {"a": 1}, {1}, frozenset(), None, Ellipsis, int, Colour.RED, Number.ONE, Text("x")),
    *(Pair(1, "b"), UserString("u\nv"), decimal.Decimal("1.10"), uuid.UUID(int=1), dt.date(2020, 1, 2)),
    *(ValueError("a\nb"), range(3), memoryview(b"x")[:0].nbytes),
]

EVENTS: list[dict[str, Any]] = [
    {},
    *({"data": text} for text in TEXTS),
    *({"data": each} for each in OBJECTS),
    *({"comment": text} for text in TEXTS),
    *({"comment": each} for each in OBJECTS),
    *({"event": text, "data": "x"} for text in TEXTS),
    *({"id": text, "data": "x"} for text in TEXTS),
    *({name: Colour.RED} for name in ("data", "event", "id", "comment")),
    *({name: Text("a\nb")} for name in ("data", "event", "id", "comment")),
    *({"retry": value} for value in (0, 1, 3000, 10**20, Number.ONE, Milliseconds(5))),
    {"data": "d", "event": "e", "id": "i", "retry": 3, "comment": "c"},
    {"data": "d\nD", "event": "e\nE", "id": "i\r\nI", "retry": 3, "comment": "c\rC"},
    {"retry": 3, "comment": ""},
    {"id": ""},
    {"event": ""},
    {"data": "", "comment": ""},
    {"data": None, "event": None, "id": None, "retry": None, "comment": None},
]


@pytest.mark.parametrize("sep", [None, *SEPS])
def test_events(sep):
    """The same bytes for each event of the table."""
    for fields in EVENTS:
        theirs = TheirEvent(**fields, sep=sep).encode()
        assert ServerSentEvent(**fields, sep=sep).encode() == theirs, fields


@pytest.mark.parametrize("sep", SEPS)
def test_dicts(sep):
    """The same bytes for each as a dict, whose own `sep` is overruled."""
    for fields in EVENTS:
        for each in (fields, fields | {"sep": "\n"}, fields | {"sep": "?"}, OrderedDict(fields)):
            assert ensure_bytes(each, sep) == their_bytes(each, sep), each


class Spoken:
    def __str__(self):
        return "spoken\nword"


ITEMS: list[Any] = [
    *(*TEXTS, *OBJECTS, Spoken(), b"", b"data: x\n\n", b"\xff\xfe", memoryview(b"m"), memoryview(b"abcd")[1:3]),
    memoryview(b"abcd").cast("H"),
    type("Bytes", (bytes,), {})(b"x"),
]


@pytest.mark.parametrize("sep", SEPS)
def test_items(sep):
    """The same bytes for whatever content may yield."""
    for item in ITEMS:
        if isinstance(item, bytearray) or item == {"a": 1}:  # theirs sends a repr; no event
            continue
        assert ensure_bytes(item, sep) == their_bytes(item, sep), item
        assert type(ensure_bytes(item, sep)) is bytes


@pytest.mark.parametrize("sep", SEPS)
def test_events_keep_their_own_line_end(sep):
    """CRLF if they have none of their own: the response's is not theirs."""
    for own in (None, *SEPS):
        ours, theirs = ServerSentEvent("a\nb", sep=own), TheirEvent("a\nb", sep=own)
        assert ensure_bytes(ours, sep) == their_bytes(theirs, sep)


JSON: list[Any] = [
    *({}, [], {"a": 1}, {"a": [1, 2.5, None, True]}, "a\nb", "", 0, 1.5, False, "é😀", "\u2028", {"é": "\x00"}),
    *({1: 2}, {None: 1}, {True: 1}, (1, 2), Colour.RED, Number.ONE, "</script>", '"', 10**30, 1e300, {"b": 1, "a": 2}),
]


@pytest.mark.parametrize("value", JSON, ids=repr)
def test_json(value):
    """Compact JSON, other alphabets as they are."""
    assert JSONServerSentEvent(value).encode() == TheirJSON(value).encode()
    fields: Any = {"event": "e", "id": "1", "retry": 2, "comment": "c", "sep": "\n"}
    assert JSONServerSentEvent(value, **fields).encode() == TheirJSON(value, **fields).encode()


def test_json_that_is_none():
    """None is no data line, and not `null`."""
    for fields in ({}, {"event": "e"}, {"comment": "c", "sep": "\n"}):
        ours, theirs = JSONServerSentEvent(None, **fields), TheirJSON(None, **fields)
        assert ours.encode() == theirs.encode()
        assert b"data" not in ours.encode()


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), [float("-inf")], {1j: 1}, object(), {1, 2}, b"x"],
    ids=lambda value: type(value).__name__ + str(value)[:4],
)
def test_no_json(value):
    """What is no JSON is refused at construction, with the same exception."""
    raised = []
    for kind in (TheirJSON, JSONServerSentEvent):
        with pytest.raises((ValueError, TypeError)) as caught:
            kind(value)
        raised.append((caught.type, str(caught.value)))
    assert raised[0] == raised[1]


@pytest.mark.parametrize("retry", ["1", 1.0, b"1", [1], object()])
def test_retry(retry):
    """A retry that is no int shows when the event is encoded, not before."""
    for event in (TheirEvent("x", retry=retry), ServerSentEvent("x", retry=retry)):
        with pytest.raises(TypeError, match=r"^retry argument must be int$"):
            event.encode()


@pytest.mark.parametrize(
    "item",
    [{"unknown": 1}, {"data": "x", "Data": "y"}, {1: 2}, {"self": 1}, {"line_end": "x"}, {"retry": "1"}],
    ids=repr,
)
def test_dict_that_is_no_event(item):
    """A key that is no field is a TypeError."""
    for function in (their_bytes, ensure_bytes):
        with pytest.raises(TypeError):
            function(item, "\n")


def test_dict_is_left_alone():
    """A dict may be sent again: nothing is put into it."""
    item = {"data": "x", "event": "e"}
    before = dict(item)
    assert ensure_bytes(item, "\n") == ensure_bytes(item, "\n") == their_bytes(item, "\n")
    assert item == before


anything = st.text(st.characters(exclude_categories=["Cs"]))
lines = st.text(st.sampled_from("ab:\r\n\u2028\x85\x0b\x0c\x1c\x1d\x1e é\ufeff"))
text = anything | lines
one_line = text.map(lambda value: value.replace("\0", ""))
fields = st.fixed_dictionaries(
    {},
    optional={
        "data": st.none() | text | st.integers() | st.floats() | st.lists(st.integers()),
        "event": st.none() | one_line,
        "id": st.none() | one_line,
        "retry": st.none() | st.integers(min_value=0),
        "comment": st.none() | text,
    },
)
seps = st.sampled_from(SEPS)


@given(fields, st.none() | seps)
def test_any_event(given_fields, sep):
    """The same bytes for any event."""
    assert ServerSentEvent(**given_fields, sep=sep).encode() == TheirEvent(**given_fields, sep=sep).encode()


@given(fields | text | st.integers() | st.floats() | st.none() | st.binary() | st.lists(text), seps)
def test_any_item(item, sep):
    """The same bytes for any item."""
    assert ensure_bytes(item, sep) == their_bytes(item, sep)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=10,
)


@given(values, fields.map(lambda each: {key: value for key, value in each.items() if key != "data"}))
def test_any_json(value, others):
    """The same bytes for any JSON value."""
    assert JSONServerSentEvent(value, **others).encode() == TheirJSON(value, **others).encode()
