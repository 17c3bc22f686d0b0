"""SSE of no family that is known."""

from __future__ import annotations

import json

import pytest

from streamgate.dialects.dialect import Dialect, Seen, Sight
from streamgate.dialects.plain import PLAIN_SSE
from streamgate.errors import Empty
from streamgate.sse.parser import EventStreamParser

FRAMES = [
    (b"data: x\n\n", 1),
    (b"data: x\n\ndata: y\n\n", 2),
    (b"data: x\r\n\r\ndata: y\r\n\r\n", 2),
    (b"event: error\ndata: x\n\n", 1),
    (b"data: [DONE]\n\n", 1),
    (b": comment\n\n", 0),
    (b"retry: 5\n\nid: 7\n\n", 0),
    (b"\n", 0),
    (b": c\n\ndata: a\ndata: b\n\n", 1),
]


def meant(sight: int) -> int:
    """What was seen, without the hint that it was nothing out of the ordinary."""
    return sight & ~Sight.ORDINARY


@pytest.mark.parametrize(("frame", "events"), FRAMES)
def test_scan(frame: bytes, events: int) -> None:
    """Every event with data is progress, and nothing ends or breaks the stream."""
    seen = Seen()
    assert meant(PLAIN_SSE.scan(frame, seen)) == (Sight.SEMANTIC if events else Sight.NOTHING)
    assert seen.events == events
    assert PLAIN_SSE.usage(seen) is None


def test_verdict() -> None:
    """The end of the HTTP body is the end; only nothing at all is a fault."""
    seen = Seen()
    assert isinstance(PLAIN_SSE.verdict(seen, terminated=False), Empty)
    PLAIN_SSE.scan(b"data: x\n\n", seen)
    assert PLAIN_SSE.verdict(seen, terminated=False) is None


def test_error_event() -> None:
    """An error is an event named so, in a form that EventSource shows and the SDKs of both families raise on."""
    spoken: Dialect = PLAIN_SSE
    (event,) = EventStreamParser().feed(spoken.error_event("m\r\n\n", type="t", code="c", param="p"))
    error = {"message": "m\r\n\n", "type": "t", "param": "p", "code": "c"}
    assert event.event == "error"
    assert json.loads(str(event.data)) == {"type": "error", "error": error}
