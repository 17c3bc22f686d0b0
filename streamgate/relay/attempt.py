"""What one try has said so far: its head, the frames held back, what its events showed. The next try gets a new one."""

from __future__ import annotations

from typing import Protocol

from streamgate.dialects.dialect import Dialect, Seen, Sight
from streamgate.errors import Empty, ErrorEvent, Fault, Truncated
from streamgate.relay.answer import Headers, Kind, fault_of_json, fault_of_status, kind_of
from streamgate.sse.frames import FrameCutter, without_comments
from streamgate.sse.outlet import Source

BOM = b"\xef\xbb\xbf"
HOLD = 64 * 1024  # bytes held for failover, per stream: beyond it the stream flows although nothing semantic came
TERMINATORS = frozenset((b"data: [DONE]", b"data:[DONE]"))


class Attempt:
    """`since` is when it began, monotonic seconds; `own_key` whether the upstream judged our key or the client's."""

    __slots__ = ("_held", "_size", "cutter", "headers", "kind", "length", "own_key", "seen", "since", "status")

    def __init__(self, since: float, max_event: int, *, own_key: bool) -> None:
        self.since = since
        self.own_key = own_key
        self.kind = Kind.NOTHING
        self.status = 0
        self.headers: Headers = ()
        self.length: int | None = None  # of a whole body, when it was held to its end
        self.seen = Seen()
        self.cutter = FrameCutter(max_event)
        self._held: list[bytes] = []
        self._size = 0

    def head(self, status: int, headers: Headers, *, events_only: bool) -> Fault | None:
        """Note the head; what is wrong with it, if it already is."""
        self.status, self.headers = status, headers
        judged = kind_of(status, headers, events_only=events_only)
        if isinstance(judged, Fault):
            return judged
        self.kind = judged
        return None

    def hold(self, piece: bytes) -> bool:
        """Keep this back, unless that would be more than may be held."""
        self._size += len(piece)
        if self._size > HOLD:
            return False
        self._held.append(piece)
        return True

    def released(self, piece: bytes, *, begun: bool) -> bytes:
        """What was held, with `piece` after it; nothing is held from now on.

        A byte order mark is only one at the very start: behind a heartbeat (`begun`) it is part of a name.
        """
        if self._held:
            held, self._held = [*self._held, piece], []
            piece = b"".join(held)
        return piece[3:] if begun and piece.startswith(BOM) else piece

    def stopped(self, frame: bytes, sight: int, heard: Dialect) -> tuple[Fault | None, bytes]:
        """The frame holds the event that ends the stream, the terminator or an error: the fault, and what to write.

        Nothing after that event is anybody's; a terminator that is a lie is left out, an error in a form that SDKs do
        not see is written in one that they do.
        """
        seen = self.seen
        before = without_comments(frame[: seen.stop])
        if sight & Sight.ERROR:
            fault = seen.error or ErrorEvent()
            return fault, before + (fault.frame or b"")
        verdict = heard.verdict(seen, terminated=True)
        if verdict is None or isinstance(verdict, ErrorEvent):  # that one was a finish reason, relayed as it came
            return verdict, before + frame[seen.stop : seen.end]
        seen.events -= 1  # the terminator, which nobody gets
        return verdict, before

    def rest(self) -> bytes:
        """At the body's end: an event that lacked the LF of its last CRLF, or a terminator without its blank line."""
        last = self.cutter.end()
        if not last:
            rest = self.cutter.rest.strip()
            last = rest + b"\n\n" if rest in TERMINATORS else b""
        return last

    def verdict(self, heard: Dialect, *, flowing: bool) -> Fault | None:
        """The HTTP body is whole: is the answer? `flowing`: some of it has been written."""
        if self.kind is Kind.EVENTS:
            rest = self.cutter.rest.strip()
            if rest and not rest.startswith(b":"):
                return Truncated("the last event was not finished")
            return heard.verdict(self.seen, terminated=False)
        if self.kind is Kind.ERROR:
            return fault_of_status(self.status, self.headers, b"".join(self._held), own_key=self.own_key)
        if flowing:
            return None
        return fault_of_json(b"".join(self._held)) if self.kind is Kind.JSON else Empty()


class Opening(Protocol):
    """The client's response head, as a passage sees it."""

    @property
    def begun(self) -> bool:
        """The head is out: an early commit sent it before any try had an answer, or `open` did."""
        ...

    def open(self, attempt: Attempt, source: Source) -> None:
        """The first frame of this attempt is about to be written; `source` is paused while that does not drain."""
        ...
