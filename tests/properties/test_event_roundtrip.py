"""Encode, then parse: the event that was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamgate.sse.event import ServerSentEvent
from streamgate.sse.parser import EventStreamParser

TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\r\n: \ufeffdataid"))
LINE = TEXT.map(lambda text: text.replace("\r", "").replace("\n", "").replace("\0", ""))
SEP = st.sampled_from(["\r\n", "\n", "\r"])


@given(
    data=TEXT,
    event=st.none() | LINE,
    id=st.none() | LINE,
    retry=st.none() | st.integers(0, 10**12),
    comment=st.none() | TEXT,
    sep=SEP,
)
def test_roundtrip(
    data: str, event: str | None, id: str | None, retry: int | None, comment: str | None, sep: str
) -> None:
    """Data (its line ends as LF), event, id and retry come back; the comment leaves no trace; nothing else appears."""
    sent = ServerSentEvent(data, event=event, id=id, retry=retry, comment=comment, sep=sep)
    parser = EventStreamParser()
    (got,) = parser.feed(sent.encode()) + parser.feed(b"data: next\n\n")[:-1]
    lines = data.replace("\r\n", "\n").replace("\r", "\n")
    assert (got.data, got.event, got.id, got.retry) == (lines, event, id, retry)


@given(
    data=st.none() | st.text(),
    event=st.none() | st.text(),
    id=st.none() | st.text(),
    comment=st.none() | st.text(),
    sep=SEP,
)
def test_no_field_begins_another(
    data: str | None, event: str | None, id: str | None, comment: str | None, sep: str
) -> None:
    """Whatever text the fields hold, surrogates and controls included, the bytes are one event or none."""
    encoded = ServerSentEvent(data, event=event, id=id, comment=comment, sep=sep).encode()
    encoded.decode()
    events = EventStreamParser().feed(encoded + b"data: next\n\n")
    assert len(events) == (1 if data is None else 2)
    assert events[-1].data == "next"
    fields = [line.partition(b":")[0] for line in encoded.splitlines() if line]
    assert fields == sorted(fields, key=[b"", b"id", b"event", b"data"].index)
