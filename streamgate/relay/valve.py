"""A source that several may pause, each for a reason of its own: it flows when none of them has one."""

from __future__ import annotations

from typing import Final

from streamgate.sse.outlet import Source

OUTLET: Final = 1  # the client does not drain
TURN: Final = 2  # hooks took their share of this turn of the event loop
MAILBOX: Final = 4  # hooks that wait are behind


class Valve:
    """What an outlet is attached to instead of the source itself."""

    __slots__ = ("_reasons", "_source")

    def __init__(self) -> None:
        self._reasons = 0
        self._source: Source | None = None

    def attach(self, source: Source | None) -> None:
        self._source = source
        if source is not None and self._reasons:
            source.pause()

    def pause(self) -> None:
        self.shut(OUTLET)

    def resume(self) -> None:
        self.open(OUTLET)

    def shut(self, reason: int) -> None:
        before, self._reasons = self._reasons, self._reasons | reason
        if not before and self._source is not None:
            self._source.pause()

    def open(self, reason: int) -> None:
        before, self._reasons = self._reasons, self._reasons & ~reason
        if before and not self._reasons and self._source is not None:
            self._source.resume()
