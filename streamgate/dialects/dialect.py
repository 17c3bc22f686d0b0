"""What a dialect is: the meaning of one API family's events, read off raw frames without parsing each as JSON."""

from __future__ import annotations

from typing import Final, Protocol

from streamgate.dialects.texts import TextAt, Told
from streamgate.errors import ErrorEvent, Fault
from streamgate.record import Usage


class Sight:
    """Flags that `Dialect.scan` returns; plain ints, because an IntFlag costs more than the scan."""

    NOTHING: Final = 0
    SEMANTIC: Final = 1  # content, tool call, reasoning, refusal, finish, usage or error: progress
    FINISH: Final = 2  # a finish reason
    USAGE: Final = 4
    ERROR: Final = 8  # the upstream reports an error: the stream ends here
    END: Final = 16  # the family's terminator: the stream ends here
    ORDINARY: Final = 32  # one event and nothing else, so no comments to be taken out; a hint, for speed


class Seen:
    """What one try's events have shown so far; `scan` writes it, the passage reads it."""

    __slots__ = (
        "around",
        "around_at",
        "choices",
        "end",
        "error",
        "events",
        "finished",
        "patience",
        "stop",
        "usage_frame",
    )

    def __init__(self) -> None:
        self.events = 0  # events with data, up to and including the one that ended the stream
        self.choices: set[int] = set()  # indexes of choices that spoke
        self.finished: dict[int, str] = {}  # choice -> finish reason
        self.usage_frame: bytes | None = None  # the last frame with usage in it: parsed at the end, and once
        self.error: ErrorEvent | None = None
        self.stop = 0  # with ERROR or END: where that event begins in the frame just scanned ...
        self.end = 0  # ... and where it ends; what follows belongs to nobody
        self.around = (b"\n", b"\n")  # what stood before and after the text of an ordinary event, to know the next by
        self.around_at = 0  # `events` when that was noted
        self.patience = 8  # notes that may turn out to be of no use


class Dialect(Protocol):
    """One API family. Pure, stateless, shared by all streams."""

    name: str
    ping: bytes  # b"" where a heartbeat would be understood as something else
    tells: bool  # it knows where text is; else `texts` finds none

    def scan(self, frame: bytes, seen: Seen) -> int:
        """Classify whole events; stop at the first ERROR or END and say where (`seen.stop`, `seen.end`)."""
        ...

    def verdict(self, seen: Seen, *, terminated: bool) -> Fault | None:
        """The logical end was reached, by the terminator or a clean end of the transport: whole, or what is wrong."""
        ...

    def usage(self, seen: Seen) -> Usage | None:
        """Tokens as the upstream last stated them."""
        ...

    def error_event(self, message: str, *, type: str, code: str | None, param: str | None = None) -> bytes:
        """One whole event, in the form that makes this family's SDKs raise; b"" when there is none."""
        ...

    def texts(self, payload: bytes, *, whole: bool = False) -> Told:
        """The text in one event's data, or in a `whole` answer of one JSON body: where, of which choice, what else."""
        ...

    def text_event(self, payload: bytes, at: TextAt, text: str) -> bytes:
        """The data of an event of its own with this text of this choice, after the manner of `payload`."""
        ...
