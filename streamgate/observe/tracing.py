"""Where spans will be made: the seam that the observer calls, and the one that makes none."""

from __future__ import annotations

from typing import Protocol

from streamgate.record import Outcome, StreamRecord


class Tracing(Protocol):
    """Told of the two moments a span needs. Both are plain calls, must be quick, and must not raise."""

    def began(self, record: StreamRecord) -> None:
        """A request arrived; nothing of it is known yet."""
        ...

    def ended(self, record: StreamRecord, outcome: Outcome | None) -> None:
        """It is over; `outcome` is None for a request that never became a stream."""
        ...


class Untraced:
    """No spans."""

    def began(self, record: StreamRecord) -> None:
        pass

    def ended(self, record: StreamRecord, outcome: Outcome | None) -> None:
        pass
