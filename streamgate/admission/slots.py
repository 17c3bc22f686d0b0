"""Taking and giving back: one request's slots and charges at all of its levels, at once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streamgate.admission.claim import Level
from streamgate.admission.counts import Count
from streamgate.admission.estimate import UNKNOWN, next_slot
from streamgate.admission.queue import Queue
from streamgate.admission.rates import Rate
from streamgate.admission.ticket import Denied, State, Ticket, Unit
from streamgate.errors import Reason


class Slots:
    """`taken` leases. `barred` are the counts that the store of several replicas may have full, whatever is free here:
    while one is shut nobody asks for it, and when it opens one request finds out for all."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.taken = 0
        self.barred: set[Count] = set()
        self._turn = 0

    def blockers(self, ticket: Ticket, now: float) -> Sequence[Count]:
        """What it would wait for: one full count, or all of the upstreams; nothing: it may start."""
        terms, room = ticket.terms, self.queue.room
        for count in terms.shared:
            if not room(count, ticket.rank):
                return (count,)
        if not terms.seats or any(usable(seat, ticket, now) for seat in terms.seats):
            return ()
        # With rates, an upstream that has a slot may be of no use: what is waited for is a slot at one that is full.
        return tuple(seat for seat in terms.seats if not room(seat, ticket.rank)) if terms.metered else terms.seats

    def charge(self, ticket: Ticket, now: float) -> None:
        """Once, on arrival: the slots of its own levels, and the rates."""
        if ticket.charged:
            return
        ticket.charged = True
        terms = ticket.terms
        terms.live += 1
        for count in terms.own:
            count.used += 1
        for rate in terms.requests:
            rate.take(1, now)
        for rate in terms.tokens:
            rate.take(ticket.tokens, now)

    def charge_any(self, ticket: Ticket, now: float) -> None:
        """Before it waits: the rates of an upstream that has room in them; it may still get another one."""
        if ticket.terms.metered and ticket.paid is None:
            ticket.paid = min(ticket.terms.seats, key=lambda seat: seat.late(ticket.tokens, now)[0])
            ticket.paid.charge(ticket.tokens, now)

    def refund(self, ticket: Ticket, now: float) -> None:
        """As if it had never come."""
        if not ticket.charged:
            return
        ticket.charged = False
        terms = ticket.terms
        terms.live -= 1
        for count in terms.own:
            count.used -= 1
        for rate in terms.requests:
            rate.take(-1, now)
        for rate in terms.tokens:
            rate.take(-ticket.tokens, now)
        self._pay(ticket, None, now)

    def grant(self, ticket: Ticket, now: float) -> None:
        """The slots that are still missing; nothing blocks it."""
        terms = ticket.terms
        if terms.seats:
            self._sit(ticket, now)
        for count in terms.shared:
            count.used += 1
        if terms.walled:
            self.queue.took(ticket.rank)
        self._turn += 1
        terms.tenant.took(self._turn)
        self.taken += 1
        ticket.state, ticket.granted, ticket.line = State.HELD, now, None
        if self.barred:  # this is the one that finds out
            for count in self.barred.intersection((*terms.shared, ticket.seat)):
                count.shut = True

    def _sit(self, ticket: Ticket, now: float) -> None:
        """At the first usable upstream of its order; one that the claim does not name has no limit."""
        upstreams = ticket.terms.upstreams
        ticket.names = (*ticket.order(), *upstreams)
        ticket.upstream = next(
            name for name in ticket.names if name not in upstreams or usable(upstreams[name], ticket, now)
        )
        ticket.seat = upstreams.get(ticket.upstream)
        if ticket.seat is not None:
            ticket.seat.used += 1
        if ticket.terms.metered:
            self._pay(ticket, ticket.seat, now)

    def _pay(self, ticket: Ticket, seat: Count | None, now: float) -> None:
        """The charge of an upstream's rates goes to this one."""
        if seat is ticket.paid:
            return
        if ticket.paid is not None:
            ticket.paid.charge(-ticket.tokens, now, requests=-1)
        if seat is not None:
            seat.charge(ticket.tokens, now)
        ticket.paid = seat

    def release(self, ticket: Ticket) -> Sequence[Count]:
        """The slots of the shared levels; what came free."""
        terms, seat = ticket.terms, ticket.seat
        freed: Sequence[Count] = terms.shared
        for count in freed:
            count.used -= 1
        if terms.walled:
            self.queue.gave_back(ticket.rank)
        if seat is not None:
            seat.used -= 1
            ticket.seat = None
            freed = (*freed, seat)
        terms.tenant.gave_back()
        self.taken -= 1
        for count in self.barred.intersection(freed) if self.barred else ():
            count.shut = False
        return freed

    def shut(self, counts: Iterable[Count]) -> None:
        self.barred.update(counts)
        for count in counts:
            count.shut = True

    def open(self, counts: Iterable[Count]) -> None:
        self.barred.difference_update(counts)
        for count in counts:
            count.shut = False

    def end(self, ticket: Ticket, now: float) -> Sequence[Count]:
        """All slots of a lease, noting how long they were kept; what came free."""
        terms, seat = ticket.terms, ticket.seat
        kept = now - ticket.granted
        for count in terms.shared:
            count.ended(kept)
        if seat is not None:
            seat.ended(kept)
        for count in terms.own:
            count.used -= 1
            count.ended(now - ticket.arrived)
        terms.live -= 1
        return self.release(ticket)

    def shift(self, ticket: Ticket, upstream: str, now: float) -> bool:
        """Take another upstream's slot beside the one it has; False: there is no room."""
        seat = ticket.terms.upstreams.get(upstream)
        if seat is not None and seat is not ticket.seat:
            if seat.full or seat.late(ticket.tokens, now)[0]:
                return False
            seat.used += 1
            ticket.spare = seat
        return True

    def shifted(self, ticket: Ticket, upstream: str, now: float) -> Sequence[Count]:
        """Keep the other slot only; what came free. A try was made at the old upstream: its request stays charged."""
        seat, old = ticket.terms.upstreams.get(upstream), ticket.seat
        ticket.upstream, ticket.spare = upstream, None
        if seat is old:
            return ()
        ticket.seat = seat
        if ticket.paid is not None:
            ticket.paid.charge(-ticket.tokens, now, requests=0)
        if seat is not None:
            seat.charge(ticket.tokens, now)
        ticket.paid = seat
        if old is None:
            return ()
        old.used -= 1
        return (old,)

    def unshifted(self, ticket: Ticket) -> Sequence[Count]:
        """Give the other slot back after all; what came free."""
        spare, ticket.spare = ticket.spare, None
        if spare is None:
            return ()
        spare.used -= 1
        return (spare,)


