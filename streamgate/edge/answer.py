"""The bytes of a response head, and of a refusal; pure.

Whatever an upstream put in a header, what leaves here is one well-formed head: hop-by-hop fields are ours to decide,
and a field that could split the response is dropped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from enum import Enum
from itertools import chain
from typing import NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from streamgate.edge.head import FIELD_LINES
from streamgate.errors import Refusal
from streamgate.sse.outlet import Headers

# RFC 9110 section 7.6.1, and the two that frame the body: this connection's, whoever sent them.
_OURS = frozenset(
    (
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_CLOSE = re.compile(rb"(?:^|,)[ \t]*close[ \t]*(?:,|$)", re.IGNORECASE)
_MAX_RETRY_AFTER = 60  # one SDK sleeps whatever it is told


class Framing(Enum):
    """How the client learns where the body ends."""

    CHUNKED = "chunked"
    COUNTED = "counted"  # by content-length
    CLOSED = "closed"  # by the end of the connection: HTTP/1.0
    BODYLESS = "bodyless"  # HEAD, 204, 304


class Composed(NamedTuple):
    """A response head; `length` is that of a counted body in bytes."""

    raw: bytes
    framing: Framing
    length: int
    keep_alive: bool


def compose(
    status: int, headers: Headers, defaults: Headers, *, method: str, version: str, keep_alive: bool
) -> Composed:
    """The head of a response to a `method` request of HTTP `version` (names in `headers` in lower case)."""
    lines = [STATUS_LINE[status]]
    length = -1
    for name, value in chain(defaults, headers):
        if name not in _OURS:
            lines.append(b"%b: %b\r\n" % (name, value))
        elif name == b"content-length" and value.isdigit():
            length = int(value)
        elif name == b"connection" and _CLOSE.search(value):
            keep_alive = False
    framing = _framing(status, method, version, length)
    keep_alive = keep_alive and framing is not Framing.CLOSED
    if length >= 0 and status not in (204, 304):
        lines.append(b"content-length: %d\r\n" % length)
    elif framing is Framing.CHUNKED:
        lines.append(b"transfer-encoding: chunked\r\n")
    lines.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
    return Composed(_whole(lines), framing, length, keep_alive)


def _framing(status: int, method: str, version: str, length: int) -> Framing:
    if method == "HEAD" or status in (204, 304):
        return Framing.BODYLESS
    if length >= 0:
        return Framing.COUNTED
    return Framing.CHUNKED if version == "1.1" else Framing.CLOSED


def _whole(lines: list[bytes]) -> bytes:
    """Join a status line, field lines and the end of a head; drop field lines that are not one well-formed line."""
    status, *fields, end = lines
    block = b"".join(fields)
    if block.count(b"\n") != len(fields) or not FIELD_LINES.fullmatch(block):
        block = b"".join(line for line in fields if line.count(b"\n") == 1 and FIELD_LINES.fullmatch(line))
    return status + block + end


def refusal_bytes(refusal: Refusal, body: bytes, defaults: Iterable[tuple[bytes, bytes]], *, head_only: bool) -> bytes:
    """A whole response that says why, in JSON, and that the connection ends here."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *refusal.headers]
    if refusal.retry_after is not None:
        wait = min(refusal.retry_after, _MAX_RETRY_AFTER)
        headers.append((b"retry-after", b"%d" % math.ceil(wait)))
        headers.append((b"retry-after-ms", b"%d" % math.ceil(wait * 1000)))
    method = "HEAD" if head_only else "GET"
    composed = compose(refusal.status, headers, list(defaults), method=method, version="1.1", keep_alive=False)
    return composed.raw if head_only else composed.raw + body
