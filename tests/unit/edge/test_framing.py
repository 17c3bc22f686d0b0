"""Body framing, as tables: counted and chunked."""

from __future__ import annotations

import pytest

from streamgate.edge.framing import Chunked, Counted
from streamgate.errors import Reason, Refusal


def refused(*pieces: bytes, limit: int = 1000) -> Refusal:
    body = Chunked(limit)
    with pytest.raises(Refusal) as caught:
        for piece in pieces:
            body.feed(piece)
    return caught.value


def test_a_counted_body_ends_at_its_count() -> None:
    """What comes after the last byte is kept apart."""
    body = Counted(5)
    assert (body.feed(b"hel"), body.whole) == (b"hel", False)
    assert (body.feed(b"loGET"), body.whole, body.behind) == (b"lo", True, b"GET")


def test_a_counted_body_of_nothing_is_whole() -> None:
    """No byte is needed to end it."""
    assert Counted(0).whole


def test_a_chunked_body_is_joined_and_its_trailer_dropped() -> None:
    """The chunks' content comes out, extensions and trailer fields do not, what is behind is kept apart."""
    body = Chunked(1000)
    assert body.feed(b'2;a="b"\r\nhe\r\n3;c=d;e\r\nllo\r\n0;f\r\nHost: evil\r\nA: b\r\n\r\nGET') == b"hello"
    assert (body.whole, body.behind) == (True, b"GET")


def test_a_chunked_body_may_come_byte_by_byte() -> None:
    """Every prefix of a good body is waited for."""
    body = Chunked(1000)
    got = b"".join(body.feed(bytes((byte,))) for byte in b"2;a\r\nhe\r\n03\r\nllo\r\n0\r\nA: b\r\n\r\n")
    assert (got, body.whole, body.behind) == (b"hello", True, b"")


def test_the_limit_counts_all_chunks_and_bites_at_the_size_line() -> None:
    """413 before the chunk that would go over it has arrived."""
    body = Chunked(10)
    assert body.feed(b"a\r\n0123456789\r\n") == b"0123456789"
    with pytest.raises(Refusal) as caught:
        body.feed(b"1\r\n")
    assert (caught.value.status, caught.value.reason) == (413, Reason.TOO_LARGE)


@pytest.mark.parametrize(
    "pieces",
    [
        (b"g",),
        (b"5 ",),
        (b"\r\n",),
        (b"123456789",),
        (b"5\n",),
        (b"5\r", b"5"),
        (b"5;\x00",),
        (b"5;a" + b"b" * 600,),
        (b"5;a=", b"b" * 600),
        (b"5;a" + b"b" * 600 + b"\r\n",),
        (b"5\r\nhelloX",),
        (b"5\r\nhello\r", b"5"),
        (b"5\r\nhello\n",),
        (b"0\r\n\n",),
        (b"0\r\nA\r\n",),
        (b"0\r\nA: b\r\n c\r\n",),
        (b"0\r\nA: \x00",),
        (b"0\r\n\rA",),
        tuple(b"1;a=" + b"b" * 400 + b"\r\nx\r\n" for _ in range(60)),
    ],
)
def test_wrong_framing_is_refused_at_the_first_wrong_byte(pieces: tuple[bytes, ...]) -> None:
    """Nothing is repaired and nothing is waited for."""
    assert refused(*pieces).status == 400


@pytest.mark.parametrize("pieces", [(b"0\r\nA: " + b"b" * 9000 + b"\r\n\r\n",), (b"0\r\nA: ", b"b" * 9000)])
def test_a_trailer_has_a_limit(pieces: tuple[bytes, ...]) -> None:
    """8 KiB of trailer fields, whole or not."""
    assert refused(*pieces).status == 431


def test_single_byte_chunks_are_slow_but_legal() -> None:
    """Small chunks are not mostly framing by Go's rule; only what is beyond a bare size line counts."""
    body = Chunked(5000)
    assert body.feed(b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n") == b"x" * 5000
