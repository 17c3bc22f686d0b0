"""Bytes to events, to the letter of the standard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from streamgate.sse.event import ServerSentEvent
from streamgate.sse.parser import EventStreamParser, EventTooLong, aiter_events, block_fields, iter_events

Fields = tuple[object, object, object, int | None]


def fields(events: list[ServerSentEvent]) -> list[Fields]:
    return [(event.data, event.event, event.id, event.retry) for event in events]


def data(*texts: str) -> list[Fields]:
    return [(text, None, None, None) for text in texts]


PARSED: list[tuple[bytes, list[Fields]]] = [
    (b"data: x\n\n", data("x")),
    (b"data: x\r\n\r\n", data("x")),
    (b"data: x\r\r", data("x")),
    (b"data: x\n\r\ndata: y\r\n\n", data("x", "y")),
    (b"data:x\n\n", data("x")),
    (b"data:  x\n\n", data(" x")),
    (b"data\n\n", data("")),
    (b"data:\n\n", data("")),
    (b"data: a\ndata: b\n\n", data("a\nb")),
    (b"data\ndata\n\n", data("\n")),
    (b"\xef\xbb\xbfdata: x\n\ndata: y\n\n", data("x", "y")),
    (b"data: x\n\n\xef\xbb\xbfdata: y\n\n", data("x")),  # a BOM is one only at the very start
    (b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", []),
    (b"\xef\xbb\xbf\n\ndata: x\n\n", data("x")),
    (b": comment\n\ndata: x\n\n:\n\n", data("x")),
    (b"data: a\n: comment\ndata: b\n\n", data("a\nb")),
    (b"event: e\nid: 7\nretry: 10\ndata: x\n\n", [("x", "e", "7", 10)]),
    (b"event: e\n\ndata: x\n\n", data("x")),  # no data, no event, and the name is forgotten
    (b"event: a\nevent: b\ndata: x\n\n", [("x", "b", None, None)]),
    (b"event:\ndata: x\n\n", [("x", "", None, None)]),
    (b"id: 1\ndata: x\n\ndata: y\n\n", [("x", None, "1", None), ("y", None, None, None)]),
    (b"id: a\x00b\ndata: x\n\n", data("x")),
    (b"id\ndata: x\n\n", [("x", None, "", None)]),
    (b"retry: 1a\ndata: x\n\nretry: -1\ndata: y\n\nretry:\ndata: z\n\n", data("x", "y", "z")),
    ("retry: ²\ndata: x\n\n".encode(), data("x")),
    (b"retry: " + b"9" * 5000 + b"\ndata: x\n\n", data("x")),
    (b"Data: x\n data: y\ndata : z\nnonsense\n\n", []),
    (b"data: \xff\xe2\x82 \xf0\x9f\x99\x82\n\n", data("\ufffd\ufffd 🙂")),
    ("data: a\u2028b\x85c\x0b\n\n".encode(), data("a\u2028b\x85c\x0b")),
    (b"data: a\x00b\n\n", data("a\x00b")),
    (b"data: x\n", []),  # not finished: not dispatched
    (b"data: x\n\ndata: y", data("x")),
    (b"", []),
]


@pytest.mark.parametrize(("stream", "events"), PARSED)
def test_parse(stream: bytes, events: list[Fields]) -> None:
    """The standard's events, for the bytes in one piece, and for each byte on its own."""
    assert fields(EventStreamParser().feed(stream)) == events
    single = EventStreamParser()
    parsed = [event for at in range(len(stream)) for event in single.feed(stream[at : at + 1])]
    assert fields(parsed) == events
    assert single.finish() == []


def test_what_outlives_an_event() -> None:
    """The last event id and the retry time stay, also when a block without data set them."""
    parser = EventStreamParser()
    parser.feed(b"id: 1\ndata: x\n\nid: 2\nretry: 5\n\nid: 3\n")
    assert (parser.last_event_id, parser.retry) == ("2", 5)
    parser.feed(b"\n")
    assert parser.last_event_id == "3"
    parser.feed(b"id\n\n")
    assert parser.last_event_id == ""


