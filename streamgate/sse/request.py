"""What a client says when it comes back: the id of the last event it got."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

HEADER: Final = b"last-event-id"
QUERY: Final = "lastEventId"


def last_event_id(request: Mapping[str, Any]) -> str | None:
    """The id of the last event that the client got, from a Starlette request or an ASGI scope. None: it has none.

    From the `Last-Event-ID` header, which browsers send when they reconnect (in UTF-8; other bytes become U+FFFD). Else
    from the query parameter `lastEventId`: polyfills that may not set headers use it, and a page can begin where its
    own content ends with `new EventSource("/events?lastEventId=42")`; a reconnect then has both, and the header is the
    newer. An empty id is none, and one with a NUL no client can have (WHATWG HTML 9.2.6).
    """
    for name, value in request["headers"]:
        if name == HEADER:
            return _valid(value.decode("utf-8", "replace"))
    query = request.get("query_string", b"").decode("latin-1")
    if QUERY not in query:
        return None
    return _valid(parse_qs(query).get(QUERY, [""])[0])


def _valid(id: str) -> str | None:
    return None if not id or "\0" in id else id
