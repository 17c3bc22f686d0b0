"""The cutter loses nothing and cuts no event, for every split."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streamgate.sse.frames import FrameCutter, blocks, without_comments
from streamgate.sse.parser import EventStreamParser

PIECE = st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r", b"data: x", b": c", b"id: 1", b"\xff"])
STREAM = st.lists(PIECE, max_size=30).map(b"".join) | st.binary(max_size=60)
CUTS = st.lists(st.integers(0, 200), max_size=20)


def pieces_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


def data_in(stream: bytes) -> list[object]:
    return [event.data for event in EventStreamParser().feed(stream)]


@given(stream=STREAM, cuts=CUTS)
def test_nothing_is_lost_and_no_event_is_cut(stream: bytes, cuts: list[int]) -> None:
    """Joined, output and rest are the input; every output ends where a blank line does, and the rest ends no event."""
    cutter = FrameCutter(1000)
    frames = [frame for frame in map(cutter.cut, pieces_of(stream, cuts)) if frame]
    joined = b"".join(frames)
    assert joined + cutter.rest == stream
    for frame in frames:
        assert frame.splitlines()[-1] == b""
    one_by_one = [data for frame in frames for data in data_in(frame)]
    last = cutter.end()
    assert data_in(b"".join([*frames, last])) == one_by_one + data_in(last)
    assert data_in(stream) == one_by_one + data_in(last)
    assert data_in(cutter.rest) == []


@given(stream=STREAM, cuts=CUTS)
def test_the_whole_is_the_same_for_every_split(stream: bytes, cuts: list[int]) -> None:
    """What has been given out by the end does not depend on how the bytes arrived."""

    def given_out(chunks: list[bytes]) -> bytes:
        cutter = FrameCutter(1000)
        return b"".join(cutter.cut(chunk) for chunk in chunks) + cutter.end()

    singles = [stream[at : at + 1] for at in range(len(stream))]
    assert given_out([stream]) == given_out(pieces_of(stream, cuts)) == given_out(singles)


@given(stream=STREAM, cuts=CUTS)
def test_crlf_is_never_cut(stream: bytes, cuts: list[int]) -> None:
    """In a stream whose lines end in CRLF, nothing can be written between the two."""
    stream = re.sub(rb"\r\n|\r|\n", b"\r\n", b"x\r\n" + stream)
    cutter = FrameCutter(1000)
    for piece in pieces_of(stream, cuts):
        assert not cutter.cut(piece).endswith(b"\r")


@given(frame=STREAM)
def test_blocks_cover_the_frame(frame: bytes) -> None:
    """The blocks are the frame, and each of them holds at most one event."""
    parts = [frame[start:end] for start, end in blocks(frame)]
    assert b"".join(parts) == frame
    for part in parts:
        assert len(data_in(part.removeprefix(b"\xef\xbb\xbf"))) <= 1


@given(frame=STREAM)
def test_comments_leave_no_trace(frame: bytes) -> None:
    """Without its comment blocks a frame has the events it had."""
    assert data_in(without_comments(frame)) == data_in(frame)
