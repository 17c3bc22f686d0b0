"""One response, read from bytes: what the receiver is told, for every kind of answer and every split of it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate import errors
from streamgate.upstream.exchange import MAX_FIELDS, MAX_HEAD, Headers, Response, ends_at_close

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


class Heard:
    """A receiver that remembers, and notices a call out of order."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.chunks: list[bytes] = []
        self.ends: list[errors.Fault | None] = []

    def head(self, status: int, headers: Headers) -> None:
        assert not self.status and not self.chunks and not self.ends
        self.status, self.headers = status, headers

    def feed(self, chunk: bytes) -> None:
        assert self.status and not self.ends and chunk
        self.chunks.append(chunk)

    def end(self, fault: errors.Fault | None) -> None:
        self.ends.append(fault)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def told(self) -> tuple[int, bytes, type | None]:
        assert len(self.ends) == 1
        return self.status, self.body, type(self.ends[0]) if self.ends[0] else None


class Line:
    def __init__(self) -> None:
        self.said: list[tuple[bool, bool]] = []

    def answered(self, *, whole: bool, keep: bool) -> None:
        self.said.append((whole, keep))


def read(*chunks: bytes, reused: bool = False, eof: bool | None = None) -> tuple[Heard, Line]:
    """Feed the chunks; `eof`: then the connection ends, properly or not."""
    heard, line = Heard(), Line()
    response = Response(heard, line, reused=reused)
    for chunk in chunks:
        response.received(memoryview(chunk))
    if eof is not None:
        response.eof(proper=eof)
    return heard, line


