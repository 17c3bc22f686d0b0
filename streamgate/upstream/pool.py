"""Which connection serves whom: the books of all connections, as decisions returned. No I/O.

A connection is an opaque key. It is ACTIVE (an exchange has it), POOLED, or SETTLING (its stream is over, its HTTP body
not yet), until it is lost: at all times opened == closed + pooled + active + settling.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from streamgate.upstream.settings import Origin, PoolSettings

C = TypeVar("C", bound=Hashable)
NEVER = float("inf")


class Place(Enum):
    ACTIVE = "active"
    POOLED = "pooled"
    SETTLING = "settling"


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Connections of one upstream: two totals, and how many there are now of each kind."""

    opened: int = 0
    closed: int = 0
    pooled: int = 0
    active: int = 0
    settling: int = 0


class Shelf(Generic[C]):
    """The connections of one origin. `idle` is in the order of return: last in, first out."""

    __slots__ = ("active", "closed", "idle", "opened", "patience", "settling")

    def __init__(self, patience: float) -> None:
        self.patience = patience  # seconds a connection may be idle
        self.idle: dict[C, float] = {}  # -> since when
        self.opened = self.closed = self.active = self.settling = 0


class Entry(Generic[C]):
    """What the books say about one connection."""

    __slots__ = ("born", "place", "shelf")

    def __init__(self, shelf: Shelf[C], born: float) -> None:
        self.shelf = shelf
        self.born = born
        self.place = Place.ACTIVE


class Pool(Generic[C]):
    """All connections. Where it returns connections to be closed, they stay in the books until `lost` says so."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._shelves: dict[Origin, Shelf[C]] = {}
        self._entries: dict[C, Entry[C]] = {}
        self._settling: dict[C, float] = {}  # -> until when; one patience for all, so in order
        self._closing = False

    def opened(self, origin: Origin, connection: C, now: float) -> None:
        """A new connection, and the exchange that had it dialled takes it."""
        shelf = self._shelves.get(origin)
        if shelf is None:
            patience = self._settings.idle if origin.idle is None else origin.idle
            shelf = self._shelves[origin] = Shelf(patience)
        self._entries[connection] = Entry(shelf, now)
        shelf.opened += 1
        shelf.active += 1

    def take(self, origin: Origin, now: float) -> tuple[C | None, tuple[C, ...]]:
        """The connection to use, None for a new one, and those found too old: they are to be closed."""
        shelf = self._shelves.get(origin)
        if shelf is None or not shelf.idle:
            return None, ()
        old: tuple[C, ...] = ()
        while shelf.idle:
            connection, since = shelf.idle.popitem()
            entry = self._entries[connection]
            entry.place = Place.ACTIVE
            shelf.active += 1
            if now < since + shelf.patience and now < entry.born + self._settings.life:
                return connection, old
            old = (*old, connection)
        return None, old

    def give_back(self, connection: C, now: float) -> float:
        """Keep it for the next exchange, for so many seconds; 0: it is too old, or not needed, and is to be closed."""
        entry = self._entries[connection]
        shelf = entry.shelf
        full = len(shelf.idle) >= self._settings.max_idle
        if full or self._closing or not shelf.patience or now >= entry.born + self._settings.life:
            return 0.0
        self._leave(connection, entry)
        entry.place = Place.POOLED
        shelf.idle[connection] = now
        return shelf.patience

    def settle(self, connection: C, now: float) -> None:
        """Its exchange left it; it has `settings.settle` seconds to reach the end of its HTTP body."""
        entry = self._entries[connection]
        self._leave(connection, entry)
        entry.place = Place.SETTLING
        entry.shelf.settling += 1
        self._settling[connection] = now + self._settings.settle

    def lost(self, connection: C) -> None:
        """It is closed, whoever closed it, wherever it was; once."""
        entry = self._entries.pop(connection)
        self._leave(connection, entry)
        entry.shelf.closed += 1

    def _leave(self, connection: C, entry: Entry[C]) -> None:
        match entry.place:
            case Place.ACTIVE:
                entry.shelf.active -= 1
            case Place.POOLED:
                del entry.shelf.idle[connection]
            case Place.SETTLING:
                entry.shelf.settling -= 1
                del self._settling[connection]

    def overdue(self, now: float) -> list[C]:
        """Those that waited too long, for a next exchange or for their end: to be closed."""
        due = [connection for connection, until in self._settling.items() if until <= now]
        for shelf in self._shelves.values():
            for connection, since in shelf.idle.items():
                if since + shelf.patience > now:
                    break  # those after it came back later
                due.append(connection)
        return due

    def next_due(self) -> float:
        """When `overdue` is worth asking again."""
        soonest = next(iter(self._settling.values()), NEVER)
        for shelf in self._shelves.values():
            since = next(iter(shelf.idle.values()), NEVER)
            soonest = min(soonest, since + shelf.patience)
        return soonest

    def close(self) -> list[C]:
        """Nothing is kept from now on; those that no exchange has are to be closed."""
        self._closing = True
        return [connection for connection, entry in self._entries.items() if entry.place is not Place.ACTIVE]

    def statistics(self) -> dict[str, PoolStatistics]:
        """By the origin's name."""
        found: dict[str, PoolStatistics] = {}
        for origin, shelf in self._shelves.items():
            other = found.get(origin.name, PoolStatistics())
            found[origin.name] = PoolStatistics(
                opened=other.opened + shelf.opened,
                closed=other.closed + shelf.closed,
                pooled=other.pooled + len(shelf.idle),
                active=other.active + shelf.active,
                settling=other.settling + shelf.settling,
            )
        return found