def test_parsed_events_end_their_lines_with_lf() -> None:
    """An event that is encoded again does not turn a stream of LF lines into CRLF lines."""
    (event,) = EventStreamParser().feed(b"id: 1\ndata: x\n\n")
    assert event.encode() == b"id: 1\ndata: x\n\n"


@pytest.mark.parametrize("rest", [b"data: x", b"data: x\n", b"data: x\r"])
def test_finish(rest: bytes) -> None:
    """An unfinished event is dropped at the end, unless it is asked for."""
    dropped, flushed = EventStreamParser(), EventStreamParser()
    assert dropped.feed(rest) == flushed.feed(rest) == []
    assert dropped.finish() == []
    assert fields(flushed.finish(flush=True)) == data("x")


def test_too_long() -> None:
    """One event's lines may hold so many bytes and no more, for every split; what came before it is not lost."""
    fits, exceeds = b"data: 34567890\n\n", b"data: 345678901\n\n"
    assert fields(EventStreamParser(14).feed(fits * 3)) == data(*["34567890"] * 3)
    for pieces in ([fits + exceeds], [fits, exceeds], [bytes([byte]) for byte in fits + exceeds]):
        events = iter_events(pieces, max_event=14)
        assert fields([next(events)]) == data("34567890")
        with pytest.raises(EventTooLong, match="larger than 14 bytes"):
            next(events)


def test_many_lines_are_too_long_together() -> None:
    """Endless lines of one event, comments among them, are bounded as one endless line is."""
    parser = EventStreamParser(100)
    with pytest.raises(EventTooLong):
        parser.feed(b"data:\n:\n" * 20)


def test_finish_counts_what_it_flushes_once() -> None:
    """An event that just fits can be flushed."""
    parser = EventStreamParser(7)
    parser.feed(b"data: x")
    assert fields(parser.finish(flush=True)) == data("x")


CHUNKS = [b"data: a\n\nda", b"ta: b\r", b"\n\r", b"\ndata: c"]


def test_iter_events() -> None:
    """All events of an iterable of chunks."""
    assert fields(list(iter_events(CHUNKS))) == data("a", "b")


@pytest.mark.anyio
async def test_aiter_events() -> None:
    """All events of an asynchronous iterable; the limit's error comes after the events before it."""

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in CHUNKS:
            yield chunk

    assert fields([event async for event in aiter_events(chunks())]) == data("a", "b")
    parsed = []
    with pytest.raises(EventTooLong):
        async for event in aiter_events(chunks(), max_event=6):
            parsed.append(event)  # noqa: PERF401 - what came before the error is the point
    assert parsed == []


@pytest.mark.anyio
async def test_aiter_events_before_the_error() -> None:
    """Events that were complete in the chunk that went too far are given out first."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"data: a\n\n" + b"data: much longer\n\n"

    events = aiter_events(chunks(), max_event=8)
    assert (await anext(events)).data == "a"
    with pytest.raises(EventTooLong):
        await anext(events)


def test_iter_events_is_lazy() -> None:
    """No chunk is asked for before the events of the last one are taken."""
    asked = []

    def chunks() -> Iterator[bytes]:
        for number in range(3):
            asked.append(number)
            yield b"data: x\n\ndata: y\n\n"

    events = iter_events(chunks())
    next(events), next(events)
    assert asked == [0]


BLOCKS = [
    (b"data: x\n\n", (b"", b"x")),
    (b"data:x\r\n\r\n", (b"", b"x")),
    (b"data:  x\n\n", (b"", b" x")),
    (b"data: a\rdata:b\r\r", (b"", b"a\nb")),
    (b"\xef\xbb\xbfdata: x\n\n", (b"", b"x")),
    (b": c\nevent: error\ndata\n\n", (b"error", b"")),
    (b"event:error\n\n", (b"error", None)),
    (b": only\n\n", (b"", None)),
    (b"\n", (b"", None)),
]


@pytest.mark.parametrize(("block", "expected"), BLOCKS)
def test_block_fields(block: bytes, expected: tuple[bytes, bytes | None]) -> None:
    """Name and data of one event's bytes, with whatever line ends, comments and fields it has."""
    assert block_fields(block) == expected
