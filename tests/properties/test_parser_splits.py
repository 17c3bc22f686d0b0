"""The parser answers the same for every split."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streamgate.sse.event import ServerSentEvent
from streamgate.sse.parser import EventStreamParser, EventTooLong

ENDS = (b"\n", b"\r", b"\r\n", b"\n\n")
FIELDS = (b"data", b"data:", b"data: x", b"event: e", b"id: 1", b"id: \x00", b"retry: 5", b": c")
ODD = (b"\xef\xbb\xbf", b"\xe2\x82", b"\xac", b"\xff", b" ", b":", b"{}")
PIECE = st.sampled_from((*ENDS, *FIELDS, *ODD))
STREAM = st.lists(PIECE, max_size=30).map(b"".join) | st.binary(max_size=60)

Fields = tuple[object, object, object, int | None]


def parsed(chunks: list[bytes], max_event: int) -> tuple[list[Fields], bool, str, int | None]:
    parser, events, failed = EventStreamParser(max_event), list[ServerSentEvent](), False
    try:
        for chunk in chunks:
            events += parser.feed(chunk)
    except EventTooLong as fault:
        events += fault.events
        failed = True
    if not failed:
        events += parser.finish(flush=True)
    fields = [(event.data, event.event, event.id, event.retry) for event in events]
    return fields, failed, "" if failed else parser.last_event_id, None if failed else parser.retry


@given(stream=STREAM, cuts=st.lists(st.integers(0, 200)), max_event=st.sampled_from([5, 20, 1000]))
def test_splits(stream: bytes, cuts: list[int], max_event: int) -> None:
    """Events, the limit's error, the last id and the retry time do not depend on how the bytes arrived."""
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    singles = [stream[at : at + 1] for at in range(len(stream))]
    assert parsed([stream], max_event) == parsed(pieces, max_event) == parsed(singles, max_event)
