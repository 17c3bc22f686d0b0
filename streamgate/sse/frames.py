"""Bytes to frames: cut where an event ends, without parsing.

An event ends with a blank line, under LF, CRLF, CR and any mixture. A blank line is two line ends in a row, so an end
shows as one of three byte pairs, LF LF, LF CR or CR CR, and a LF after the CR belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from streamgate.sse.event import SSEError

_CR: Final = 13
_BLANK_LINE: Final = re.compile(rb"\r\n?|\n")
_EVENT_END: Final = re.compile(rb"\n\n|\n\r\n?|\r\r\n?")


class FrameTooLarge(SSEError):
    """An unfinished event is larger than the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"an unfinished event is larger than {limit} bytes")
        self.limit = limit


class FrameCutter:
    """Gives out whole events as raw bytes and keeps the unfinished rest; `max_event` bounds the rest in bytes.

    Joined, what was given out and `rest` are what was put in, for every split of it.
    """

    __slots__ = ("_between", "_carry", "_crlf", "_last", "max_event")

    def __init__(self, max_event: int) -> None:
        self.max_event = max_event
        self._carry = bytearray()  # grows in place: joining it anew for each chunk would be quadratic
        self._last = b"\n"  # the last two bytes; at the start a blank line is one, too
        self._crlf = False  # this stream has shown a CRLF
        self._between = True  # nothing is carried, and the last byte was a LF

    @property
    def rest(self) -> bytes:
        """The unfinished event."""
        return bytes(self._carry)

    def cut(self, chunk: bytes) -> bytes:
        """All events that are whole by now, b"" when there is none.

        Raises `FrameTooLarge` when the chunk ends no event and the rest has outgrown `max_event`.
        """
        # `find`, because `in` takes twice as long; the same object, because most reads hold whole events.
        if self._between and chunk.endswith(b"\n\n") and chunk.find(b"\r") < 0:
            return chunk
        return self._cut(chunk) if chunk else b""

    def end(self) -> bytes:
        """The stream is over: the event whose last CR might have been half a CRLF, or b""."""
        if not self._carry or _last_end(self._last, len(self._last)) < 0:
            return b""
        frame = bytes(self._carry)
        self._carry.clear()
        return frame

    def _cut(self, chunk: bytes) -> bytes:
        if self._between and chunk.endswith(b"\r\n\r\n"):
            self._crlf = True
            return chunk
        before = len(self._last)
        window = self._last + chunk  # an end may straddle the seam
        self._crlf = self._crlf or b"\r\n" in window
        # Between a CR and its LF nothing may be written. Where lines end in CRLF the LF surely follows: wait for it.
        waits = self._crlf and window.endswith(b"\r")
        end = _last_end(window, len(window) - waits) - before
        self._last = window[-2:]
        frame = self._take(chunk, end)
        self._between = not self._carry and window.endswith(b"\n")
        return frame

    def _take(self, chunk: bytes, end: int) -> bytes:
        """Give out up to `end` of the chunk, carry the rest. An end at 0 is one that waited for a LF in vain."""
        carry = self._carry
        if end < 0 or (end == 0 and not carry):
            carry += chunk
            if len(carry) > self.max_event:
                raise FrameTooLarge(self.max_event)
            return b""
        if carry:
            carry += chunk[:end]
            frame = bytes(carry)
            carry.clear()
        else:
            frame = chunk[:end]
        carry += chunk[end:]
        return frame


def blocks(frame: bytes) -> Iterator[tuple[int, int]]:
    """Begin and end of each event in a frame, its blank line included; a blank line too many is a block of its own."""
    start, size = 0, len(frame)
    while start < size:
        end = block_end(frame, start)
        yield start, end
        start = end


def block_end(frame: bytes, start: int) -> int:
    """Where the block that begins at `start` is over; the frame's end, if nothing ends it before."""
    end = frame.find(b"\n\n", start) + 2
    if end > 1 and frame.find(b"\r", start, end) < 0 and not frame.startswith(b"\n", start):
        return end
    found = _BLANK_LINE.match(frame, start) or _EVENT_END.search(frame, start)
    return len(frame) if found is None else found.end()


def without_comments(frame: bytes) -> bytes:
    """The frame less the blocks that are nothing but comments; everything else byte for byte."""
    # rfind and a lone CR first: on a token of 230 bytes that is 0.3 us where two `in` are 0.65.
    if not frame.startswith(b":") and frame.rfind(b"\n:") < 0 and (frame.find(b"\r") < 0 or frame.rfind(b"\r:") < 0):
        return frame
    kept = [frame[start:end] for start, end in blocks(frame) if not _only_comments(frame[start:end])]
    return b"".join(kept)


def _only_comments(block: bytes) -> bool:
    lines = block.splitlines()
    return len(lines) > 1 and not lines[-1] and all(line.startswith(b":") for line in lines[:-1])


def _last_end(window: bytes, limit: int) -> int:
    """Where the last event end within the first `limit` bytes is over; -1 without one."""
    pair = max(window.rfind(b"\n\n", 0, limit), window.rfind(b"\n\r", 0, limit), window.rfind(b"\r\r", 0, limit))
    if pair < 0:
        return -1
    end = pair + 2
    return end + 1 if window[pair + 1] == _CR and window[end : end + 1] == b"\n" else end
