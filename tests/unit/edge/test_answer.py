"""Response heads, as tables."""

from __future__ import annotations

import pytest

from streamgate.edge.answer import Composed, Framing, compose, refusal_bytes
from streamgate.errors import Reason, Refusal

DATE = [(b"date", b"now")]
TYPE = (b"content-type", b"text/event-stream")


def composed(*headers: tuple[bytes, bytes], status: int = 200, method: str = "POST", version: str = "1.1") -> Composed:
    return compose(status, headers, DATE, method=method, version=version, keep_alive=version == "1.1")


def test_a_stream_is_chunked() -> None:
    """Without a length the body is chunked and the connection stays."""
    assert composed(TYPE) == Composed(
        b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        Framing.CHUNKED,
        -1,
        keep_alive=True,
    )


@pytest.mark.parametrize(
    ("answer", "framing", "keep_alive", "said", "unsaid"),
    [
        (composed((b"content-length", b"5")), Framing.COUNTED, True, b"content-length: 5", b"chunked"),
        (composed((b"content-length", b"x")), Framing.CHUNKED, True, b"chunked", b"content-length"),
        (composed((b"connection", b"x, Close")), Framing.CHUNKED, False, b"connection: close", b"Close"),
        (composed((b"connection", b"keep-alive")), Framing.CHUNKED, True, b"chunked", b"connection"),
        (composed((b"connection", b"closed")), Framing.CHUNKED, True, b"chunked", b"connection"),
        (composed((b"transfer-encoding", b"gzip"), (b"trailer", b"a")), Framing.CHUNKED, True, b"chunked", b"gzip"),
        (composed(version="1.0"), Framing.CLOSED, False, b"connection: close", b"chunked"),
        (composed((b"content-length", b"5"), version="1.0"), Framing.COUNTED, False, b"content-length: 5", b"chunked"),
        (composed(method="HEAD"), Framing.BODYLESS, True, b"200 OK", b"chunked"),
        (composed((b"content-length", b"5"), method="HEAD"), Framing.BODYLESS, True, b"content-length: 5", b"chunked"),
        (composed((b"content-length", b"5"), status=204), Framing.BODYLESS, True, b"204 No", b"content-length"),
        (composed(status=304), Framing.BODYLESS, True, b"304 Not", b"chunked"),
        (composed((b"a", b"b\r\nc: d"), (b"e", b"f")), Framing.CHUNKED, True, b"e: f", b"c: d"),
        (composed((b"a b", b"c"), (b"e", b"f\x00")), Framing.CHUNKED, True, b"date: now", b"a b"),
    ],
)
def test_framing_and_connection(
    answer: Composed, framing: Framing, keep_alive: bool, said: bytes, unsaid: bytes
) -> None:
    """The framing follows the request and the length; hop-by-hop fields are ours; a field that splits is dropped."""
    assert (answer.framing, answer.keep_alive) == (framing, keep_alive)
    assert said in answer.raw
    assert unsaid not in answer.raw
    assert answer.raw.endswith(b"\r\n\r\n")


def test_a_refusal_says_why_when_to_come_back_and_that_it_closes() -> None:
    """Status, JSON, Allow and Retry-After of at most 60 s, connection: close."""
    refusal = Refusal(Reason.OVERLOAD, 503, "busy", retry_after=90.5, headers=((b"allow", b"GET"),))
    head, _, body = refusal_bytes(refusal, b"{}", DATE, head_only=False).partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 503 Service Unavailable",
        b"date: now",
        b"content-type: application/json",
        b"allow: GET",
        b"retry-after: 60",
        b"retry-after-ms: 60000",
        b"content-length: 2",
        b"connection: close",
    ]
    assert body == b"{}"


def test_a_refused_head_request_gets_no_body() -> None:
    """HEAD has the same head and nothing behind it."""
    answer = refusal_bytes(Refusal(Reason.METHOD, 405, "no"), b"{}", DATE, head_only=True)
    assert answer.endswith(b"content-length: 2\r\nconnection: close\r\n\r\n")
