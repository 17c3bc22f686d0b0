"""Whole events as bytes."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from streamgate.sse.event import SSEError
from streamgate.sse.frames import FrameCutter, FrameTooLarge, blocks, without_comments

CUTS: list[tuple[list[bytes], list[bytes], bytes]] = [
    ([b"data: a\n\n"], [b"data: a\n\n"], b""),
    ([b"data: a\n\ndata: b"], [b"data: a\n\n"], b"data: b"),
    ([b"data: a\n", b"\n", b"data: b\n\n"], [b"", b"data: a\n\n", b"data: b\n\n"], b""),
    ([b"da", b"ta: a\n\ndata: b\n\nda", b"ta"], [b"", b"data: a\n\ndata: b\n\n", b""], b"data"),
    ([b"data: a\r\n\r\n"], [b"data: a\r\n\r\n"], b""),
    ([b"data: a\r\n\r", b"\ndata: b"], [b"", b"data: a\r\n\r\n"], b"data: b"),  # between CR and LF nothing is given out
    ([b"data: a\r\n\r", b"data: b"], [b"", b"data: a\r\n\r"], b"data: b"),  # it waited in vain
    ([b"a\r\n\r\nb\r\n\r", b"\n"], [b"a\r\n\r\n", b"b\r\n\r\n"], b""),
    ([b"data: a\r\r", b"data: b\r\r"], [b"data: a\r\r", b"data: b\r\r"], b""),  # bare CR: at once
    ([b"data: a\r", b"\r", b"b"], [b"", b"data: a\r\r", b""], b"b"),
    ([b"data: a\r\r", b"\nb"], [b"data: a\r\r", b"\n"], b"b"),  # a LF after all: a blank line of the next frame
    ([b"data: a\n\r", b"\n"], [b"data: a\n\r", b"\n"], b""),
    ([b"data: a\n\r\n"], [b"data: a\n\r\n"], b""),
    ([b"data: a\r\n\n"], [b"data: a\r\n\n"], b""),
    ([b"\n", b"\n\n", b"data: a\n\n"], [b"\n", b"\n\n", b"data: a\n\n"], b""),
    ([b"\r\n", b"a\r\n\r\n"], [b"\r\n", b"a\r\n\r\n"], b""),
    ([b"", b"a"], [b"", b""], b"a"),
]


@pytest.mark.parametrize(("chunks", "frames", "rest"), CUTS)
def test_cut(chunks: list[bytes], frames: list[bytes], rest: bytes) -> None:
    """Each call gives out all events that are whole by then, and keeps the rest."""
    cutter = FrameCutter(1000)
    assert [cutter.cut(chunk) for chunk in chunks] == frames
    assert cutter.rest == rest


def test_whole_events_are_not_copied() -> None:
    """A read that ends with an event, after nothing unfinished, is given out as the object it is."""
    cutter, chunk = FrameCutter(1000), b"data: a\n\ndata: b\n\n"
    assert cutter.cut(chunk) is chunk
    crlf = chunk.replace(b"\n", b"\r\n")
    assert cutter.cut(crlf) is crlf
    assert cutter.cut(chunk) is chunk
    cutter.cut(b"data")
    assert cutter.cut(b": c\n\n") == b"data: c\n\n"
    assert cutter.cut(chunk) is chunk


@pytest.mark.parametrize(
    ("stream", "ended", "rest"),
    [
        (b"a\r\n\r", b"a\r\n\r", b""),
        (b"a\r\n\r\nb\r\n\r", b"b\r\n\r", b""),
        (b"a\r\n", b"", b"a\r\n"),
        (b"a\n\n", b"", b""),
        (b"a", b"", b"a"),
    ],
)
def test_end(stream: bytes, ended: bytes, rest: bytes) -> None:
    """An event that waited for the LF of its last CRLF is whole when the stream is over; half an event is not."""
    cutter = FrameCutter(1000)
    cutter.cut(stream)
    assert cutter.end() == ended
    assert cutter.rest == rest
    assert cutter.end() == b""


def test_too_large() -> None:
    """One unfinished event may be so large and no larger; whole events are given out before that is said."""
    cutter = FrameCutter(10)
    assert cutter.cut(b"data: a\n\n" + b"x" * 20) == b"data: a\n\n"
    with pytest.raises(FrameTooLarge, match="larger than 10 bytes"):
        cutter.cut(b"x")
    fits = FrameCutter(10)
    fits.cut(b"x" * 10)
    assert fits.cut(b"\n\n") == b"x" * 10 + b"\n\n"
    assert issubclass(FrameTooLarge, SSEError)


def test_linear() -> None:
    """An event of 1 MiB in single bytes costs per byte what one of 64 KiB does: nothing is looked at twice."""

    def seconds_per_byte(size: int) -> float:
        cutter = FrameCutter(size)
        began = time.process_time()
        for _ in range(size):
            cutter.cut(b"x")
        assert len(cutter.cut(b"\n\n")) == size + 2
        return (time.process_time() - began) / size

    # Quadratic work would make the factor 16; 5 leaves room for a noisy machine.
    assert seconds_per_byte(1 << 20) < 5 * min(seconds_per_byte(1 << 16) for _ in range(3))


BLOCKS = [
    (b"data: a\n\n", [b"data: a\n\n"]),
    (b"data: a\n\ndata: b\n\n", [b"data: a\n\n", b"data: b\n\n"]),
    (b"a\r\n\r\nb\n\nc\r\rd\r\n\n", [b"a\r\n\r\n", b"b\n\n", b"c\r\r", b"d\r\n\n"]),
    (b"a\n\r\nb\n\r", [b"a\n\r\n", b"b\n\r"]),
    (b"\na\n\n\n\r\nb\n\n", [b"\n", b"a\n\n", b"\n", b"\r\n", b"b\n\n"]),
    (b"a\n\nunfinished", [b"a\n\n", b"unfinished"]),
    (b"unfinished\n", [b"unfinished\n"]),
    (b"\n", [b"\n"]),
    (b"", []),
]


@pytest.mark.parametrize(("frame", "parts"), BLOCKS)
def test_blocks(frame: bytes, parts: list[bytes]) -> None:
    """Each event with its blank line, every other blank line on its own, nothing left out."""
    offsets = list(blocks(frame))
    assert [frame[start:end] for start, end in offsets] == parts
    assert all(end == start for (_, end), (start, _) in pairwise(offsets))


COMMENTS = [
    (b"data: a\n\n", b"data: a\n\n"),
    (b": ping\n\n", b""),
    (b":\n\ndata: a\n\n: x\n: y\n\n", b"data: a\n\n"),
    (b": ping\r\n\r\ndata: a\r\n\r\n", b"data: a\r\n\r\n"),
    (b"data: a\r\r:\r\r", b"data: a\r\r"),
    (b": ping\ndata: a\n\n", b": ping\ndata: a\n\n"),  # glued to an event: part of it
    (b"data: a\n: inside\n\n", b"data: a\n: inside\n\n"),
    (b"retry: 1\n\n: x\n\n", b"retry: 1\n\n"),
    (b"\n: x\n\n\n", b"\n\n"),
    (b": unfinished\n", b": unfinished\n"),
]


@pytest.mark.parametrize(("frame", "kept"), COMMENTS)
def test_without_comments(frame: bytes, kept: bytes) -> None:
    """Blocks of nothing but comments go, everything else stays byte for byte."""
    assert without_comments(frame) == kept


def test_without_comments_does_not_copy() -> None:
    """A frame without a comment is the object it was."""
    frame = b"data: : x\n\n"
    assert without_comments(frame) is frame
