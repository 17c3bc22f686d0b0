"""SERVING -> DRAINING -> DRAINED, and the streams inside.

A drain is an object that is handed down: a stream says how it is to be ended (`inside`), whoever runs the server begins
the drain, waits for it to be empty, and ends what is left. Must not know signals, servers or what a stream is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from types import TracebackType


class Phase(Enum):
    SERVING = "serving"
    DRAINING = "draining"
    DRAINED = "drained"


class Signal(Enum):
    BEGIN = "begin"
    EMPTY = "empty"


MOVES: dict[Phase, dict[Signal, Phase]] = {
    Phase.SERVING: {Signal.BEGIN: Phase.DRAINING},
    Phase.DRAINING: {Signal.BEGIN: Phase.DRAINING, Signal.EMPTY: Phase.DRAINED},
    Phase.DRAINED: {Signal.BEGIN: Phase.DRAINED, Signal.EMPTY: Phase.DRAINED},
}


class IllegalMove(RuntimeError):
    """A signal that the phase does not know, such as EMPTY while SERVING."""


class Drain:
    """The drain of one server."""

    def __init__(self) -> None:
        self.phase = Phase.SERVING
        self.refusing = False  # the lame-duck time is over: newcomers are turned away
        self._inside: dict[int, Inside] = {}
        self._empty = asyncio.Event()

    def __len__(self) -> int:
        """How many streams are inside, queued ones included."""
        return len(self._inside)

    def begin(self) -> None:
        """Readiness goes; newcomers are still served until `refuse`. Idempotent."""
        self._move(Signal.BEGIN)

    def refuse(self) -> None:
        self.refusing = True

    def inside(self, leave: Callable[[], None]) -> Inside:
        """Be counted while inside; `leave` is called if the drain must end this stream, once, and must not raise."""
        return Inside(self, leave)

    async def empty(self, timeout: float) -> bool:  # noqa: ASYNC109 - the deadline is this call's whole meaning
        """Wait until no stream is inside, at most `timeout` seconds; whether it came to that."""
        self._empty.clear()
        try:
            async with asyncio.timeout(timeout):
                while self._inside:
                    await self._empty.wait()
                    self._empty.clear()
        except TimeoutError:
            return False
        self._move(Signal.EMPTY)
        return True

    def expire(self) -> int:
        """Tell every stream inside that was not told before to leave; how many were told."""
        staying = [stream for stream in self._inside.values() if not stream.told]
        for stream in staying:
            stream.told = True
            stream.leave()
        return len(staying)

    def _move(self, signal: Signal) -> None:
        try:
            self.phase = MOVES[self.phase][signal]
        except KeyError:
            raise IllegalMove(f"{signal.name} while {self.phase.name}") from None


class Inside:
    """One stream's stay; a plain `with`, because leaving must not wait."""

    __slots__ = ("_drain", "leave", "told")

    def __init__(self, drain: Drain, leave: Callable[[], None]) -> None:
        self._drain = drain
        self.leave = leave
        self.told = False

    def __enter__(self) -> None:
        self._drain._inside[id(self)] = self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._drain._inside[id(self)]
        if not self._drain._inside:
            self._drain._empty.set()
