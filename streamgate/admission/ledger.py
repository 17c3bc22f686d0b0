"""Who may start, who waits, and for how long: the books of one process, as functions of (state, now). Pure.

A request holds slots of all its levels or of none. Those of its own levels it holds while it waits, so that they cannot
be waited for; those of the shared ones are what it waits for. After each call nobody waits who could start: that is
what makes it right to let in a newcomer at once who finds room.

A call returns the other requests whose fate it changed: they have a slot now, or lost their place to a newcomer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from streamgate.admission.claim import Bound, Level
from streamgate.admission.counts import Count
from streamgate.admission.estimate import UNKNOWN, wait_in_line
from streamgate.admission.queue import Line, Queue, QueueSettings
from streamgate.admission.slots import Slots, beyond
from streamgate.admission.terms import Register
from streamgate.admission.ticket import Denied, Note, State, Ticket
from streamgate.errors import Reason

Changed = Sequence[Ticket]
NOBODY: Changed = ()


class Ledger:
    """`log` is off while it is None."""

    def __init__(self, settings: QueueSettings) -> None:
        self.register = Register()
        self.queue = Queue(settings)
        self.slots = Slots(self.queue)
        self.log: list[Note] | None = None
        self._number = 0

    @property
    def taken(self) -> int:
        """Leases."""
        return self.slots.taken

    @property
    def waiting(self) -> int:
        return self.queue.waiting

    @property
    def barred(self) -> bool:
        """Whether something is thought to be full at the store that replicas share."""
        return bool(self.slots.barred)

    # ------------------------------------------------------------------ coming

    def arrive(self, ticket: Ticket, now: float) -> Changed:
        """Judge a new request: afterwards it is HELD, WAITING (until its deadline) or DENIED."""
        terms = ticket.terms = self.register.terms(ticket.claim, now)
        changed = self._relimited(now) if self.register.changed else NOBODY
        rank = ticket.rank = self.queue.rank(ticket.claim.priority)
        self._number += 1
        ticket.number, ticket.arrived = self._number, now
        if self.log is not None:
            self._note("arrive", ticket, now)
        denied = beyond(ticket, now)
        if denied is not None:
            self._deny(ticket, denied, now)
            return changed
        line = rank.lines.get(terms.line)
        blockers = line.parked if line is not None else self.slots.blockers(ticket, now)
        if blockers:
            return [*changed, *self._line_up(ticket, line, blockers, now)]
        self.slots.charge(ticket, now)
        self.slots.grant(ticket, now)
        if self.log is not None:
            self._note("grant", ticket, now)
        return changed

    def _relimited(self, now: float) -> Changed:
        """A newer claim has other limits: perhaps there is room where there was none."""
        changed, self.register.changed = self.register.changed, []
        for count in changed:
            if count.level is Level.GLOBAL:
                self.queue.reserve(count.limits.concurrent)
        return self._pump(changed, now)

    def _line_up(self, ticket: Ticket, line: Line | None, blockers: Sequence[Count], now: float) -> Changed:
        """A place in the queue, perhaps another's; or a refusal."""
        queue, level = self.queue, blockers[0].level
        most, pushed = queue.settings.queue, NOBODY
        wait = wait_in_line(line, ticket.rank, blockers, now)
        said = wait or UNKNOWN
        if not most:
            return self._deny(ticket, Denied(Reason.CONCURRENCY, level, said), now)
        if wait > queue.settings.max_wait:
            return self._deny(ticket, Denied(Reason.QUEUE_TIMEOUT, level, said), now)
        if queue.waiting >= most:
            longest = queue.longest()
            if longest is line or longest.length <= 1 + (line.length if line is not None else 0):
                return self._deny(ticket, Denied(Reason.QUEUE_FULL, level, said), now)
            pushed = self._push_out(longest, now)
        ticket.deadline = now + queue.settings.max_wait
        self.slots.charge(ticket, now)
        self.slots.charge_any(ticket, now)
        self._place(ticket, blockers, now)
        return pushed

    def _place(self, ticket: Ticket, blockers: Sequence[Count], now: float) -> None:
        ticket.state = State.WAITING
        line = ticket.line = self.queue.add(ticket, ticket.rank, ticket.terms.tenant, ticket.terms.line, now)
        if line.head is ticket:
            self.queue.park(line, blockers)

    def _push_out(self, line: Line, now: float) -> Changed:
        """The newest of this line makes room."""
        ticket = line.newest
        blockers = line.parked
        self.queue.remove(ticket, line)
        ticket.line = None
        rest = line if line.tickets else None
        said = wait_in_line(rest, ticket.rank, blockers, now) or UNKNOWN
        self._deny(ticket, Denied(Reason.QUEUE_FULL, blockers[0].level, said), now)
        return (ticket,)

    def _deny(self, ticket: Ticket, denied: Denied, now: float) -> Changed:
        self.slots.refund(ticket, now)
        ticket.state, ticket.denied = State.DENIED, denied
        if self.log is not None:
            self._note("refuse", ticket, now, denied)
        return NOBODY

    # ------------------------------------------------------------------ going

    def leave(self, ticket: Ticket, now: float) -> Changed:
        """A stream has ended: its slots go to those who wait."""
        if ticket.state is not State.HELD:
            return NOBODY
        ticket.state = State.GONE
        freed = self.slots.end(ticket, now)
        if self.log is not None:
            self._note("leave", ticket, now)
        return self._pump(freed, now) if self.queue.waiting else NOBODY

    def withdraw(self, ticket: Ticket, now: float) -> Changed:
        """It leaves before it began, from wherever it is; nothing is charged for it."""
        match ticket.state:
            case State.WAITING:
                changed = self._out_of_line(ticket, now)
                self.slots.refund(ticket, now)
            case State.HELD:
                freed = self.slots.release(ticket)
                self.slots.refund(ticket, now)
                changed = self._pump(freed, now)
            case _:
                return NOBODY
        ticket.state = State.GONE
        if self.log is not None:
            self._note("leave", ticket, now)
        return changed

    def expire(self, ticket: Ticket, now: float) -> Changed:
        """Its deadline has passed: denied, unless it was granted in that moment."""
        if ticket.state is not State.WAITING:
            return NOBODY
        line = ticket.rank.lines[ticket.terms.line]
        blockers = line.parked
        changed = self._out_of_line(ticket, now)
        said = wait_in_line(line if line.tickets else None, ticket.rank, blockers, now) or UNKNOWN
        self._deny(ticket, Denied(Reason.QUEUE_TIMEOUT, blockers[0].level, said), now)
        return changed

    def _out_of_line(self, ticket: Ticket, now: float) -> Changed:
        line = ticket.rank.lines[ticket.terms.line]
        first = line.head is ticket
        self.queue.remove(ticket, line)
        return self._move_up(line, now) if first and line.tickets else NOBODY

    def _move_up(self, line: Line, now: float) -> list[Ticket]:
        """Another one is first in this line, and may be blocked by something else, or by nothing."""
        granted = []
        while line.tickets:
            ticket = line.head
            blockers = self.slots.blockers(ticket, now)
            if blockers:
                self.queue.park(line, blockers)
                break
            granted.append(self._granted(ticket, line, now))
        return granted

    def _pump(self, freed: Sequence[Count], now: float) -> Changed:
        """Give what came free to those who wait for it, in their order."""
        granted = []
        while (line := self.queue.next(freed)) is not None:
            ticket = line.head
            blockers = self.slots.blockers(ticket, now)
            if blockers:
                self.queue.park(line, blockers)
                continue
            granted.append(self._granted(ticket, line, now))
            if line.tickets and line.head.terms.awaited != ticket.terms.awaited:  # after a reload
                granted += self._move_up(line, now)
        return granted

    def _granted(self, ticket: Ticket, line: Line, now: float) -> Ticket:
        self.slots.grant(ticket, now)
        self.queue.moved(line, now)
        self.queue.remove(ticket, line)
        if self.log is not None:
            self._note("grant", ticket, now)
        return ticket

    # ------------------------------------------------------------------ a store that replicas share

    def confirmed(self, ticket: Ticket, now: float) -> Changed:
        """The store has a slot for this one: so it may have more."""
        opened = list(self.slots.barred.intersection((*ticket.terms.shared, ticket.seat)))
        self.slots.open(opened)
        return self._pump(opened, now) if opened else NOBODY

    def returned(self, ticket: Ticket, full: Bound | None, now: float) -> Changed:
        """The store has no slot there: wait for one, before all who came later, or be denied."""
        freed = self.slots.release(ticket)
        shut = [
            count for count in ticket.terms.awaited if full and (count.level, count.name) == (full.level, full.name)
        ]
        self.slots.shut(shut or ticket.terms.awaited)
        blockers = self.slots.blockers(ticket, now)
        line = ticket.rank.lines.get(ticket.terms.line)
        pushed = NOBODY
        if not blockers:  # another upstream has room
            self.slots.grant(ticket, now)
        elif ticket.deadline == math.inf:
            pushed = self._line_up(ticket, line, blockers, now)
        else:
            if self.queue.waiting >= max(1, self.queue.settings.queue):
                pushed = self._push_out(self.queue.longest(), now)
            self._place(ticket, blockers, now)
        return [*pushed, *self._pump(freed, now)]

    def reopen(self, now: float) -> Changed:
        """Something may have come free at the store: for each of its counts one of those who wait finds out."""
        barred = list(self.slots.barred)
        for count in barred:
            count.shut = False
        return self._pump(barred, now)

    # ------------------------------------------------------------------ the rest

    def shift(self, ticket: Ticket, upstream: str, now: float) -> bool:
        """Begin a move to another upstream: hold a slot at both. False: that one is full, nothing has changed."""
        return ticket.state is State.HELD and self.slots.shift(ticket, upstream, now)

    def shifted(self, ticket: Ticket, upstream: str, now: float, *, moved: bool) -> Changed:
        """End it, with the new slot only or with the old one."""
        freed = self.slots.shifted(ticket, upstream, now) if moved else self.slots.unshifted(ticket)
        return self._pump(freed, now)

    def settle(self, ticket: Ticket, tokens: int, now: float) -> int:
        """What it really used, in place of the estimate: once. Returns the difference."""
        if ticket.settled or not ticket.charged:
            return 0
        ticket.settled = True
        more = tokens - ticket.tokens
        for rate in ticket.terms.tokens:
            rate.take(more, now)
        if ticket.paid is not None:
            ticket.paid.charge(more, now, requests=0)
        return more

    def reload(self, settings: QueueSettings, now: float) -> Changed:
        """Other settings of the queue; who waits keeps the place and the deadline. Other limits come with claims."""
        self.queue.reload(settings)
        self.register.sweep(now, levels=frozenset(Level))
        return self._pump(list(self.register.counts.values()), now)

    def _note(self, what: str, ticket: Ticket, now: float, denied: Denied | None = None) -> None:
        line = (ticket.rank.name, *ticket.terms.line)
        said, reason = (denied.retry_after, denied.reason) if denied is not None else (0.0, None)
        if self.log is not None:
            self.log.append(Note(now, what, ticket.number, self._number, line, said, reason))
