"""However the network cuts an upstream's body, the client gets the same bytes and the books say the same."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st
from stage import DONE, ERROR, FINISH, delta

from streamgate.dialects.dialect import Dialect
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.dialects.plain import PLAIN_SSE
from streamgate.errors import Fault, Truncated
from streamgate.record import Outcome, StreamRecord
from streamgate.relay.attempt import Attempt
from streamgate.relay.deadlines import Deadlines
from streamgate.relay.passage import Passage

USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9}}\n\n'
TOKENS = (
    delta("plain"),
    delta("carriage").replace(b"\n", b"\r\n"),
    delta("bare").replace(b"\n", b"\r"),
    delta("two\nlines"),
    delta("d\u00e9j\u00e0").replace(b"\\u00e9", b"\xc3\xa9"),
    delta("bad").replace(b"bad", b"\xff\xc3"),
    b"id: 7\n" + delta("with an id"),
    b": a comment inside\n" + delta("after it"),
    b"event: message\r\n" + delta("named").replace(b"\n", b"\r\n"),
    delta("second", index=1),
)
REST = (delta(), b": ping\n\n", b":\r\n\r\n", b"retry: 100\n\n", b"data: not json\n\n", b"\n", USAGE)
FAILED = delta(delta={}, finish_reason="error")


class Relayed(NamedTuple):
    """What came of a body."""

    outcome: Outcome | None
    fault: type | None
    told: bool
    body: bytes
    events: int
    bytes_out: int
    finish_reason: str
    usage: Any
    opened: int


class Writing:
    """Sink and opening in one."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.begun = False
        self.opened = 0

    def write(self, frame: bytes, now: float) -> None:
        assert frame, "an empty frame is no frame"
        self.frames.append(frame)

    def open(self, attempt: Attempt, source: object) -> None:
        self.opened += 1


async def relayed(pieces: list[bytes], heard: Dialect, headers: Any, end: Fault | None) -> tuple[Relayed, int]:
    writing, record = Writing(), StreamRecord(1.0)
    record.stream = True
    passage = Passage(writing, writing, heard, record, Deadlines(), 1 << 20)
    passage.begin(own_key=True)
    passage.head(200, headers)
    for piece in pieces:
        passage.feed(piece)
    passage.end(end)
    passage.close()
    ending = passage.until.result() if passage.until.done() else None
    failed = passage.first.result() if passage.first.done() else None
    fault = ending.fault if ending is not None else failed
    outcome = ending.outcome if ending is not None else None
    body = b"".join(writing.frames)
    kind = None if fault is None else type(fault)
    semantic = 0 if record.t_first == 0.0 else 1 + sum(record.gap_counts or ())
    assert semantic <= len(pieces) + 1
    return Relayed(
        outcome, kind, passage.told, body, record.events, record.bytes_out, record.finish_reason, record.usage,
        writing.opened,
    ), record.bytes_in  # fmt: skip


def run(
    pieces: list[bytes], heard: Dialect = OPENAI_CHAT, kind: bytes = b"text/event-stream", end: Fault | None = None
) -> tuple[Relayed, int]:
    with asyncio.Runner() as runner:
        return runner.run(relayed(pieces, heard, [(b"content-type", kind)], end))


@st.composite
def bodies(draw: st.DrawFn, *endings: bytes) -> bytes:
    """Comments and deltas of every form, at least one token, and one of the endings."""
    before = draw(st.lists(st.sampled_from(REST), max_size=3))
    tokens = draw(st.lists(st.sampled_from(TOKENS + REST), max_size=5))
    bom = b"\xef\xbb\xbf" if draw(st.booleans()) else b""
    return bom + b"".join([*before, draw(st.sampled_from(TOKENS)), *tokens]) + draw(st.sampled_from(endings))


def cut(body: bytes, at: set[int]) -> list[bytes]:
    places = sorted(place % (len(body) + 1) for place in at)
    pieces = [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]
    return [piece for piece in pieces if piece]


CUTS = st.sets(st.integers(0, 5000), max_size=12)
SECOND_FINISH = delta(delta={}, finish_reason="length", index=1)
WHOLE = (
    FINISH + SECOND_FINISH + DONE,
    FINISH + SECOND_FINISH + USAGE + DONE,
    FINISH + SECOND_FINISH,
    FINISH + SECOND_FINISH + b"data: [DONE]",
    FINISH + SECOND_FINISH + b": bye\n\n",
    (FINISH + SECOND_FINISH + DONE).replace(b"\n", b"\r\n"),
    (FINISH + SECOND_FINISH).replace(b"\n", b"\r\n")[:-1],
)


@settings(max_examples=200, deadline=None)
@given(bodies(*WHOLE), CUTS)
def test_a_whole_answer(body: bytes, at: set[int]) -> None:
    """Bytes, counts and ending are those of the body in one piece; nothing of it is missing but comments."""
    whole, received = run([body])
    assert run(cut(body, at)) == (whole, received)
    assert run([bytes([byte]) for byte in body]) == (whole, received)
    assert (whole.outcome, whole.opened) == (Outcome.COMPLETED, 1)
    assert received == len(body)
    assert whole.bytes_out == len(whole.body)


@settings(max_examples=60, deadline=None)
@given(bodies(b"", b"data: open", b"\n\n"), CUTS)
def test_a_plain_stream(body: bytes, at: set[int]) -> None:
    """The same without any meaning."""
    assert run(cut(body, at), PLAIN_SSE) == run([body], PLAIN_SSE)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([b"application/json", b"audio/mpeg", b"application/x-ndjson"]), st.binary(min_size=1), CUTS)
@example(b"application/json", b'{"error":{"message":"no"}}', {3})
@example(b"application/json", b"{" + b" " * 70000 + b"}", {5, 69000})
@example(b"application/json", b" \n ", {1})
def test_a_body_that_is_not_events(kind: bytes, body: bytes, at: set[int]) -> None:
    """Every byte, or one fault and none."""
    whole, received = run([body], kind=kind)
    assert run(cut(body, at), kind=kind) == (whole, received)
    assert whole.body in (body, b"")


# What ends a stream badly may come in the read that would have committed it: then nothing of the try was written, and
# another one may be made. Once it has committed, bytes and books are the same for every split.
BROKEN = (
    ERROR,
    ERROR + DONE,
    b'event: error\ndata: {"message": "no GPU"}\n\n',
    DONE,
    b"data: [DONE]",
    FAILED + DONE,
    FAILED,
    b"",
    delta("cut")[:40],
)


@settings(max_examples=150, deadline=None)
@given(bodies(*BROKEN), CUTS, st.sampled_from([None, Truncated()]))
def test_a_stream_that_ends_badly(body: bytes, at: set[int], end: Fault | None) -> None:
    """The fault is the same for every split; the bytes are, too, unless the whole try failed before it committed."""
    token = delta("committed")
    (whole, _), (split, _) = run([token, body], end=end), run([token, *cut(body, at)], end=end)
    assert split == whole
    assert split.outcome is not None and split.outcome.klass == "error"
    held, _ = run(cut(body, at), end=end)
    assert held.fault is not None
    if held.outcome is None:
        assert (held.body, held.opened, held.bytes_out) == (b"", 0, 0)
    else:
        assert held.fault is whole.fault and held.opened == 1
