"""Which headers pass, either way."""

from __future__ import annotations

import pytest

from streamgate.relay.headers import forwarded, own, returned

NONE: frozenset[bytes] = frozenset()
PARENT = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
ID = (b"x-request-id", b"r")


def up(*headers: tuple[bytes, bytes], more: frozenset[bytes] = NONE) -> list[tuple[bytes, bytes]]:
    """What goes up, less the request id that always does."""
    passed, _ = forwarded(headers, more, "r")
    assert passed[-1] == ID
    return list(passed[:-1])


def down(*headers: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """What comes down, less the gateway's own."""
    passed, _ = returned(headers, "r")
    ours = own("r")
    assert passed[-len(ours) :] == ours
    return passed[: -len(ours)]


def test_the_list_passes_in_order() -> None:
    """What is on it passes as it came; what is not stays."""
    kept = [(b"content-type", b"application/json"), (b"x-stainless-os", b"Linux"), (b"user-agent", b"me")]
    assert up(kept[0], (b"cookie", b"a=b"), kept[1], (b"host", b"x"), kept[2]) == kept


def test_the_clients_request_id_is_replaced() -> None:
    """By the one that this request has, once."""
    assert up((b"x-request-id", b"theirs"), (b"request-id", b"theirs")) == []


def test_more_by_configuration() -> None:
    """Names the operator added."""
    assert up((b"x-team", b"blue"), (b"x-other", b"red"), more=frozenset([b"x-team"])) == [(b"x-team", b"blue")]


def test_credentials_are_kept_apart() -> None:
    """For upstreams that may see them."""
    keys = ((b"authorization", b"Bearer a"), (b"x-api-key", b"b"), (b"openai-organization", b"o"))
    passed, credentials = forwarded((*keys, (b"accept", b"*/*")), NONE, "r")
    assert credentials == keys
    assert passed == ((b"accept", b"*/*"), ID)


def test_connection_nominates() -> None:
    """In any case and any number of fields; credentials and added names too."""
    connection = ((b"connection", b"close, Accept ,"), (b"connection", b"X-Team,authorization"))
    rest = ((b"accept", b"*/*"), (b"x-team", b"a"), (b"authorization", b"a"), (b"user-agent", b"me"))
    passed, credentials = forwarded((*connection, *rest), frozenset([b"x-team"]), "r")
    assert passed == ((b"user-agent", b"me"), ID) and credentials == ()


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (PARENT[1], True),
        (b"cc" + PARENT[1][2:], True),
        (b"ff" + PARENT[1][2:], False),
        (PARENT[1].upper(), False),
        (PARENT[1] + b"-more", False),
        (b"", False),
        (b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", False),
        (b"00-0af7651916cd43dd8448eb211c80319c-" + b"0" * 16 + b"-01", False),
    ],
)
def test_traceparent(value: bytes, good: bool) -> None:
    """A valid one passes with its state; with an invalid one both stay."""
    pair, state = (b"traceparent", value), (b"tracestate", b"a=b")
    assert up(pair, state) == ([pair, state] if good else [])


def test_tracestate() -> None:
    """At most 512 bytes in all; never alone; never beside two parents."""
    state = (b"tracestate", b"a=" + b"b" * 254)
    assert up(PARENT, state, state) == [PARENT, state, state]
    assert up(PARENT, state, state, (b"tracestate", b"c")) == [PARENT]
    assert up(state) == []
    assert up(PARENT, PARENT, state) == []


def test_what_comes_down() -> None:
    """Content type, what SDKs read, and rate limits of either family."""
    kept = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"x-ratelimit-remaining-tokens", b"7"),
        (b"anthropic-ratelimit-requests-limit", b"5"),
        (b"retry-after-ms", b"20"),
        (b"x-should-retry", b"true"),
    ]
    assert down(*kept, (b"set-cookie", b"a"), (b"server", b"x"), (b"transfer-encoding", b"chunked")) == kept


def test_what_could_split_a_head_stays() -> None:
    """Control bytes in a value; a tab is none."""
    assert down((b"retry-after", b"1\r\nx: y"), (b"openai-model", b"a\x00"), (b"openai-version", b"a\x7f")) == []
    assert down((b"openai-version", b"a\tb")) == [(b"openai-version", b"a\tb")]


def test_nominated_headers_stay_on_the_way_down() -> None:
    """Hop-by-hop is hop-by-hop in both directions."""
    assert down((b"connection", b"Retry-After, x-request-id"), (b"retry-after", b"1"), (b"x-request-id", b"u")) == []


@pytest.mark.parametrize("name", [b"x-request-id", b"request-id"])
def test_the_upstreams_request_id(name: bytes) -> None:
    """Comes under another name, cut at 256 bytes, and is handed to the record."""
    passed, upstream_id = returned([(name, b"u" * 300)], "r")
    assert passed == [(b"x-upstream-request-id", b"u" * 256), *own("r")]
    assert upstream_id == "u" * 256


def test_an_upstreams_request_id_that_could_split_a_head() -> None:
    """Stays out of the response."""
    assert returned([(b"x-request-id", b"a\nb")], "r")[0] == own("r")


def test_own() -> None:
    """Kept from caches and from buffering; both names of the request id."""
    assert dict(own("r")) == {
        b"cache-control": b"no-cache, no-transform",
        b"x-accel-buffering": b"no",
        b"x-request-id": b"r",
        b"request-id": b"r",
    }
