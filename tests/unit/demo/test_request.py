"""Requests as the demo upstream reads them."""

from __future__ import annotations

import json

import pytest

from streamgate.demo.request import BadRequest, Call, Cutter, Family, Request, call_of

PLAIN = b"POST /v1/completions?x=1 HTTP/1.1\r\nX-Request-Id: a\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2;ext=1\r\n{}\r\n1\r\n \r\n0\r\n\r\n"
BARE = b"GET /v1/models HTTP/1.1\r\n\r\n"


def cut(*pieces: bytes) -> list[Request]:
    cutter, found = Cutter(), []
    for piece in pieces:
        cutter.feed(piece)
        while (request := cutter.take()) is not None:
            found.append(request)
    return found


def test_requests_are_the_same_under_every_split() -> None:
    """Three requests in a row, cut at each byte, are the same three requests, byte for byte."""
    wire = PLAIN + CHUNKED + BARE
    whole = cut(wire)
    assert [request.raw for request in whole] == [PLAIN, CHUNKED, BARE]
    assert [request.body for request in whole] == [b"{}", b"{} ", b""]
    assert cut(*(wire[at : at + 1] for at in range(len(wire)))) == whole
    assert (whole[0].path, whole[0].target, whole[0].rid) == ("/v1/completions", "/v1/completions?x=1", "a")


def test_what_is_not_a_request_is_refused() -> None:
    """Garbage, a wrong length and a wrong chunk size are told apart from a request that is still coming."""
    for wire in (
        b"hello\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        CHUNKED.replace(b"2;", b"zz;"),
    ):
        with pytest.raises(BadRequest):
            cut(wire)


def test_a_long_request_is_kept_in_part() -> None:
    """Only the beginning of a large request is remembered."""
    (request,) = cut(PLAIN)
    assert request.shortened(len(PLAIN)) is request
    assert request.shortened(10).raw == PLAIN[:10]


def test_what_a_request_asks_for() -> None:
    """Fields of the wrong type, or a body that is not an object, mean the defaults."""
    body = {
        "model": "demo-n1",
        "stream": True,
        "n": 2,
        "stream_options": {"include_usage": True},
        "input": ["a", "b"],
    }
    call = call_of(request("/v1/chat/completions", json.dumps(body).encode(), ("connection", "Close")), 7)
    assert (call.family, call.rid, call.model, call.stream, call.choices) == (
        Family.CHAT, "request-7", "demo-n1", True, 2,
    )  # fmt: skip
    assert (call.include_usage, call.inputs, call.last) == (True, 2, True)
    for odd in (b"[1]", b"{", b'{"stream": "true", "n": 99, "stream_options": 1, "input": "x"}', b"\xff"):
        call = call_of(request("/v1/models/x", odd), 1)
        assert call == Call(Family.MODELS, "request-1", 1, prompt_tokens=call.prompt_tokens, size=len(odd))


def request(path: str, body: bytes, *headers: tuple[str, str]) -> Request:
    return Request("POST", path, headers, body, body)
