"""What is left of a client's rates, as headers."""

from __future__ import annotations

import pytest

from streamgate.admission.books import Quota
from streamgate.relay.quota import NAMES, duration, limited, rate_headers

WHOLE = Quota(
    limit_requests=60, remaining_requests=59, reset_requests=1.0, limit_tokens=9000, remaining_tokens=0,
    reset_tokens=61.2,
)  # fmt: skip
HEADERS = [
    (b"x-ratelimit-limit-requests", b"60"),
    (b"x-ratelimit-remaining-requests", b"59"),
    (b"x-ratelimit-reset-requests", b"1s"),
    (b"x-ratelimit-limit-tokens", b"9000"),
    (b"x-ratelimit-remaining-tokens", b"0"),
    (b"x-ratelimit-reset-tokens", b"1m1s"),
]


def test_six_headers() -> None:
    """Limit, rest and reset of requests and of tokens: the names that browsers may see."""
    assert rate_headers(WHOLE) == HEADERS
    assert tuple(name.decode() for name, _ in HEADERS) == NAMES


def test_only_what_is_limited() -> None:
    """No header of a unit without a limit, and none at all where there is none; what is in debt has 0 left."""
    assert rate_headers(None) == []
    assert rate_headers(Quota()) == []
    assert rate_headers(Quota(limit_tokens=9000, remaining_tokens=0, reset_tokens=61.2)) == HEADERS[3:]
    assert rate_headers(Quota(limit_requests=1, remaining_requests=-5, reset_requests=None)) == [
        (b"x-ratelimit-limit-requests", b"1"),
        (b"x-ratelimit-remaining-requests", b"0"),
        (b"x-ratelimit-reset-requests", b"0ms"),
    ]


def test_ours_in_place_of_theirs() -> None:
    """Where a client has limits here, it reads of those and of no other; where it has none, the upstream's pass."""
    theirs = [(b"x-ratelimit-limit-requests", b"7"), (b"x-ratelimit-other", b"8"), (b"content-type", b"text/plain")]
    assert limited(theirs, HEADERS[:3]) == [(b"content-type", b"text/plain"), *HEADERS[:3]]
    assert limited(theirs, []) == theirs


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, b"0ms"),
        (0.0204, b"20ms"),
        (0.9994, b"999ms"),
        (0.9996, b"1s"),
        (1.0, b"1s"),
        (1.256, b"1.26s"),
        (59.99, b"59.99s"),
        (59.996, b"1m0s"),
        (60.0, b"1m0s"),
        (359.7, b"6m0s"),
    ],
)
def test_durations_as_openai_writes_them(seconds: float, written: bytes) -> None:
    """Milliseconds, seconds, or minutes and seconds; rounding never makes 1000 ms or 60 s."""
    assert duration(seconds) == written
