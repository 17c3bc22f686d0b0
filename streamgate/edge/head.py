"""Judges a request head: bytes in, a `Head` or a `Refusal` out; no I/O.

It is also the only reader of the head. A judge in front of a second parser leaves room for the two to read the same
bytes differently, and that room is what request smuggling lives in (RFC 9112 sections 2 to 7 and 11).
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple

from streamgate.errors import Reason, Refusal

CHUNKED = -1  # `Head.length` of a body that says its own length
MAX_QUERY = 1024  # no API behind us takes more than a flag in its query
_MAX_DIGITS = 18  # of a Content-Length: 10**18 - 1 fits every integer between here and the engine

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_FIELD = _TOKEN + rb"++:[\t -~\x80-\xff]*+\r\n"
_PCHAR = rb"[!$&-;=@-Z_a-z~]"  # RFC 3986 section 3.3, and "/" (inside &-;)
_HEAD = re.compile(
    rb"(?:\r\n)?"  # RFC 9112 section 2.2: one empty line before a request is tolerated
    rb"(" + _TOKEN + rb"++) "
    rb"(/(?:" + _PCHAR + rb"++|%[0-9A-Fa-f]{2})*+)"
    rb"(?:\?([!\"$-~]*+))?"  # printable ASCII but "#"
    rb" HTTP/1\.([01])\r\n"
    rb"((?:" + _FIELD + rb")*+)\r\n"
)
_FIELDS = re.compile(rb"([^:\r]++):[ \t]*+([^\r]*+)\r\n")
FIELD_LINES = re.compile(rb"(?:" + _FIELD + rb")*+")
# What no head may hold: a control byte, a CR without its LF, an LF without its CR.
ILLEGAL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]|(?<!\r)\n")
_NAME = re.compile(_TOKEN + rb"++")
_TARGET_START = re.compile(rb"(?:\r\n)?[^ \r\n]{1,32} (/[^ ?#\r\n]*)")
_REG_NAME = re.compile(rb"([0-9A-Za-z._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_CODINGS = re.compile(_TOKEN + rb"++(?:[ \t]*,[ \t]*" + _TOKEN + rb"++)*+")

_METHODS = {method.encode(): method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
_ALLOW = ((b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),)
# Fields whose repetition changes how a message is framed, routed or waited for.
_SINGLE = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))


class Head(NamedTuple):
    """A request head that was judged good. Field names in lower case; `length` in bytes, or `CHUNKED`."""

    method: str
    path: bytes
    query: bytes
    version: str
    fields: list[tuple[bytes, bytes]]
    length: int
    keep_alive: bool
    expects: bool  # 100-continue


class HeadLimits(NamedTuple):
    """Bytes, and a count of fields."""

    line: int = 8192
    head: int = 32768
    fields: int = 100


def bad(message: str, code: str = "bad_request") -> Refusal:
    return Refusal(Reason.BAD_REQUEST, 400, message, code=code)


def judge(received: bytes, end: int, limits: HeadLimits) -> Head:
    """Read the head in `received[:end]`, which ends with an empty line; raise `Refusal` if it breaks any rule."""
    if end > limits.head:
        raise _too_large(431, "The request head is too large.")
    found = _HEAD.fullmatch(received, 0, end)
    if found is None:
        raise _fault_in(received[:end], limits)
    if found.end(4) > limits.line:
        raise _too_large(414, "The request line is too long.")
    name, path, query, minor, block = found.groups(b"")
    method = _METHODS.get(name)
    if method is None:
        raise Refusal(Reason.METHOD, 405, "This method is not served.", code="method_not_allowed", headers=_ALLOW)
    if len(query) > MAX_QUERY:
        raise _too_large(414, "The query is too long.")
    fields = [(name.lower(), value.rstrip(b" \t")) for name, value in _FIELDS.findall(block)]
    if len(fields) > limits.fields:
        raise _too_large(431, "The request has too many header fields.")
    return _weigh(method, path, query, minor == b"1", fields)


def _weigh(method: str, path: bytes, query: bytes, modern: bool, fields: list[tuple[bytes, bytes]]) -> Head:
    """Judge the fields that say where a message ends, whom it is for, and what happens to the connection."""
    known = dict(fields)
    if len(known) != len(fields):
        _refuse_repeated(fields)
    host = known.get(b"host")
    if host is None:
        if modern:
            raise bad("The Host header is missing.", "bad_host")
    elif not is_host(host):
        raise bad("The Host header is not a valid host name with an optional port.", "bad_host")
    length = _body_length(known.get(b"content-length"), known.get(b"transfer-encoding"), modern)
    expect = known.get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        raise Refusal(Reason.BAD_REQUEST, 417, "This expectation is not understood.", code="bad_expect")
    keep_alive = modern and (b"connection" not in known or _stays(fields))
    version = "1.1" if modern else "1.0"
    return Head(method, path, query, version, fields, length, keep_alive, modern and expect is not None)


def _refuse_repeated(fields: list[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in fields]
    for name in _SINGLE:
        if names.count(name) > 1:
            raise bad(f"The header {name.decode()} may appear only once.", "repeated_header")


def _body_length(length: bytes | None, coding: bytes | None, modern: bool) -> int:
    if coding is not None:
        if length is not None:
            raise bad("Content-Length and Transfer-Encoding exclude each other.", "bad_framing")
        if not modern:
            raise bad("HTTP/1.0 has no Transfer-Encoding.", "bad_framing")
        return _chunked(coding)
    if length is None:
        return 0
    if not length.isdigit() or len(length) > _MAX_DIGITS:
        raise bad("The Content-Length is not a plain number.", "bad_framing")
    return int(length)


def _chunked(coding: bytes) -> int:
    coding = coding.lower()
    if coding == b"chunked":
        return CHUNKED
    codings = [part.strip(b" \t") for part in coding.split(b",")]
    if not _CODINGS.fullmatch(coding) or codings.count(b"chunked") > 1 or b"identity" in codings:
        raise bad("The Transfer-Encoding is not valid.", "bad_framing")
    raise Refusal(Reason.BAD_REQUEST, 501, "Only the chunked Transfer-Encoding is understood.", code="bad_framing")


def _stays(fields: list[tuple[bytes, bytes]]) -> bool:
    """Whether the connection may be used again; a Connection header may not name what frames or routes a message."""
    options = {
        option.strip(b" \t").lower() for name, value in fields if name == b"connection" for option in value.split(b",")
    }
    if options & _SINGLE:
        raise bad("The Connection header names a field that may not be dropped.", "bad_connection")
    return b"close" not in options


@lru_cache(maxsize=256)
def is_host(host: bytes) -> bool:
    """Whether this is exactly one host name or address with an optional port.

    Narrower than RFC 3986: no percent-encoding and no sub-delimiters, which no real host name has and which let two
    readers see two hosts (a comma, an `@`, a `%2f`).
    """
    found = _REG_NAME.fullmatch(host)
    if found is None or (found[2] is not None and not 0 < int(found[2]) < 65536):
        return False
    if host[0] != ord("["):
        return True
    try:
        ipaddress.IPv6Address(found[1][1:-1].decode())
    except ValueError:
        return False
    return True


def judge_partial(received: bytes | bytearray, since: int, limits: HeadLimits) -> None:
    """Raise `Refusal` if no further byte can make `received` a good head; bytes before `since` were judged before.

    A client that never sends CRLF would otherwise sit out the head's clock before it learns why.
    """
    if ILLEGAL.search(received, max(0, since - 1)):
        raise bad("The request head holds a byte or a line end that HTTP does not allow.", "bad_bytes")
    if len(received) > limits.head:
        raise _too_large(431, "The request head is too large.")
    end = received.find(b"\r\n", 2)  # behind one empty line, if there is one
    if end == -1:
        if len(received) > limits.line:
            raise _too_large(414, "The request line is too long.")
    elif end >= since - 1:
        fault = _fault_in_line(bytes(received[:end]).removeprefix(b"\r\n"), limits)
        if fault is not None:
            raise fault


def path_of(received: bytes | bytearray) -> bytes:
    """The path a head seems to ask for, for choosing the form of an error; empty when it cannot be told."""
    found = _TARGET_START.match(received)
    return b"" if found is None else bytes(found[1])


def _too_large(status: int, message: str) -> Refusal:
    return Refusal(Reason.TOO_LARGE, status, message, code="head_too_large")


def _fault_in(head: bytes, limits: HeadLimits) -> Refusal:
    """Say what is wrong with a head that the grammar refused."""
    if ILLEGAL.search(head):
        return bad("The request head holds a byte or a line end that HTTP does not allow.", "bad_bytes")
    line, _, fields = head.removeprefix(b"\r\n").partition(b"\r\n")
    fault = _fault_in_line(line, limits)
    if fault is not None:
        return fault
    if fields.startswith((b" ", b"\t")) or b"\r\n " in fields or b"\r\n\t" in fields:
        return bad("A header field may not be folded over several lines.", "bad_header")
    return bad("A header field is not of the form name: value.", "bad_header")


def _fault_in_line(line: bytes, limits: HeadLimits) -> Refusal | None:
    if len(line) > limits.line:
        return _too_large(414, "The request line is too long.")
    parts = line.split(b" ")
    if len(parts) != 3 or not _NAME.fullmatch(parts[0]):
        return bad("The request line is not of the form METHOD target HTTP/1.1.", "bad_request_line")
    if parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return bad("Only HTTP/1.1 and HTTP/1.0 are spoken here.", "bad_version")
    if _HEAD.fullmatch(line + b"\r\n\r\n") is None:
        return _fault_in_target(parts[0])
    return None


def _fault_in_target(method: bytes) -> Refusal:
    if method in (b"CONNECT", b"TRACE"):
        return Refusal(Reason.METHOD, 405, "This method is not served.", code="method_not_allowed", headers=_ALLOW)
    return bad("The request target is not a path with an optional query.", "bad_target")
