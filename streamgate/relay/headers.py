"""Which headers pass, either way. Both lists say what passes; everything else does not."""

from __future__ import annotations

import re
from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]

# To the upstream (the SDKs' own and W3C trace context): never cookies, forwarding claims, baggage or Last-Event-ID.
_UP = frozenset(
    (
        b"content-type accept user-agent openai-beta anthropic-version anthropic-beta idempotency-key "
        b"x-client-request-id traceparent tracestate"
    ).split()
)
# Credentials and billing pass only to an upstream whose `auth` is `client`.
_CREDENTIALS = frozenset(b"authorization x-api-key api-key openai-organization openai-project".split())

# To the client: what SDKs read.
_DOWN = frozenset(
    (
        b"content-type openai-processing-ms openai-version openai-organization openai-model "
        b"anthropic-organization-id retry-after retry-after-ms x-should-retry"
    ).split()
)
_DOWN_PREFIXES = (b"x-ratelimit-", b"anthropic-ratelimit-")

_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_TRACESTATE = 512
_UNSAFE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def forwarded(
    headers: Headers, more: frozenset[bytes], request_id: str
) -> tuple[tuple[tuple[bytes, bytes], ...], tuple[tuple[bytes, bytes], ...]]:
    """The client's headers for an upstream, and apart from them its credentials."""
    named = _nominated(headers)
    passed: list[tuple[bytes, bytes]] = []
    credentials: list[tuple[bytes, bytes]] = []
    for pair in headers:
        name = pair[0]
        if name in named:
            continue
        if name in _UP or name in more or name.startswith(b"x-stainless-"):
            passed.append(pair)
        elif name in _CREDENTIALS:
            credentials.append(pair)
    passed = _traced(passed)
    passed.append((b"x-request-id", request_id.encode()))
    return tuple(passed), tuple(credentials)


def _nominated(headers: Headers) -> frozenset[bytes]:
    """Names that `Connection` declares hop-by-hop."""
    lists = [value for name, value in headers if name == b"connection"]
    return frozenset(token.strip().lower() for value in lists for token in value.split(b","))


def _traced(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """An invalid or repeated `traceparent` starts a new trace: it and its state stay behind."""
    parents = [value for name, value in headers if name == b"traceparent"]
    if not parents and all(name != b"tracestate" for name, _ in headers):
        return headers
    states = sum(len(value) for name, value in headers if name == b"tracestate")
    good = len(parents) == 1 and _TRACEPARENT.fullmatch(parents[0]) is not None
    dropped = (
        () if good and states <= _MAX_TRACESTATE else (b"tracestate",) if good else (b"traceparent", b"tracestate")
    )
    return [pair for pair in headers if pair[0] not in dropped]


def returned(headers: Headers, request_id: str) -> tuple[list[tuple[bytes, bytes]], str]:
    """The response's headers for the client, ours included, and the upstream's own request id."""
    named = _nominated(headers)
    passed: list[tuple[bytes, bytes]] = []
    upstream_id = b""
    for pair in headers:
        name, value = pair
        if name in named:
            continue
        if (name in _DOWN or name.startswith(_DOWN_PREFIXES)) and not _UNSAFE.search(value):
            passed.append(pair)
        elif name in (b"x-request-id", b"request-id"):
            upstream_id = value
    if upstream_id and not _UNSAFE.search(upstream_id):
        passed.append((b"x-upstream-request-id", upstream_id[:256]))
    passed += own(request_id)
    return passed, upstream_id.decode("latin-1")[:256]


def own(request_id: str) -> list[tuple[bytes, bytes]]:
    """What every response carries: kept from caches and from buffering proxies, and both names of the request id."""
    name = request_id.encode()
    return [
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"x-request-id", name),
        (b"request-id", name),
    ]
