"""Server-Sent Events and their bytes: names, defaults and encodings are those of sse-starlette, without its holes.

Nothing that a field holds can begin a field of its own: CR, LF and NUL are taken out of `id` and `event`, `data` and
`comment` become one line of theirs for each line of text. Rules: the WHATWG HTML standard, section 9.2.
"""

from __future__ import annotations

import json
from typing import Final

SEPARATORS: Final = frozenset(("\r\n", "\n", "\r"))


class SSEError(Exception):
    """Base of what `streamgate.sse` raises on purpose."""


class ServerSentEvent:
    """One event. Everything but `data` is by keyword; attributes may be assigned until it is encoded.

    `data` and `comment` are any objects, taken through `str`; None leaves the field out. `retry` is in milliseconds, an
    int of 0 or more. `sep` is the line end: CRLF (the default), LF or CR. Mistakes show when the event is encoded.
    """

    __slots__ = ("comment", "data", "event", "id", "retry", "sep")

    DEFAULT_SEPARATOR = "\r\n"

    def __init__(
        self,
        data: object = None,
        *,
        event: object = None,
        id: object = None,
        retry: int | None = None,
        comment: object = None,
        sep: str | None = None,
    ) -> None:
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry
        self.comment = comment
        self.sep = sep

    def __repr__(self) -> str:
        fields = ("data", "event", "id", "retry", "comment", "sep")
        given = [f"{name}={value!r}" for name in fields if (value := getattr(self, name)) is not None]
        return f"{type(self).__name__}({', '.join(given)})"

    def encode(self) -> bytes:
        """The event's bytes, blank line included.

        Raises TypeError for a `retry` that is no int, ValueError for a negative one or an unknown `sep`.
        """
        sep = self.DEFAULT_SEPARATOR if self.sep is None else self.sep
        return event_bytes(sep, self.data, self.event, self.id, self.retry, self.comment)


class JSONServerSentEvent(ServerSentEvent):
    """An event whose `data` is any JSON value; None leaves the field out. NaN and infinities raise ValueError."""

    __slots__ = ()

    def __init__(
        self,
        data: object = None,
        *,
        event: object = None,
        id: object = None,
        retry: int | None = None,
        comment: object = None,
        sep: str | None = None,
    ) -> None:
        text = None
        if data is not None:
            text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        super().__init__(text, event=event, id=id, retry=retry, comment=comment, sep=sep)


def ensure_bytes(data: object, sep: str) -> bytes:
    """The bytes of whatever a content iterator may yield.

    Bytes and memoryviews are sent as they are, an event with its own line end, a dict as the event of its items with
    `sep` (the dict is not touched; an unknown key is a TypeError), anything else as the event of its `str`.
    """
    kind = type(data)
    if kind is bytes:
        return data  # type: ignore[return-value]
    if kind is str:
        return text_bytes(data, sep)  # type: ignore[arg-type]
    if kind is dict:
        text = data.get("data")  # type: ignore[attr-defined]
        if type(text) is str and len(data) == 1:  # type: ignore[arg-type]  # the commonest dict by far
            return text_bytes(text, sep)
        return event_bytes(sep, **data)  # type: ignore[arg-type]
    if isinstance(data, ServerSentEvent):
        return data.encode()
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if isinstance(data, dict):
        return event_bytes(sep, **data)
    return text_bytes(str(data), sep)


def event_bytes(
    line_end: str,
    /,
    data: object = None,
    event: object = None,
    id: object = None,
    retry: int | None = None,
    comment: object = None,
    sep: object = None,  # a dict's own, which the response's overrules
) -> bytes:
    """Field order as sse-starlette has it: comment, id, event, data, retry."""
    head = ""
    if comment is not None:
        head = _field("", str(comment), checked(line_end))
    if id is not None:
        head += f"id: {id if type(id) is str and id.isprintable() else _one_line(id)}{line_end}"
    if event is not None:
        head += f"event: {event if type(event) is str and event.isprintable() else _one_line(event)}{line_end}"
    if retry is not None:
        body = "" if data is None else _field("data", str(data), line_end)
        return _utf8(f"{head}{body}retry: {_milliseconds(retry)}{line_end}{checked(line_end)}")
    if data is None:
        return _utf8(head + checked(line_end))
    return text_bytes(data if type(data) is str else str(data), line_end, head)


def text_bytes(text: str, sep: str, head: str = "") -> bytes:
    """The bytes of an event with data, by far the commonest; `head` is its other lines."""
    if sep not in SEPARATORS:
        checked(sep)
    if "\n" in text or "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", f"{sep}data: ")
    try:
        return f"{head}data: {text}{sep}{sep}".encode()
    except UnicodeEncodeError:
        return _utf8(f"{head}data: {text}{sep}{sep}")


def checked(sep: str) -> str:
    """The line end, if it is one of the three that the standard knows."""
    if sep not in SEPARATORS:
        raise ValueError(f"sep must be one of \\r\\n, \\r, \\n, got: {sep!r}")
    return sep


def _field(name: str, value: str, sep: str) -> str:
    """One line for each line of the value. Only CRLF, CR and LF end a line: `str.splitlines` knows seven more."""
    lines = value.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "".join(f"{name}: {line}{sep}" for line in lines)


def _one_line(value: object) -> str:
    # str.replace, not str(): the name of a `class Kind(str, Enum)` member is its value, not "Kind.NAME".
    text = value if isinstance(value, str) else str(value)
    return str.replace(text, "\r", "").replace("\n", "").replace("\0", "")


def _milliseconds(retry: int) -> int:
    if not isinstance(retry, int) or isinstance(retry, bool):  # True is an int, and no time
        raise TypeError("retry argument must be int")
    if retry < 0:
        raise ValueError("retry argument must not be negative")
    return int(retry)


def _utf8(text: str) -> bytes:
    """UTF-8; surrogates that make a pair are joined, lone ones (a JSON escape cut in two) become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
