"""The head judge, as tables; the raw requests of tests/wire say the same of a whole server."""

from __future__ import annotations

import pytest

from streamgate.edge.head import CHUNKED, Head, HeadLimits, is_host, judge, judge_partial, path_of
from streamgate.errors import Reason, Refusal

LIMITS = HeadLimits()
GOOD = (
    b"POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 5\r\n"
    b"Authorization:  Bearer x \t\r\nConnection: Keep-Alive\r\n\r\n"
)


def read(head: bytes) -> Head:
    return judge(head, len(head), LIMITS)


def refusal(head: bytes, limits: HeadLimits = LIMITS) -> Refusal:
    with pytest.raises(Refusal) as caught:
        judge(head, len(head), limits)
    return caught.value


def test_a_good_head_is_read_whole() -> None:
    """Names are lower case, values are stripped, and what follows the head in the buffer is not looked at."""
    head = judge(GOOD + b"\x00hello", len(GOOD), LIMITS)
    assert head == Head(
        "POST",
        b"/v1/chat/completions",
        b"a=b",
        "1.1",
        [
            (b"host", b"gateway.test"),
            (b"content-length", b"5"),
            (b"authorization", b"Bearer x"),
            (b"connection", b"Keep-Alive"),
        ],
        5,
        keep_alive=True,
        expects=False,
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (b"", ("1.1", 0, True, False)),
        (b"Connection: close\r\n", ("1.1", 0, False, False)),
        (b"Connection: x, CLOSE\r\n", ("1.1", 0, False, False)),
        (b"Connection: x\r\nConnection: close\r\n", ("1.1", 0, False, False)),
        (b"Transfer-Encoding: Chunked\r\n", ("1.1", CHUNKED, True, False)),
        (b"Expect: 100-Continue\r\n", ("1.1", 0, True, True)),
    ],
)
def test_what_the_fields_mean(fields: bytes, expected: tuple[object, ...]) -> None:
    """Framing, reuse and expectation are read off the fields that say so."""
    head = read(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
    assert (head.version, head.length, head.keep_alive, head.expects) == expected


def test_http_1_0_closes_and_is_not_told_to_continue() -> None:
    """HTTP/1.0 needs no Host, is never kept alive, and its expectations are ignored (RFC 9110 section 10.1.1)."""
    head = read(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n")
    assert (head.version, head.keep_alive, head.expects) == ("1.0", False, False)


@pytest.mark.parametrize(
    ("head", "status", "code", "reason"),
    [
        (GOOD.replace(b"POST", b"TRACE"), 405, "method_not_allowed", Reason.METHOD),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405, "method_not_allowed", Reason.METHOD),
        (GOOD.replace(b"gateway.test", b"a/b"), 400, "bad_host", Reason.BAD_REQUEST),
        (GOOD.replace(b"Host", b"Hosts"), 400, "bad_host", Reason.BAD_REQUEST),
        (GOOD.replace(b"Authorization", b"Host"), 400, "repeated_header", Reason.BAD_REQUEST),
        (GOOD.replace(b"Content-Length: 5", b"Transfer-Encoding: cow"), 501, "bad_framing", Reason.BAD_REQUEST),
        (GOOD.replace(b"Length: 5", b"Length: +5"), 400, "bad_framing", Reason.BAD_REQUEST),
        (GOOD.replace(b"Keep-Alive", b"Host"), 400, "bad_connection", Reason.BAD_REQUEST),
        (GOOD.replace(b"HTTP/1.1", b"HTTP/2.0"), 400, "bad_version", Reason.BAD_REQUEST),
        (GOOD.replace(b"/v1", b"http://a/v1"), 400, "bad_target", Reason.BAD_REQUEST),
        (GOOD.replace(b"POST ", b"POST"), 400, "bad_request_line", Reason.BAD_REQUEST),
        (GOOD.replace(b"Content-Length:", b"Content-Length :"), 400, "bad_header", Reason.BAD_REQUEST),
        (GOOD.replace(b"Authorization: ", b" "), 400, "bad_header", Reason.BAD_REQUEST),
        (GOOD.replace(b"Bearer", b"\x00"), 400, "bad_bytes", Reason.BAD_REQUEST),
        (GOOD.replace(b"Connection: Keep-Alive", b"Expect: x"), 417, "bad_expect", Reason.BAD_REQUEST),
        (GOOD.replace(b"a=b", b"a" * 1025), 414, "head_too_large", Reason.TOO_LARGE),
        (GOOD.replace(b"/v1", b"/" + b"v" * 9000), 414, "head_too_large", Reason.TOO_LARGE),
        (GOOD.replace(b"/v1", b"/ " + b"v" * 9000), 414, "head_too_large", Reason.TOO_LARGE),
        (GOOD.replace(b"Bearer", b"B" * 33000), 431, "head_too_large", Reason.TOO_LARGE),
        (GOOD.replace(b"Host", b"A: b\r\n" * 97 + b"Host"), 431, "head_too_large", Reason.TOO_LARGE),
    ],
)
def test_what_is_refused_says_why(head: bytes, status: int, code: str, reason: Reason) -> None:
    """Each broken rule has a status, a code and a reason of its own."""
    refused = refusal(head)
    assert (refused.status, refused.code, refused.reason) == (status, code, reason)


def test_405_names_the_methods() -> None:
    """A 405 carries Allow (RFC 9110 section 15.5.6)."""
    assert dict(refusal(GOOD.replace(b"POST", b"TRACE")).headers)[b"allow"].startswith(b"GET, HEAD")


def test_the_error_of_a_long_line_comes_before_its_other_faults() -> None:
    """A request line that is both too long and malformed is too long: the limit bounds what is looked at."""
    assert refusal(b"GET  /" + b"a" * 9000 + b"\r\n\r\n").status == 414


@pytest.mark.parametrize("host", [b"a", b"a.b:1", b"[::1]", b"[::ffff:1.2.3.4]:65535", b"1.2.3.4", b"a_b", b"A-b.~"])
def test_hosts_that_are_one_host(host: bytes) -> None:
    """A name, an IPv4 address or a bracketed IPv6 address, with or without a port."""
    assert is_host(host)


@pytest.mark.parametrize(
    "host", [b"", b"a:", b":1", b"a:65536", b"a:0", b"a,b", b"a b", b"[::1", b"[a]", b"[1:2]", b"[::1%1]"]
)
def test_hosts_that_are_not(host: bytes) -> None:
    """Anything that two readers could take for two hosts is no host."""
    assert not is_host(host)


@pytest.mark.parametrize(
    "received",
    [
        b"",
        b"G",
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\r",
        b"GET / HTTP/1.1\r\n",
        b"\r\nGET /",
        b"GET / HTTP/1.1\r\nA: b\r\nC",
    ],
)
def test_a_head_that_may_still_become_good_is_waited_for(received: bytes) -> None:
    """No verdict before the bytes force one."""
    judge_partial(received, 0, LIMITS)


@pytest.mark.parametrize(
    ("received", "since", "status"),
    [
        (b"GET / HTTP/1.1\nHost: a\n\n", 0, 400),
        (b"GET / HTTP/1.1\rH", 15, 400),
        (b"GET /\r\n", 6, 400),
        (b"GET /\r\nHost", 0, 400),
        (b"\r\nGET *\r\n", 0, 400),
        (b"\x16\x03\x01", 0, 400),
        (b"GET /" + b"a" * 8200, 8000, 414),
        (b"GET /" + b"a" * 8200 + b" HTTP/1.1\r\n", 8210, 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 6000, 30000, 431),
    ],
)
def test_a_head_that_cannot_become_good_is_refused_at_once(received: bytes, since: int, status: int) -> None:
    """A client that will never send an empty line learns why now, not when the head's clock runs out."""
    with pytest.raises(Refusal) as caught:
        judge_partial(received, since, LIMITS)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("received", "path"),
    [
        (b"POST /v1/messages?a HTTP/1.1\r\n", b"/v1/messages"),
        (b"\r\nGET /api/chat", b"/api/chat"),
        (b"GET /v1#a b", b"/v1"),
        (b"GET http://a/ HTTP/1.1", b""),
        (b"\x16\x03", b""),
    ],
)
def test_the_path_an_error_is_worded_for(received: bytes, path: bytes) -> None:
    """The family of an error is told from the path, as far as there is one."""
    assert path_of(received) == path