WHOLE = {
    "content-length": (OK + b"content-length: 2\r\n\r\nok", True),
    "chunked": (CHUNKED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n", True),
    "trailers are dropped": (CHUNKED + b"2;ext=1\r\nok\r\n0\r\nx-sum: 1\r\n\r\n", True),
    "1xx are skipped": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: a\r\n\r\n" + CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
        True,
    ),
    "connection: close": (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", False),
    "HTTP/1.0 kept": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", True),
    "identity is no coding": (OK + b"content-encoding: Identity\r\ncontent-length: 2\r\n\r\nok", True),
    "a second response": (OK + b"content-length: 2\r\n\r\nok" + OK + b"content-length: 6\r\n\r\nsecret", False),
    "a piece of one": (OK + b"content-length: 2\r\n\r\nokH", False),
    "garbage after": (OK + b"content-length: 2\r\n\r\nok\x00\x01", False),
    "bytes after close": (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nokmore", False),
}


@pytest.mark.parametrize("raw, keep", WHOLE.values(), ids=WHOLE)
def test_a_whole_answer(raw: bytes, keep: bool) -> None:
    """Body and end are told for each framing; the connection is kept only if nothing speaks against it."""
    heard, line = read(raw)
    assert heard.told == (200, b"ok", None)
    assert line.said == [(True, keep)]


GARBLED = {
    "not HTTP": b"220 mail.example ESMTP\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\nok",
    "101": b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    "101 without upgrade": b"HTTP/1.1 101 Switching\r\n\r\n",
    "status 099": b"HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n",
    "status 999": b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
    "CL and TE": OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "TE and CL": OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "a negative length": OK + b"content-length: -2\r\n\r\nok",
    "NUL in a field": OK + b"x: a\0b\r\ncontent-length: 2\r\n\r\nok",
    "a folded field": OK + b"x: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
    "space in a name": OK + b"x y: a\r\ncontent-length: 2\r\n\r\nok",
    "too many fields": OK + b"x: y\r\n" * (MAX_FIELDS + 1) + b"\r\n",
    "a head too large": OK + b"x: %b\r\n\r\n" % (b"y" * MAX_HEAD),
}


@pytest.mark.parametrize("raw", GARBLED.values(), ids=GARBLED)
def test_a_garbled_head(raw: bytes) -> None:
    """An answer that is not valid HTTP/1.x is a fault before anything of it is told."""
    heard, line = read(raw)
    assert heard.told == (0, b"", errors.Garbled)
    assert line.said == [(False, False)]


@pytest.mark.parametrize(
    "field", [b"content-encoding: gzip", b"transfer-encoding: gzip, chunked", b"content-encoding: br"]
)
def test_an_encoded_body(field: bytes) -> None:
    """A coding that was asked off is a fault, not something to relay."""
    heard, _ = read(OK + field + b"\r\n\r\n", eof=True)
    assert heard.told == (0, b"", errors.Encoded)


def test_what_came_before_a_bad_chunk_is_told_first() -> None:
    """A body that goes wrong half way is told as far as it was right."""
    heard, _ = read(CHUNKED + b"2\r\nok\r\nzz\r\n")
    assert heard.told == (200, b"ok", errors.Garbled)
    heard, _ = read(CHUNKED, b"2\r\nok\r\n", b"2\r\nokk\r\n")
    assert heard.told == (200, b"okok", errors.Garbled)


@pytest.mark.parametrize(
    "raw, reused, proper, expected",
    [
        (b"", False, True, (0, b"", errors.ClosedEarly)),
        (b"", True, True, (0, b"", errors.Stale)),
        (b"HTTP/1.1 2", True, True, (0, b"", errors.ClosedEarly)),
        (b"HTTP/1.1 100 Continue\r\n\r\n", True, True, (0, b"", errors.ClosedEarly)),
        (OK + b"content-length: 3\r\n\r\nok", True, True, (200, b"ok", errors.Truncated)),
        (CHUNKED + b"2\r\nok\r\n", True, True, (200, b"ok", errors.Truncated)),
        (CHUNKED, True, True, (200, b"", errors.Truncated)),
        (OK + b"\r\nok", False, True, (200, b"ok", None)),
        (OK + b"\r\nok", False, False, (200, b"ok", errors.Truncated)),
    ],
)
def test_the_end_of_the_connection(raw: bytes, reused: bool, proper: bool, expected: object) -> None:
    """What an end means depends on how much had come, on the framing, and on who may have cut it."""
    heard, line = read(raw, reused=reused, eof=proper)
    assert heard.told == expected
    assert line.said == [(heard.ends == [None], False)]


def test_a_reset_is_stale_only_before_the_first_byte_on_a_reused_connection() -> None:
    """Only a reused connection that answered nothing may be tried again for free."""
    for raw, reused, expected in ((b"", True, errors.Stale), (b"", False, errors.Reset), (OK, True, errors.Reset)):
        heard = Heard()
        response = Response(heard, Line(), reused=reused)
        response.received(memoryview(raw))
        response.reset("connection reset by peer")
        assert heard.told == (0, b"", expected)
        assert heard.ends[0] is not None
        assert heard.ends[0].detail == "connection reset by peer"


@pytest.mark.parametrize(
    "endless", [b"HTTP/1.1 102 Wait\r\n\r\n", CHUNKED + b"0\r\n" + b"x: y\r\n", CHUNKED + b"2;" + b"a" * 90]
)
def test_endless_bytes_without_a_body_are_bounded(endless: bytes) -> None:
    """1xx responses, trailers and chunk extensions without end are a fault within the limit for heads."""
    heard, sent = Heard(), 0
    response = Response(heard, Line(), reused=False)
    while not heard.ends and sent < 4 * MAX_HEAD:
        response.received(memoryview(endless))
        sent += len(endless)
        endless = endless.removeprefix(CHUNKED).removeprefix(b"0\r\n").removeprefix(b"2;")
    assert isinstance(heard.ends[0], errors.Garbled)
    assert sent <= MAX_HEAD + 2 * len(CHUNKED) + 200


def test_pieces_of_one_read_are_joined() -> None:
    """Many chunks in one read are one `feed`, and a read that completes no piece is none."""
    heard, _ = read(CHUNKED, b"1\r\na\r\n1\r\nb\r\n", b"3\r\n", b"cde", b"\r\n0\r\n\r\n")
    assert heard.chunks == [b"ab", b"cde"]
    assert heard.ends == [None]


def test_names_are_lower_case_and_values_have_no_white_space_around() -> None:
    """Receivers compare names as they are."""
    heard, _ = read(b"HTTP/1.1 200 OK\r\nContent-Length: 2  \r\nX-ID:   7\t\r\n\r\nok")
    assert heard.headers == [(b"content-length", b"2"), (b"x-id", b"7")]


class Buggy(Heard):
    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def head(self, status: int, headers: Headers) -> None:
        if self.where == "head":
            raise KeyError("oops")
        super().head(status, headers)

    def feed(self, chunk: bytes) -> None:
        if self.where == "feed":
            raise KeyError("oops")
        super().feed(chunk)


@pytest.mark.parametrize(
    "where, chunks", [("head", [CHUNKED]), ("feed", [CHUNKED + b"2\r\nok\r\n"]), ("feed", [CHUNKED, b"2\r\nok\r\n"])]
)
def test_a_bug_of_the_receiver_is_not_the_upstreams(where: str, chunks: list[bytes]) -> None:
    """What a receiver raises ends the exchange as the gateway's own fault, and says where it was."""
    heard, line = Buggy(where), Line()
    response = Response(heard, line, reused=False)
    for chunk in chunks:
        response.received(memoryview(chunk))
    (fault,) = heard.ends
    assert isinstance(fault, errors.Internal)
    assert "KeyError: 'oops' at " in fault.detail and "test_exchange.py" in fault.detail
    assert line.said == [(False, False)]


def test_a_bug_at_the_end_reaches_the_loop() -> None:
    """A receiver that raises in its last call is reported where somebody looks."""
    reported: list[dict[str, object]] = []

    class Late(Heard):
        def end(self, fault: errors.Fault | None) -> None:
            raise KeyError("late")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        Response(Late(), Line(), reused=False).eof(proper=True)

    asyncio.run(main())
    assert isinstance(reported[0]["exception"], KeyError)


@pytest.mark.parametrize("leave_in", ["head", "feed", "nothing"])
def test_a_receiver_that_left_is_never_called_again(leave_in: str) -> None:
    """After `abandon`, even from inside a call, nothing more is told."""
    heard, line = Heard(), Line()

    class Leaving(Heard):
        def head(self, status: int, headers: Headers) -> None:
            heard.head(status, headers)
            if leave_in == "head":
                response.abandon()

        def feed(self, chunk: bytes) -> None:
            heard.feed(chunk)
            if leave_in == "feed":
                response.abandon()

    response = Response(Leaving(), line, reused=False)
    response.received(memoryview(CHUNKED + b"2\r\nok\r\n"))
    if leave_in == "nothing":
        response.abandon()
    response.received(memoryview(b"2\r\nno\r\n0\r\n\r\n"))
    response.eof(proper=True)
    assert heard.body == (b"" if leave_in == "head" else b"ok")
    assert (heard.ends, line.said) == ([], [])


def test_nothing_refers_to_the_receiver_after_the_end() -> None:
    """Response, parser and receiver go away by themselves, without the garbage collector."""
    heard = Heard()
    response = Response(heard, Line(), reused=False)
    gone = weakref.ref(heard)
    gc.disable()
    try:
        response.received(memoryview(CHUNKED + b"0\r\n\r\n"))
        del heard
        assert gone() is None
    finally:
        gc.enable()


def test_the_rest_can_go_to_another_receiver() -> None:
    """`hand_to` gives what follows to someone else."""
    first, second = Heard(), Heard()
    response = Response(first, Line(), reused=False)
    response.received(memoryview(CHUNKED + b"2\r\nok\r\n"))
    second.status = 200
    response.hand_to(second)
    response.received(memoryview(b"4\r\nmore\r\n0\r\n\r\n"))
    assert (first.body, first.ends) == (b"ok", [])
    assert (second.body, second.ends) == (b"more", [None])


def test_a_body_is_framed_or_ends_with_the_connection() -> None:
    """Only a head without length and coding leaves the end to the connection."""
    assert ends_at_close([(b"content-type", b"text/plain")])
    assert not ends_at_close([(b"transfer-encoding", b"Chunked")])
    assert not ends_at_close([(b"content-length", b"0")])


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.integers(0, 200), max_size=8))
def test_every_split_is_told_the_same(name: str, cuts: list[int]) -> None:
    """Status, body and verdict do not depend on how the bytes were cut."""
    raw, keep = WHOLE[name]
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    heard, line = read(*(raw[a:b] for a, b in itertools.pairwise(edges)))
    assert heard.told == (200, b"ok", None)
    # After the end the rest is the connection's to judge, and it closes.
    assert line.said == [(True, keep)] or (line.said == [(True, True)] and not keep)


def test_one_byte_at_a_time() -> None:
    """The finest split is told the same too."""
    for raw, _ in WHOLE.values():
        heard, _ = read(*(raw[at : at + 1] for at in range(len(raw))))
        assert heard.told == (200, b"ok", None)
