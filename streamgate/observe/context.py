"""W3C trace context, level 1: read from a client's headers, written for an upstream's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

Header = tuple[bytes, bytes]

_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})")
LONGEST_STATE = 512  # characters: what the specification asks everybody to carry
NAMES = frozenset((b"traceparent", b"tracestate"))
SAMPLED = 1


class Incoming(NamedTuple):
    """The trace that a client says this request belongs to. `state` is its `tracestate`, unread."""

    trace: int
    span: int
    sampled: bool
    state: bytes


def incoming(headers: Sequence[Header]) -> Incoming | None:
    """None without exactly one valid `traceparent`; a `tracestate` that is too long is left behind."""
    parents = [value for name, value in headers if name == b"traceparent"]
    if len(parents) != 1:
        return None
    match = _PARENT.fullmatch(parents[0])
    if match is None:
        return None
    state = b",".join(value for name, value in headers if name == b"tracestate")
    flags = int(match[3], 16)
    return Incoming(int(match[1], 16), int(match[2], 16), bool(flags & SAMPLED), state[: _kept(state)])


def _kept(state: bytes) -> int:
    return len(state) if len(state) <= LONGEST_STATE else 0


def outgoing(
    headers: Sequence[Header], trace: int, span: int, *, sampled: bool, state: bytes = b""
) -> tuple[Header, ...]:
    """These headers, with a context of our own in place of the client's."""
    own: list[Header] = [pair for pair in headers if pair[0] not in NAMES]
    own.append((b"traceparent", b"00-%032x-%016x-%02x" % (trace, span, sampled)))
    if state:
        own.append((b"tracestate", state))
    return tuple(own)
