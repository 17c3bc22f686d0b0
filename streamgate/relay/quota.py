"""What is left of a client's rates, as headers that the SDKs of OpenAI read, and the names that browsers may see."""

from __future__ import annotations

from typing import Final

from streamgate.admission.books import Quota
from streamgate.relay.headers import Headers

PREFIX: Final = b"x-ratelimit-"
NAMES: Final = tuple(
    f"x-ratelimit-{what}-{unit}" for unit in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)


def rate_headers(quota: Quota | None) -> list[tuple[bytes, bytes]]:
    """Of the limit that is nearest; none where there is no limit."""
    if quota is None:
        return []
    requests = _of(b"requests", quota.limit_requests, quota.remaining_requests, quota.reset_requests)
    return requests + _of(b"tokens", quota.limit_tokens, quota.remaining_tokens, quota.reset_tokens)


def limited(headers: list[tuple[bytes, bytes]], quota: Headers) -> list[tuple[bytes, bytes]]:
    """An answer's headers with these in place of the upstream's own of the kind."""
    if not quota:
        return headers
    return [*(pair for pair in headers if not pair[0].startswith(PREFIX)), *quota]


def _of(unit: bytes, limit: int | None, left: int | None, reset: float | None) -> list[tuple[bytes, bytes]]:
    if limit is None:
        return []
    return [
        (PREFIX + b"limit-" + unit, b"%d" % limit),
        (PREFIX + b"remaining-" + unit, b"%d" % max(0, left or 0)),
        (PREFIX + b"reset-" + unit, duration(reset or 0.0)),
    ]


def duration(seconds: float) -> bytes:
    """As OpenAI writes it: `20ms`, `1.5s`, `6m0s`."""
    milliseconds, hundredths = round(seconds * 1000), round(seconds, 2)
    if milliseconds < 1000:
        return b"%dms" % milliseconds
    if hundredths < 60.0:
        return f"{hundredths:g}s".encode()
    minutes, rest = divmod(round(seconds), 60)
    return b"%dm%ds" % (minutes, rest)
