"""Any other SSE: events pass, each one with data is progress, and the end is the end of the HTTP framing."""

from __future__ import annotations

from typing import Final

from streamgate.dialects.bodies import to_json
from streamgate.dialects.dialect import Seen, Sight
from streamgate.dialects.texts import NOTHING_TOLD, TextAt, Told
from streamgate.errors import Empty, Fault
from streamgate.record import Usage
from streamgate.sse.frames import blocks
from streamgate.sse.parser import block_fields

_ORDINARY: Final = Sight.SEMANTIC | Sight.ORDINARY


class PlainEvents:
    """A dialect that knows no meaning: no error, no terminator, no usage."""

    __slots__ = ("name", "ping", "tells")

    def __init__(self) -> None:
        self.name = "plain_sse"
        self.ping = b": ping\n"
        self.tells = False

    def scan(self, frame: bytes, seen: Seen) -> int:
        if frame.startswith(b"data:") and frame.find(b"\n\n") == len(frame) - 2 and frame.find(b"\r") < 0:
            seen.events += 1
            return _ORDINARY
        spoken = sum(block_fields(frame[start:end])[1] is not None for start, end in blocks(frame))
        seen.events += spoken
        return Sight.SEMANTIC if spoken else Sight.NOTHING

    def verdict(self, seen: Seen, *, terminated: bool) -> Fault | None:
        return None if seen.events else Empty()

    def usage(self, seen: Seen) -> Usage | None:
        return None

    def error_event(self, message: str, *, type: str, code: str | None, param: str | None = None) -> bytes:
        """`event: error` for EventSource and the like, with a payload that the SDKs of both families know."""
        error = {"message": message, "type": type, "param": param, "code": code}
        return b"event: error\ndata: " + to_json({"type": "error", "error": error}) + b"\n\n"

    def texts(self, payload: bytes, *, whole: bool = False) -> Told:
        return NOTHING_TOLD

    def text_event(self, payload: bytes, at: TextAt, text: str) -> bytes:
        raise NotImplementedError


PLAIN_SSE: Final = PlainEvents()
