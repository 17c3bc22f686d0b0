"""The request reader under arbitrary bytes and arbitrary splits, and against a second, independent parser."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import httptools
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamgate.edge.framing import Body, Chunked, Counted
from streamgate.edge.head import CHUNKED, HeadLimits, judge, judge_partial
from streamgate.errors import Refusal
from tests.wire.raw_requests import BODY, CODED, LENGTH, ROWS, chunks, head

LIMITS = HeadLimits()
PIECES = (
    *(
        b"POST",
        b"GET",
        b" ",
        b"/v1/chat/completions",
        b"?a=b",
        b" HTTP/1.1",
        b" HTTP/1.0",
        b"\r\n",
        b"\r",
        b"\n",
        b"\t",
    ),
    *(b"Host: a", b"Host: a:1", b"host:b", b"Content-Length: 5", b"Content-Length: 0", b"content-length:05"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", b"Connection: close", b"Expect: 100-continue", b"X: y"),
    *(b":", b",", b"\x00", b"\xff", b"%2f", b"#", b"\\", b"0\r\n\r\n", b"hello", b"5\r\nhello\r\n"),
)


def read(segments: list[bytes]) -> bytes | None:
    """The body of the first request, as the guard would deliver it; None when more bytes are waited for."""
    received, since = b"", 0
    rest = iter(segments)
    for segment in rest:
        since, received = len(received), received + segment
        end = received.find(b"\r\n\r\n", max(0, since - 3)) + 4
        if end >= 4:
            return read_body(judge(received, end, LIMITS).length, [received[end:], *rest])
        judge_partial(received, since, LIMITS)
    return None


def read_body(length: int, segments: list[bytes]) -> bytes | None:
    if length == 0:
        return b""
    body: Body = Chunked(100_000) if length == CHUNKED else Counted(length)
    content = b""
    for segment in segments:
        content += body.feed(segment)
        if body.whole:
            return content
    return None


def verdict(segments: list[bytes]) -> bytes | None:
    try:
        return read(segments)
    except Refusal:
        return None


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(raw) + 1) for place in places}), len(raw)]
    return [raw[start:end] for start, end in pairwise(edges) if start < end]


@given(st.sampled_from(ROWS), st.lists(st.integers(0, 50_000), max_size=12))
@settings(max_examples=400, deadline=None)
def test_a_request_means_the_same_however_it_is_split(row: object, places: list[int]) -> None:
    """Where the segments end changes neither what is refused nor what arrives."""
    raw = b"".join(row.segments)  # type: ignore[attr-defined]
    assert verdict(cut(raw, places)) == verdict([raw])


@given(st.lists(st.sampled_from(PIECES), max_size=24))
@settings(max_examples=600, deadline=None)
def test_any_bytes_are_read_or_refused(pieces: list[bytes]) -> None:
    """No input raises anything but a Refusal, and splitting it byte by byte changes nothing."""
    raw = b"".join(pieces)
    assert verdict([raw[at : at + 1] for at in range(len(raw))]) == verdict([raw])


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_a_changed_byte_is_harmless(data: st.DataObject) -> None:
    """One byte replaced, inserted or removed: refused, or read as something a second parser reads in the same way."""
    raw = data.draw(st.sampled_from([head(LENGTH) + BODY, head(CODED) + chunks(BODY[:20], BODY[20:])]))
    at = data.draw(st.integers(0, len(raw) - 1))
    new = data.draw(st.binary(max_size=2))
    changed = raw[:at] + new + raw[at + data.draw(st.integers(0, 1)) :]
    agree(changed)


@given(
    st.sampled_from([b"GET", b"POST", b"DELETE", b"OPTIONS"]),
    st.sampled_from([b"/", b"/v1/chat/completions", b"/a;b=c,d:@!$&'()*+~", b"/%2e%2E/x?y=/?z"]),
    st.sampled_from([b"1.1", b"1.0"]),
    st.lists(
        st.tuples(
            st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True),
            st.from_regex(rb"[\t !-~\x80-\xff]{0,20}", fullmatch=True),
        ),
        max_size=8,
    ),
    st.sampled_from([(), (b"Content-Length: 5",), (b"Transfer-Encoding: chunked",), (b"Connection: close",)]),
)
@example(b"GET", b"/", b"1.1", [(b"A", b" \t b \t ")], ())
@settings(max_examples=400, deadline=None)
def test_a_second_parser_agrees(
    method: bytes, target: bytes, version: bytes, fields: list[tuple[bytes, bytes]], more: tuple[bytes, ...]
) -> None:
    """What is accepted is accepted by llhttp too, with the same method, target, version, fields, body and reuse."""
    lines = [name + b":" + value for name, value in fields]
    raw = b"\r\n".join((method + b" " + target + b" HTTP/" + version, b"Host: a", *lines, *more, b"", b""))
    agree(raw + (b"5\r\nhello\r\n0\r\n\r\n" if b"chunked" in raw else b"hello"))


class Second:
    """llhttp's view of a request."""

    def __init__(self, raw: bytes) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.whole = self.begun = False
        self.keep_alive = False
        self.parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(httptools.HttpParserUpgrade, httptools.HttpParserError):
            self.parser.feed_data(raw)  # an error behind the first request is not about it

    def on_url(self, url: bytes) -> None:
        self.url += url if not self.begun else b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.begun:
            self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        if not self.begun:
            self.keep_alive = self.parser.should_keep_alive()
            self.line = (self.parser.get_method(), self.parser.get_http_version())
        self.begun = True

    def on_body(self, body: bytes) -> None:
        if not self.whole:
            self.body += body

    def on_message_complete(self) -> None:
        self.whole = True


def agree(raw: bytes) -> None:
    end = raw.find(b"\r\n\r\n") + 4
    try:
        found = judge(raw, end, LIMITS) if end >= 4 else None
        body = None if found is None else read_body(found.length, [raw[end:]])
    except Refusal:
        return
    if found is None or b"upgrade" in dict(found.fields):  # llhttp stops reading at an upgrade
        return
    second = Second(raw)
    assert second.begun, raw
    assert second.line == (found.method.encode(), found.version)
    assert second.url in (found.path, found.path + b"?" + found.query)
    assert second.fields == found.fields
    assert (second.body if second.whole else None) == body
    assert second.keep_alive or not found.keep_alive
