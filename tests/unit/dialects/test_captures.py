"""What real servers sent, under the reads in which it came and under every other split of its bytes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgate.dialects.bodies import read_error
from streamgate.dialects.dialect import Dialect, Seen, Sight
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.dialects.openai_completions import OPENAI_COMPLETIONS
from streamgate.errors import Empty, Fault, Truncated
from streamgate.record import Usage
from streamgate.sse.frames import FrameCutter, without_comments

CAPTURES = Path(__file__).parents[2] / "captures"
EXPECTED = tomllib.loads((CAPTURES / "expected.toml").read_text())
READS: dict[str, list[int]] = json.loads((CAPTURES / "reads.json").read_text())
STREAMS: dict[str, dict[str, Any]] = EXPECTED["streams"]
BODIES: dict[str, dict[str, Any]] = EXPECTED["bodies"]
VERDICTS: dict[str | None, type[Fault]] = {"truncated": Truncated, "empty": Empty}


class Dechunker:
    """The HTTP framing of one captured response, taken off as it arrives."""

    def __init__(self) -> None:
        self.head: bytes | None = None
        self.whole = False
        self._held = b""

    def feed(self, read: bytes) -> Iterator[bytes]:
        """Pieces of the body. As in the gateway, the pieces of a chunked body in one read are joined."""
        self._held += read
        if self.head is None:
            head, blank, rest = self._held.partition(b"\r\n\r\n")
            if not blank:
                return
            self.head, self._held = head, rest
        if b"chunked" not in self.head.lower():
            body, self._held, self.whole = self._held, b"", True
        else:
            body = b"".join(self._chunks())
        if body:
            yield body

    def _chunks(self) -> Iterator[bytes]:
        while not self.whole:
            size, end, rest = self._held.partition(b"\r\n")
            length = int(size, 16) if end else 0
            if not end or len(rest) < length + 2:
                return
            self._held = rest[length + 2 :]
            self.whole = length == 0
            yield rest[:length]


def body_pieces(name: str) -> tuple[list[bytes], Dechunker]:
    """The body in the pieces in which it came."""
    raw, at, framing = (CAPTURES / f"{name}.bin").read_bytes(), 0, Dechunker()
    pieces: list[bytes] = []
    for size in READS[name]:
        pieces += framing.feed(raw[at : at + size])
        at += size
    assert at == len(raw)
    return pieces, framing


def dialect_of(name: str) -> Dialect:
    return OPENAI_COMPLETIONS if "__completions" in name else OPENAI_CHAT


def scanned(name: str, pieces: Iterable[bytes]) -> tuple[Seen, int, list[bytes]]:
    """What the dialect saw, all flags, and the frames up to and with the first semantic one."""
    dialect, seen, cutter = dialect_of(name), Seen(), FrameCutter(1 << 20)
    flags, before = Sight.NOTHING, []
    for piece in pieces:
        frame = without_comments(cutter.cut(piece))
        if not frame:
            continue
        sight = dialect.scan(frame, seen)
        if not flags & Sight.SEMANTIC:
            before.append(frame)
        flags |= sight
        if sight & (Sight.END | Sight.ERROR):
            assert frame[seen.stop : seen.end].strip() == b"data: [DONE]"
            break
    return seen, flags, before


def totals(usage: Usage | None) -> tuple[int, int] | None:
    return None if usage is None else usage[:2]


def check(name: str, pieces: Iterable[bytes]) -> None:
    expected = STREAMS[name]
    dialect = dialect_of(name)
    seen, flags, _ = scanned(name, pieces)
    terminated = expected["end"] == "done"
    assert bool(flags & Sight.END) == terminated
    assert not flags & Sight.ERROR
    assert bool(flags & Sight.SEMANTIC) == ("first" in expected)
    assert bool(flags & Sight.FINISH) == bool(expected["finished"])
    assert seen.events == expected["events"]
    assert list(seen.finished.items()) == [(int(index), reason) for index, reason in expected["finished"].items()]
    assert totals(dialect.usage(seen)) == (tuple(expected["usage"]) if "usage" in expected else None)
    if expected["end"] != "cut":
        verdict = dialect.verdict(seen, terminated=terminated)
        assert type(verdict) is VERDICTS.get(expected.get("verdict"), type(None))


def test_every_capture_has_an_expectation() -> None:
    """No capture lies about unread, and none is missing."""
    assert {path.stem for path in CAPTURES.glob("*.bin")} == {*STREAMS, *BODIES} == set(READS)


@pytest.mark.parametrize("name", STREAMS)
def test_stream_in_its_own_reads(name: str) -> None:
    """Events, finish reasons, usage, end and verdict are those that the bytes show; the framing ended as noted."""
    pieces, framing = body_pieces(name)
    assert framing.head is not None
    assert b"text/event-stream" in framing.head
    check(name, pieces)
    assert framing.whole == (STREAMS[name]["end"] != "cut" and not name.endswith("cut_by_second_request"))


@pytest.mark.parametrize("name", STREAMS)
def test_first_semantic_event(name: str) -> None:
    """Event by event, the first that counts as progress is the one that was read off the bytes."""
    pieces, _ = body_pieces(name)
    dialect, seen, events = dialect_of(name), Seen(), []
    for block in b"".join(pieces).split(b"\n\n"):
        counted = seen.events
        sight = dialect.scan(block + b"\n\n", seen) if block else Sight.NOTHING
        if seen.events > counted:
            events.append((sight, block))
    ordinal, text = STREAMS[name].get("first", (None, ""))
    assert ordinal == next((at for at, (sight, _) in enumerate(events) if sight & Sight.SEMANTIC), None)
    if ordinal is not None:
        assert text.encode() in events[ordinal][1]


@pytest.mark.parametrize("name", STREAMS)
def test_stream_whole_and_byte_by_byte(name: str) -> None:
    """One read of everything, or one for each byte: the same answer."""
    body = b"".join(body_pieces(name)[0])
    check(name, [body])
    check(name, [body[at : at + 1] for at in range(len(body))])


@pytest.mark.parametrize("name", STREAMS)
@settings(max_examples=10, deadline=None)
@given(splits=st.data())
def test_stream_under_random_splits(name: str, splits: st.DataObject) -> None:
    """Any split of the bytes gives the same answer, and begins to speak with the same event."""
    body = b"".join(body_pieces(name)[0])
    cuts = sorted(splits.draw(st.lists(st.integers(0, len(body)), max_size=40)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    check(name, pieces)
    _, _, before = scanned(name, pieces)
    if "first" in STREAMS[name]:
        assert STREAMS[name]["first"][1].encode() in before[-1]


@pytest.mark.parametrize("name", BODIES)
def test_whole_body(name: str) -> None:
    """Message and code of every error body, whatever its shape; an answer is no error, and its usage is read."""
    pieces, framing = body_pieces(name)
    expected, body = BODIES[name], b"".join(pieces)
    assert framing.head is not None
    assert int(framing.head.split(b" ")[1]) == expected["status"]
    said = read_error(body)
    if "message" not in expected:
        assert said is None
    else:
        assert said is not None
        begin, cut, _ = expected["message"].partition("...")
        assert said[0].startswith(begin) if cut else said[0] == begin
        assert said[1] == expected.get("code")
    seen = Seen()
    seen.usage_frame = b"data: " + body + b"\n\n"
    assert totals(OPENAI_CHAT.usage(seen)) == (tuple(expected["usage"]) if "usage" in expected else None)
