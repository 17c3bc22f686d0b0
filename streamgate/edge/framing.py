"""Where a request body ends: counted or chunked; bytes in, body bytes out, a `Refusal` when the framing is wrong.

Fed in whatever pieces the socket gives, with the same answer for every split; no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from streamgate.edge.head import FIELD_LINES, ILLEGAL, bad
from streamgate.errors import Reason, Refusal

_MAX_SIZE_LINE = 512  # a size of 8 digits, and extensions, which nobody sends
_MAX_TRAILER = 8192
# Go's rule since CVE-2023-39326: what frames a chunk may exceed 16 bytes plus twice its content only by this much in
# all, or extensions dwarf the body that the size limit counts.
_MAX_EXCESS = 16 * 1024

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb'"(?:[\t !#-\[\]-~]|\\[\t -~])*+"'
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})((?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*+)\r\n")
_SIZE_START = re.compile(rb"[0-9A-Fa-f]{1,8}(?:\r|;[\t -~]*+\r?)?")


def too_large() -> Refusal:
    return Refusal(Reason.TOO_LARGE, 413, "The request body is too large.", code="body_too_large")


class Body(Protocol):
    """A request body as it arrives."""

    whole: bool  # its last byte was seen
    behind: bytes  # what came after its last byte

    def feed(self, received: bytes) -> bytes:
        """Take what the socket gave; return the body bytes in it. Raises `Refusal`."""
        ...


class Counted:
    """A body of `length` bytes."""

    __slots__ = ("_left", "behind", "whole")

    def __init__(self, length: int) -> None:
        self._left = length
        self.whole = length == 0
        self.behind = b""

    def feed(self, received: bytes) -> bytes:
        left = self._left
        if len(received) < left:
            self._left = left - len(received)
            return received
        self._left = 0
        self.whole = True
        self.behind = received[left:]
        return received[:left]


class _State(Enum):
    SIZE = "size"
    CONTENT = "content"
    CONTENT_END = "content_end"
    TRAILER = "trailer"


class Chunked:
    """A chunked body of at most `limit` bytes; extensions are ignored, trailer fields are judged and dropped."""

    __slots__ = ("_excess", "_left", "_limit", "_pending", "_state", "behind", "whole")

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes the chunks to come may still have
        self._left = 0  # bytes of the chunk at hand
        self._excess = 0
        self._pending = b""  # a line that is not complete yet
        self._state = _State.SIZE
        self.whole = False
        self.behind = b""

    def feed(self, received: bytes) -> bytes:
        received = self._pending + received
        pieces: list[bytes] = []
        at = 0
        while at < len(received) and not self.whole:
            if self._state is _State.CONTENT:
                at = self._content(received, at, pieces)
                continue
            after = _STEPS[self._state](self, received, at)
            if after is None:
                break
            at = after
        if self.whole:
            self.behind, self._pending = received[at:], b""
        else:
            self._pending = received[at:]
        return b"".join(pieces)

    def _content(self, received: bytes, at: int, pieces: list[bytes]) -> int:
        piece = received[at : at + self._left]
        pieces.append(piece)
        self._left -= len(piece)
        if not self._left:
            self._state = _State.CONTENT_END
        return at + len(piece)

    def _size(self, received: bytes, at: int) -> int | None:
        """Read a size line; None when it is not complete."""
        line = _SIZE_LINE.match(received, at)
        if line is None:
            if len(received) - at > _MAX_SIZE_LINE or not _SIZE_START.fullmatch(received, at):
                raise bad("A chunk does not start with a valid size line.", "bad_chunk")
            return None
        self._open(int(line[1], 16), line.end() - at)
        return line.end()

    def _open(self, size: int, line: int) -> None:
        if line > _MAX_SIZE_LINE:
            raise bad("A chunk does not start with a valid size line.", "bad_chunk")
        self._excess = max(0, self._excess + line - 16 - 2 * size)
        if self._excess > _MAX_EXCESS:
            raise bad("The chunked body is mostly framing.", "bad_chunk")
        if size > self._limit:
            raise too_large()
        self._limit -= size
        self._left = size
        self._state = _State.CONTENT if size else _State.TRAILER

    def _content_end(self, received: bytes, at: int) -> int | None:
        end = received[at : at + 2]
        if end == b"\r\n":
            self._state = _State.SIZE
            return at + 2
        if end == b"\r":
            return None
        raise bad("A chunk is not followed by a line end.", "bad_chunk")

    def _trailer(self, received: bytes, at: int) -> int | None:
        """Read up to the empty line; a wrong line is refused when it is complete, not waited out."""
        lines = FIELD_LINES.match(received, at)
        after = at if lines is None else lines.end()
        self.whole = received.startswith(b"\r\n", after)
        if (after if self.whole else len(received)) - at > _MAX_TRAILER:
            raise Refusal(Reason.TOO_LARGE, 431, "The trailer is too large.", code="trailer_too_large")
        if self.whole:
            return after + 2
        if received.find(b"\r\n", after) != -1 or ILLEGAL.search(received, after):
            raise bad("A trailer field is not of the form name: value.", "bad_trailer")
        return None


_STEPS: dict[_State, Callable[[Chunked, bytes, int], int | None]] = {
    _State.SIZE: Chunked._size,
    _State.CONTENT_END: Chunked._content_end,
    _State.TRAILER: Chunked._trailer,
}
