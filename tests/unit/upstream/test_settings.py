"""Addresses of upstreams, and where a path leads."""

from __future__ import annotations

import pytest

from streamgate.upstream.settings import origin_of, target


@pytest.mark.parametrize(
    "url, expected",
    [
        ("http://10.0.0.5:8000", ("http", "10.0.0.5", 8000, b"", b"10.0.0.5:8000")),
        ("http://gpu", ("http", "gpu", 80, b"", b"gpu")),
        ("https://API.example.com/", ("https", "api.example.com", 443, b"", b"api.example.com")),
        ("https://api.example.com:8443/v1/", ("https", "api.example.com", 8443, b"/v1", b"api.example.com:8443")),
        ("http://[::1]:8000/a/b", ("http", "::1", 8000, b"/a/b", b"[::1]:8000")),
    ],
)
def test_an_origin_is_read_from_its_url(url: str, expected: object) -> None:
    """Scheme, host, port, prefix and Host header come from the URL."""
    origin = origin_of("a", url, ca_file="ca.pem", verify=False, server_name="b")
    assert (origin.scheme, origin.host, origin.port, origin.prefix, origin.authority) == expected
    assert (origin.name, origin.ca_file, origin.verify, origin.server_name) == ("a", "ca.pem", False, "b")


@pytest.mark.parametrize(
    "url, why",
    [
        ("10.0.0.5:8000", "begins with"),
        ("ftp://host", "begins with"),
        ("http://", "no host"),
        ("http://user:key@host", "user name"),
        ("http://host/?a=b", "query"),
        ("http://host/#a", "fragment"),
        ("http://ho st", "visible"),
        ("http://hőst", "visible"),
        ("http://host/\r\nx:", "visible"),
        ("http://host:0", "port 0"),
        ("http://host:99999", "[Pp]ort"),
        ("http://[fe80::1%25eth0]", "zone"),
        ("http://[::g]", "::g"),
    ],
)
def test_what_is_not_an_address_is_refused(url: str, why: str) -> None:
    """The error says what is wrong with the URL."""
    with pytest.raises(ValueError, match=why):
        origin_of("a", url)


@pytest.mark.parametrize(
    "url, path, expected",
    [
        ("http://a", b"/v1/models", b"/v1/models"),
        ("http://a/v1", b"/v1/models", b"/v1/models"),
        ("http://a/v1", b"/v1?x=1", b"/v1?x=1"),
        ("http://a/v1", b"/v1", b"/v1"),
        ("http://a/v1", b"/v1beta/x", b"/v1/v1beta/x"),
        ("http://a/v1", b"/tokenize", b"/v1/tokenize"),
        ("http://a/openai/v1", b"/v1/chat/completions", b"/openai/v1/chat/completions"),
        ("http://a/openai", b"/v1/chat/completions", b"/openai/v1/chat/completions"),
    ],
)
def test_a_path_comes_after_the_prefix(url: str, path: bytes, expected: bytes) -> None:
    """A prefix that ends in /v1 does not double it."""
    assert target(origin_of("a", url), path) == expected


def test_origins_are_equal_by_value() -> None:
    """Two origins of one name and different addresses share nothing."""
    assert origin_of("a", "http://a") == origin_of("a", "http://a")
    assert len({origin_of("a", "http://a"), origin_of("a", "http://a"), origin_of("a", "http://b")}) == 2
