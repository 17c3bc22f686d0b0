"""The last event id, from wherever a client puts it."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from streamgate.sse.request import last_event_id

CASES: list[tuple[list[bytes], bytes, str | None]] = [
    ([], b"", None),
    ([b"7"], b"", "7"),
    (["späte-Größe 🙂".encode()], b"", "späte-Größe 🙂"),
    ([b"a\xffb"], b"", "a\ufffdb"),
    ([b""], b"", None),
    ([b"a\x00b"], b"", None),
    ([b"1", b"2"], b"", "1"),
    ([], b"lastEventId=42", "42"),
    ([], b"a=1&lastEventId=4%202+%C3%A4&lastEventId=9", "4 2 ä"),
    ([], b"lastEventId=%FF", "\ufffd"),
    ([], b"lastEventId=", None),
    ([], b"lastEventId=a%00", None),
    ([], b"notlastEventId=1", None),
    ([], b"lasteventid=1", None),
    ([b"7"], b"lastEventId=42", "7"),
    ([b""], b"lastEventId=42", None),
]


@pytest.mark.parametrize(("headers", "query", "expected"), CASES)
def test_last_event_id(headers: list[bytes], query: bytes, expected: str | None) -> None:
    """The header, in UTF-8, else the query parameter; None for an id that is empty or cannot be."""
    named = [(b"host", b"x"), *((b"last-event-id", value) for value in headers)]
    scope = {"type": "http", "method": "GET", "headers": named, "query_string": query}
    assert last_event_id(Request(scope)) == expected
    assert last_event_id(scope) == expected


def test_no_query_string() -> None:
    """The ASGI scope need not have a query string."""
    assert last_event_id({"type": "http", "headers": []}) is None
