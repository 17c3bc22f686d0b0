"""Who is next? Lines by (priority, tenant, route), parked where they wait, and the order in which they move. Pure.

Of the classes, the one that is owed most by weight; in it, the tenant that holds fewest leases of the class, then who
was served longest ago; in a line, who came first. A line is parked at what its first request waits for, so that one
whose model is full is in nobody's way, and a slot that comes free finds those who want it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from streamgate.admission.claim import Level, Priority
from streamgate.admission.counts import Count
from streamgate.admission.estimate import Pace

if TYPE_CHECKING:
    from streamgate.admission.ticket import Ticket

GATEWAY = Level.GLOBAL
LEASES = 1 << 48  # one lease more outweighs every turn in `Tenant.order`
_ORDER = attrgetter("tenant.order")
_LENGTH = attrgetter("length")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """`queue` may wait at once (0: none), each for `max_wait` seconds. Of `priorities` the first is that of a request
    which names none of them; without any, all are alike."""

    queue: int = 0
    max_wait: float = 10.0
    priorities: tuple[Priority, ...] = ()


class Tenant:
    """Who is treated as one, in one class. `order`: fewest leases in this class first, then served longest ago.

    Leases of other classes do not count: with them the turns of a class would follow what happens in another, and the
    wait in a line could not be foretold (median error 24 % in place of 8 %, in the model of tests/unit/admission).
    """

    __slots__ = ("leases", "name", "order", "priority", "served", "terms")

    def __init__(self, priority: str, name: str) -> None:
        self.priority = priority
        self.name = name
        self.leases = self.served = self.order = 0
        self.terms = 0  # that refer to it

    def took(self, turn: int) -> None:
        self.leases += 1
        self.served = turn
        self.order = self.leases * LEASES + turn

    def gave_back(self) -> None:
        self.leases -= 1
        self.order -= LEASES


class Rank:
    """A class of requests, as it stands. `quota` slots of the gateway's are kept for it, `held` are in its use."""

    __slots__ = ("grants", "held", "lines", "name", "quota", "reserved", "turn", "waiting", "weight")

    def __init__(self, name: str) -> None:
        self.name = name
        self.weight = 1.0
        self.reserved = 0.0
        self.quota = self.held = self.waiting = 0
        self.turn = 0.0  # virtual time: a grant costs 1 / weight, whose is least is next
        self.lines: dict[tuple[str, str], Line] = {}
        self.grants = Pace(0.0)


class Line:
    """Requests of one class, tenant and route, in the order they came."""

    __slots__ = ("grants", "length", "name", "parked", "rank", "tenant", "tickets")

    def __init__(self, rank: Rank, tenant: Tenant, name: tuple[str, str], now: float) -> None:
        self.rank = rank
        self.tenant = tenant
        self.name = name
        self.tickets: dict[Ticket, None] = {}
        self.parked: Sequence[Count] = ()
        self.length = 0
        self.grants = Pace(now)

    @property
    def head(self) -> Ticket:
        return next(iter(self.tickets))

    @property
    def newest(self) -> Ticket:
        return next(reversed(self.tickets))


