"""The head of a response, header by header in order, beside sse-starlette's.

Left out, because done otherwise on purpose: `media_type=None` (ours has a class attribute, theirs gives no content-type)
and HTTP/2, where ours sends no `connection`.

| rule | test |
| --- | --- |
| exactly four, lower-case, in this order | test_four |
| no-store may be overridden; keep-alive and x-accel-buffering are forced; content-type may be overridden | test_combinations |
| charset for text/* only, once | test_combinations |
| no duplicates, whatever the case | test_combinations, test_any_headers |
| any kind of mapping; one that holds a name twice | test_kinds_of_mapping, test_headers_that_repeat |
| the caller's mapping is untouched | test_mapping_is_left_alone, test_responses_share_no_headers |
| set_cookie, headers, after construction | test_changed_later |
| a class attribute for media type and charset | test_media_type_of_a_subclass |
"""  # noqa: E501

from __future__ import annotations

import itertools
import types
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sse_starlette import EventSourceResponse as Theirs
from starlette.datastructures import Headers, MutableHeaders

from streamgate.sse import EventSourceResponse as Ours

NAMES = ["Cache-Control", "cache-control", "CONNECTION", "X-Accel-Buffering", "Content-Type", "content-length", "X-A"]
MEDIA_TYPES = [
    *("text/event-stream", "text/plain", "text/event-stream; charset=latin-1", "TEXT/HTML", "application/json", ""),
    *("application/x-ndjson", "text/event-stream;charset=UTF-8", "text/"),
]


def same(**options: Any) -> list[tuple[bytes, bytes]]:
    ours, theirs = Ours([], **options).raw_headers, Theirs([], **options).raw_headers
    assert ours == theirs, options
    names = [name for name, _ in ours]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() for name in names)
    return ours


def test_four():
    """What a response says that was told nothing."""
    assert same() == [
        (b"cache-control", b"no-store"),
        (b"connection", b"keep-alive"),
        (b"x-accel-buffering", b"no"),
        (b"content-type", b"text/event-stream; charset=utf-8"),
    ]


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_combinations(media_type):
    """All orders of up to three headers, under each media type."""
    for count in range(4):
        for names in itertools.permutations(NAMES, count):
            headers = {name: f"value {index}" for index, name in enumerate(names)}
            same(headers=headers, media_type=media_type)
    same(headers=None, media_type=media_type)


@pytest.mark.parametrize("status", [200, 201, 204, 404, 503])
@pytest.mark.parametrize("kind", [dict, OrderedDict, Headers, MutableHeaders, types.MappingProxyType])
def test_kinds_of_mapping(status, kind):
    """Any mapping will do, and no status changes the headers."""
    same(headers=kind({"X-A": "b", "cache-control": "no-cache"}), status_code=status)
    same(headers=kind({}), status_code=status)


def test_headers_that_repeat():
    """The last value stands, where the first one stood."""
    raw = [(b"x-a", b"1"), (b"cache-control", b"public"), (b"x-a", b"2"), (b"connection", b"close")]
    assert same(headers=Headers(raw=raw)) == [
        (b"x-a", b"2"),
        (b"cache-control", b"public"),
        (b"connection", b"keep-alive"),
        (b"x-accel-buffering", b"no"),
        (b"content-type", b"text/event-stream; charset=utf-8"),
    ]


@pytest.mark.parametrize("kind", [Ours, Theirs])
def test_mapping_is_left_alone(kind):
    """A mapping may be shared between responses."""
    headers = {"X-A": "b", "Connection": "close"}
    first = kind([], headers=headers)
    first.headers["x-later"] = "1"
    first.set_cookie("a", "b")
    assert headers == {"X-A": "b", "Connection": "close"}
    assert dict(kind([], headers=headers).raw_headers).keys() == {
        *(b"x-a", b"connection", b"cache-control", b"x-accel-buffering", b"content-type")
    }


@pytest.mark.parametrize("kind", [Ours, Theirs])
def test_responses_share_no_headers(kind):
    """What is set on one response does not show in the next."""
    kind([]).headers["x-a"] = "b"
    kind([]).set_cookie("a", "b")
    kind([]).raw_headers.clear()
    assert len(kind([]).raw_headers) == 4


def test_changed_later():
    """Headers and cookies that are set on the response: the same list in the same order."""
    found = []
    for kind in (Theirs, Ours):
        response = kind([], headers={"X-A": "b"})
        response.headers["cache-control"] = "no-cache"
        response.headers["X-Later"] = "1"
        response.headers.append("x-later", "2")
        response.headers.setdefault("connection", "close")
        del response.headers["x-accel-buffering"]
        response.set_cookie("a", "b", max_age=5, path="/x", httponly=True, samesite="strict")
        response.delete_cookie("c")
        found.append([pair for pair in response.raw_headers if b"expires" not in pair[1]])
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert found[0] == found[1]


def test_media_type_of_a_subclass():
    """`media_type` and `charset` of a subclass count where they did."""
    for attributes in ({"media_type": "text/x"}, {"charset": "latin-1"}, {"media_type": "a/b", "charset": "x"}):
        for options in ({}, {"media_type": None}, {"headers": {"x-a": "b"}}, {"media_type": None, "headers": {}}):
            if options.get("media_type", "") is None and "media_type" not in attributes:
                continue
            ours, theirs = (type("Own", (kind,), dict(attributes)) for kind in (Ours, Theirs))
            assert ours([], **options).raw_headers == theirs([], **options).raw_headers, (attributes, options)


tokens = st.text(st.sampled_from("abcXYZ-"), min_size=1, max_size=3) | st.sampled_from(NAMES)
latin = st.text(st.characters(max_codepoint=255), max_size=5)


@given(st.none() | st.dictionaries(tokens, latin, max_size=6), st.sampled_from(MEDIA_TYPES))
def test_any_headers(headers, media_type):
    """The same list for any headers."""
    same(headers=headers, media_type=media_type)
