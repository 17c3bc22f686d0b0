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
        data = self.data
        if self.event is None and self.id is None and self.retry is None and self.comment is None and data is not None:
            return text_bytes(data if type(data) is str else str(data), sep)
        return self._encode_fields(checked(sep))

    def _encode_fields(self, sep: str) -> bytes:
        """Field order as sse-starlette has it: comment, id, event, data, retry."""
        text = ""
        if self.comment is not None:
            text += _field("", str(self.comment), sep)
        if self.id is not None:
            text += f"id: {_one_line(self.id)}{sep}"
        if self.event is not None:
            text += f"event: {_one_line(self.event)}{sep}"
        if self.data is not None:
            text += _field("data", str(self.data), sep)
        if self.retry is not None:
            text += f"retry: {_milliseconds(self.retry)}{sep}"
        return _utf8(text + sep)


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
    if isinstance(data, bytes | memoryview):
        return data  # type: ignore[return-value]  # ASGI servers take a memoryview where bytes are asked for
    if isinstance(data, bytearray):
        return bytes(data)
    if isinstance(data, ServerSentEvent):
        return data.encode()
    if isinstance(data, dict):
        return ServerSentEvent(**{**data, "sep": sep}).encode()
    return text_bytes(str(data), sep)


def text_bytes(text: str, sep: str) -> bytes:
    """The bytes of an event that has only data: the commonest one by far."""
    if sep not in SEPARATORS:
        checked(sep)
    if "\n" in text or "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", f"{sep}data: ")
    try:
        return f"data: {text}{sep}{sep}".encode()
    except UnicodeEncodeError:
        return _utf8(f"data: {text}{sep}{sep}")


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
    if type(retry) is not int:  # True is an int, and no time
        raise TypeError("retry argument must be int")
    if retry < 0:
        raise ValueError("retry argument must not be negative")
    return retry


def _utf8(text: str) -> bytes:
    """UTF-8; surrogates that make a pair are joined, lone ones (a JSON escape cut in two) become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
