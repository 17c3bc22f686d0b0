"""The seam that the path calls, and the one that makes no spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streamgate.errors import Fault
from streamgate.observe.context import Header
from streamgate.record import Outcome, StreamRecord

FLUSH = 2.0  # s at exit; the drain's contract


class Tracing(Protocol):
    """Told of what a trace is made of. All but `flush` are plain calls, take microseconds, and must not raise."""

    @property
    def dropped(self) -> int:
        """Spans that were made and never arrived."""
        ...

    def began(self, record: StreamRecord, headers: Sequence[Header]) -> None:
        """A request arrived, with these headers; nothing else of it is known yet."""
        ...

    def trying(self, record: StreamRecord, upstream: str, url: str, headers: tuple[Header, ...]) -> tuple[Header, ...]:
        """An exchange begins with `upstream` at `url`: the headers it is to send, given those without its context."""
        ...

    def tried(self, record: StreamRecord, status: int, fault: Fault | None) -> None:
        """It is over. `status` 0: no head came; `fault` None: it was the stream's last, and shares its ending."""
        ...

    def ended(self, record: StreamRecord, outcome: Outcome | None) -> None:
        """The request is over; `outcome` is None when it never became a stream. Settles `record.trace_id`."""
        ...

    async def flush(self, within: float = FLUSH) -> None:
        """Send what is waiting; it takes so many seconds at most. Nothing is sent after it."""
        ...


class Untraced:
    """No spans; a client's trace context passes as it came."""

    dropped = 0

    def began(self, record: StreamRecord, headers: Sequence[Header]) -> None:
        pass

    def trying(self, record: StreamRecord, upstream: str, url: str, headers: tuple[Header, ...]) -> tuple[Header, ...]:
        return headers

    def tried(self, record: StreamRecord, status: int, fault: Fault | None) -> None:
        pass

    def ended(self, record: StreamRecord, outcome: Outcome | None) -> None:
        pass

    async def flush(self, within: float = FLUSH) -> None:
        pass
