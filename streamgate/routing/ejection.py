"""Which upstreams are left out for a while? Those that failed several times in a row, as streams saw it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

NONE: frozenset[str] = frozenset()


class Circuit(StrEnum):
    """Whether an upstream is used: as always, not for now, or again although it has not shown itself well yet."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class EjectionSettings:
    """Envoy's outlier detection has the same 5 and 30 s. `max_share` of the upstreams are out at most, never all."""

    failures: int = 5  # in a row
    seconds: float = 30.0
    max_share: float = 0.5


class Ejections:
    """Failures in a row of each upstream, and who is out until when.

    One that comes back has its failures still counted: a single further one sends it out again, a success clears it.
    """

    __slots__ = ("_failures", "_most", "_names", "_settings", "_until")

    def __init__(self, names: Iterable[str], settings: EjectionSettings | None = None) -> None:
        self._settings = settings or EjectionSettings()
        self._names = frozenset(names)
        self._most = min(int(len(self._names) * self._settings.max_share), len(self._names) - 1)
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def failed(self, name: str, now: float) -> bool:
        """A try on it ended with a fault that counts against its health (`Fault.ejects`). True: it is sent out now."""
        if name not in self._names:
            return False
        count = self._failures[name] = self._failures.get(name, 0) + 1
        if count < self._settings.failures or name in self.ejected(now) or len(self._until) >= self._most:
            return False
        self._until[name] = now + self._settings.seconds
        return True

    def succeeded(self, name: str) -> bool:
        """A try on it went well; it is in again at once. True: it had failed too often before."""
        self._until.pop(name, None)
        return self._failures.pop(name, 0) >= self._settings.failures

    def standing(self, name: str, now: float) -> tuple[int, float]:
        """Failures in a row, and for how many more seconds it is out; 0.0: it is in."""
        return self._failures.get(name, 0), max(0.0, self._until.get(name, now) - now)

    def ejected(self, now: float) -> frozenset[str]:
        if not self._until:
            return NONE
        for name in [name for name, until in self._until.items() if until <= now]:
            del self._until[name]
        return frozenset(self._until)

    def circuit(self, name: str, now: float) -> Circuit:
        """How one upstream stands. One that failed too often and was not sent out, being the last, is half open."""
        if name in self.ejected(now):
            return Circuit.OPEN
        failed = self._failures.get(name, 0) >= self._settings.failures
        return Circuit.HALF_OPEN if failed else Circuit.CLOSED