class Queue:
    """All who wait, and the classes with their reserves."""

    def __init__(self, settings: QueueSettings) -> None:
        self.waiting = 0
        self.lines: dict[Line, None] = {}
        self.ranks: dict[str, Rank] = {}
        self.filled = 0  # slots of the gateway's in use or kept for a class
        self._turn = 0.0
        self._slots = 0  # of the gateway; 0: no limit
        self.settings = settings
        self.reload(settings)

    def reload(self, settings: QueueSettings) -> None:
        """Classes that are gone live on without a reserve, as long as they hold or wait."""
        self.settings = settings
        before, self.ranks = self.ranks, {}
        for priority in settings.priorities or (Priority(name=""),):
            rank = self.ranks[priority.name] = before.pop(priority.name, Rank(priority.name))
            rank.weight, rank.reserved = priority.weight, priority.reserved
        self._default = next(iter(self.ranks.values()))
        for name, rank in before.items():
            if rank.held or rank.waiting:
                rank.reserved = 0.0
                self.ranks[name] = rank
        self.reserve(self._slots)

    def reserve(self, slots: int) -> None:
        """The gateway has so many slots (0: no limit): keep the classes' shares of them."""
        self._slots = slots
        for rank in self.ranks.values():
            rank.quota = int(rank.reserved * slots + 1e-9)  # down: so that the shares never sum up to more
        self.filled = sum(max(rank.quota, rank.held) for rank in self.ranks.values())

    def rank(self, priority: str) -> Rank:
        return self.ranks.get(priority, self._default)

    def took(self, rank: Rank) -> None:
        if rank.held >= rank.quota:
            self.filled += 1
        rank.held += 1

    def gave_back(self, rank: Rank) -> None:
        rank.held -= 1
        if rank.held >= rank.quota:
            self.filled -= 1

    def add(self, ticket: Ticket, rank: Rank, tenant: Tenant, name: tuple[str, str], now: float) -> Line:
        """To the end of its line; or before those who came later, when it was there before."""
        if not rank.waiting:
            rank.grants = Pace(now)
        line = rank.lines.get(name)
        if line is None:
            line = rank.lines[name] = Line(rank, tenant, name, now)
            self.lines[line] = None
        overtaken = line.tickets and line.newest.number > ticket.number
        line.tickets[ticket] = None
        if overtaken:
            line.tickets = dict.fromkeys(sorted(line.tickets, key=attrgetter("number")))
        self._lengthen(line, 1)
        return line

    def remove(self, ticket: Ticket, line: Line) -> None:
        del line.tickets[ticket]
        self._lengthen(line, -1)
        if not line.tickets:
            self.park(line, ())
            del line.rank.lines[line.name], self.lines[line]

    def _lengthen(self, line: Line, by: int) -> None:
        self.waiting += by
        line.rank.waiting += by
        line.length = len(line.tickets)

    def longest(self) -> Line:
        """The one that gives way when the queue is full. By its length alone: were a class with ten times the weight
        given ten times the places, all classes would wait equally long."""
        return max(self.lines, key=_LENGTH)

    def park(self, line: Line, at: Sequence[Count]) -> None:
        """Let it wait for any of these."""
        for count in line.parked:
            lines = count.parked[line.rank]
            del lines[line]
            if not lines:
                del count.parked[line.rank]
        line.parked = at
        for count in at:
            count.parked.setdefault(line.rank, {})[line] = None

    def next(self, freed: Iterable[Count]) -> Line | None:
        """Who of those parked here is next, as far as these counts are concerned."""
        best: Rank | None = None
        found: list[dict[Line, None]] = []
        for count in freed:
            if not count.parked or count.used >= count.limit:
                continue
            for rank, lines in count.parked.items():
                if not self.room(count, rank):
                    continue
                # Who was idle, or could use no turn, is owed nothing for it.
                rank.turn = max(rank.turn, self._turn)
                if rank is best:
                    found.append(lines)
                elif best is None or rank.turn < best.turn:
                    best, found = rank, [lines]
        return min((min(lines, key=_ORDER) for lines in found), key=_ORDER, default=None)

    def room(self, count: Count, rank: Rank) -> bool:
        """Whether this class may take a slot here; the gateway's own are kept in part for others."""
        if count.used >= count.limit or count.shut:
            return False
        return count.level is not GATEWAY or rank.held < rank.quota or self.filled < count.limit

    def moved(self, line: Line, now: float) -> None:
        """Its first request was granted: the class has had a turn, and other lines of the tenant come first now."""
        rank = line.rank
        self._turn = rank.turn
        rank.turn += 1.0 / rank.weight
        rank.grants.note(now)
        line.grants.note(now)
        for count in line.parked:
            lines = count.parked[rank]
            del lines[line]
            lines[line] = None