def usable(seat: Count, ticket: Ticket, now: float) -> bool:
    """It has a slot, and room in its rates, unless these were charged for this request before."""
    if seat.full:
        return False
    if not ticket.terms.metered or seat is ticket.paid or (ticket.paid is None and ticket.state is State.WAITING):
        return True
    return not seat.late(ticket.tokens, now)[0]


def beyond(ticket: Ticket, now: float) -> Denied | None:
    """What nobody waits for: streams of the asker's own levels, and all rates."""
    terms = ticket.terms
    for count in terms.own:
        if count.used >= count.limit:
            return Denied(Reason.CONCURRENCY, count.level, next_slot((count,)) or UNKNOWN, own=True)
    for rate in terms.requests:
        late = rate.wait(1, now)
        if late:
            return _too_many(ticket, rate, late, Unit.REQUESTS)
    for rate in terms.tokens:
        late = rate.wait(ticket.tokens, now)
        if late:
            return _too_many(ticket, rate, late, Unit.TOKENS)
    if terms.metered:
        late, unit = min((seat.late(ticket.tokens, now) for seat in terms.seats), key=lambda each: each[0])
        if late:
            return Denied(Reason.RATE, Level.UPSTREAM, late, unit=unit)
    return None


def _too_many(ticket: Ticket, rate: Rate, late: float, unit: Unit) -> Denied:
    """A rate of the asker's, or one that is shared, has no room before so many seconds."""
    count = ticket.terms.owner(rate)
    return Denied(Reason.RATE, count.level, late, own=count in ticket.terms.own, unit=unit)
