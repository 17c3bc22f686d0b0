"""Whatever comes in whatever order: no limit is passed, nothing is lost, and who waits gets in or is told."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from streamgate.admission.claim import Bound, Claim, Level, Limits, Priority
from streamgate.admission.ledger import Changed, Ledger
from streamgate.admission.queue import QueueSettings
from streamgate.admission.ticket import State, Ticket
from streamgate.errors import Reason

TENANTS, ROUTES, CLASSES, UPSTREAMS = "abc", "mn", ("fast", "slow"), ("x", "y")
Key = tuple[Level, str]

limits = st.builds(
    Limits,
    concurrent=st.integers(0, 4),
    requests_per_minute=st.sampled_from([0, 0, 0, 6]),
    tokens_per_minute=st.sampled_from([0, 0, 0, 100]),
)
configurations = st.fixed_dictionaries(
    {
        "queue": st.integers(0, 6),
        "max_wait": st.sampled_from([5.0, 60.0]),
        "reserved": st.sampled_from([0.0, 0.25, 0.5]),
        "limits": st.dictionaries(
            st.sampled_from(
                [(Level.GLOBAL, "")]
                + [(Level.TENANT, name) for name in TENANTS]
                + [(Level.MODEL, name) for name in ROUTES]
                + [(Level.UPSTREAM, name) for name in UPSTREAMS]
            ),
            limits,
            max_size=8,
        ),
    }
)


class Books(RuleBasedStateMachine):
    """A ledger, and who should hold what."""

    alive = Bundle("alive")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(QueueSettings())
        self.now = 1000.0
        self.tickets: set[Ticket] = set()
        self.counted: dict[Ticket, list[Key]] = {}
        self.highest: Counter[Key] = Counter()  # what a count may still be after its limit was lowered
        self.claims: dict[tuple[str, str, str], Claim] = {}
        self.limits: dict[Key, Limits] = {}
        self.configure(
            {"queue": 3, "max_wait": 60.0, "reserved": 0.25, "limits": {(Level.GLOBAL, ""): Limits(concurrent=2)}}
        )

    def configure(self, written: dict) -> None:  # type: ignore[type-arg]
        classes = (Priority(name="fast", weight=4.0, reserved=written["reserved"]), Priority(name="slow"))
        self.settings = QueueSettings(queue=written["queue"], max_wait=written["max_wait"], priorities=classes)
        self.limits = written["limits"]
        self.settled = False
        self.claims = {}

    def claim(self, tenant: str, route: str, priority: str) -> Claim:
        key = (tenant, route, priority)
        if key not in self.claims:
            self.claims[key] = Claim(
                own=self.bounds((Level.TENANT, tenant)),
                shared=self.bounds((Level.GLOBAL, ""), (Level.MODEL, route)),
                upstreams=self.bounds(*((Level.UPSTREAM, name) for name in UPSTREAMS)) if route == "m" else (),
                tenant=tenant, priority=priority, route=route,
            )  # fmt: skip
        return self.claims[key]

    def bounds(self, *keys: Key) -> tuple[Bound, ...]:
        """All of them, always: a level that has no limit today is counted for the one it gets tomorrow."""
        return tuple(Bound(*key, self.limits.get(key, Limits())) for key in keys)

    @rule(written=configurations)
    def reload(self, written: dict) -> None:  # type: ignore[type-arg]
        """Other limits, for the same counts."""
        self.configure(written)
        self.told(self.ledger.reload(self.settings, self.now))

    @rule(
        target=alive, tenant=st.sampled_from(TENANTS), route=st.sampled_from(ROUTES), priority=st.sampled_from(CLASSES),
        tokens=st.integers(0, 60), order=st.permutations(UPSTREAMS), count=st.integers(1, 4),
    )  # fmt: skip
    def arrive(self, tenant, route, priority, tokens, order, count):  # type: ignore[no-untyped-def]
        """Some come; who is refused has a reason, a time, and nothing else."""
        return multiple(
            *filter(None, (self.one(self.claim(tenant, route, priority), tokens, order) for _ in range(count)))
        )

    def one(self, claim: Claim, tokens: int, order: list[str]) -> Ticket | None:
        ticket = Ticket(claim, tokens, lambda: order)
        before = self.ledger.waiting
        bounds = [*claim.own, *claim.shared, *claim.upstreams]
        for bound in bounds:  # the newest claim's limits hold, from now on
            count = self.ledger.register.counts.get((bound.level, bound.name))
            if count is not None and count.limits != bound.limits:
                self.highest[bound.level, bound.name] = count.used
        self.told(self.ledger.arrive(ticket, self.now))
        if ticket.state is State.DENIED:
            denied = ticket.denied
            assert denied is not None and 0 < denied.retry_after < math.inf
            assert denied.own == (denied.level in (Level.TENANT, Level.KEY))
            if denied.reason is Reason.QUEUE_FULL:
                assert before >= self.settings.queue > 0
            return None
        if ticket.state is State.WAITING:
            assert ticket.deadline == self.now + self.settings.max_wait
        self.tickets.add(ticket)
        return ticket

    def told(self, changed: Changed) -> None:
        for ticket in changed:
            if ticket.state is State.DENIED:
                assert ticket.denied is not None and ticket.denied.reason is Reason.QUEUE_FULL
                self.tickets.discard(ticket)
            else:
                assert ticket.state is State.HELD

    @rule(ticket=consumes(alive))
    def leave(self, ticket: Ticket) -> None:
        """A stream ends, or a client leaves the queue."""
        if ticket.state is State.HELD:
            self.told(self.ledger.leave(ticket, self.now))
        else:
            self.told(self.ledger.withdraw(ticket, self.now))
        self.tickets.discard(ticket)

    @rule(ticket=consumes(alive))
    def cancel(self, ticket: Ticket) -> None:
        """It leaves in the moment of its grant, or before."""
        self.told(self.ledger.withdraw(ticket, self.now))
        self.tickets.discard(ticket)

    @rule(ticket=alive, tokens=st.integers(0, 200))
    def settle(self, ticket: Ticket, tokens: int) -> None:
        if ticket.state is State.HELD:
            self.ledger.settle(ticket, tokens, self.now)

    @rule(ticket=alive, upstream=st.sampled_from(UPSTREAMS), moved=st.booleans())
    def move(self, ticket: Ticket, upstream: str, moved: bool) -> None:
        if ticket.claim.upstreams and self.ledger.shift(ticket, upstream, self.now):
            before = ticket.upstream
            self.told(self.ledger.shifted(ticket, upstream, self.now, moved=moved))
            assert ticket.upstream == (upstream if moved else before)

    @rule(seconds=st.sampled_from([0.001, 0.5, 3.0, 20.0, 70.0]))
    def wait(self, seconds: float) -> None:
        """Time passes, and deadlines with it."""
        self.now += seconds
        for ticket in sorted(self.tickets, key=lambda each: each.number):
            if ticket.state is State.WAITING and ticket.deadline <= self.now:
                self.told(self.ledger.expire(ticket, self.now))
                if ticket.state is State.DENIED:
                    self.tickets.discard(ticket)

    @invariant()
    def every_slot_has_its_holder(self) -> None:
        expected: Counter[Key] = Counter()
        for ticket in self.tickets:
            held = (*ticket.claim.own, *ticket.claim.shared) if ticket.state is State.HELD else ticket.claim.own
            expected.update((bound.level, bound.name) for bound in held)
            if ticket.state is State.HELD and ticket.claim.upstreams:
                expected[Level.UPSTREAM, ticket.upstream] += 1
        for key, count in self.ledger.register.counts.items():
            assert count.used == expected[key], key
        assert self.ledger.taken == sum(ticket.state is State.HELD for ticket in self.tickets)
        assert self.ledger.waiting == sum(ticket.state is State.WAITING for ticket in self.tickets)

    @invariant()
    def no_limit_is_passed(self) -> None:
        """Except by those who were there when it was lowered; and the reserve of a class is not others'."""
        for key, count in self.ledger.register.counts.items():
            if count.limits.concurrent:
                assert count.used <= max(count.limits.concurrent, self.highest[key])
                self.highest[key] = min(self.highest[key], count.used)

    @invariant()
    def a_reserve_is_its_class_s_own(self) -> None:
        """Once all who were there before the last reload have gone."""
        count = self.ledger.register.counts.get((Level.GLOBAL, ""))
        if not self.ledger.taken:
            self.settled = True
        if count is None or not count.limits.concurrent or not self.settled:
            return
        if count.limits != self.limits.get((Level.GLOBAL, ""), Limits()):  # no claim has told of them yet
            return
        held = Counter(ticket.claim.priority for ticket in self.tickets if ticket.state is State.HELD)
        slots = count.limits.concurrent
        kept = sum(max(held[each.name], int(each.reserved * slots)) for each in self.settings.priorities)
        assert kept <= slots

    @invariant()
    def lines_are_in_order(self) -> None:
        queue = self.ledger.queue
        for line in queue.lines:
            assert line.tickets and line.parked
            assert all(first.number < second.number for first, second in pairwise(line.tickets))
            assert all(line in count.parked[line.rank] for count in line.parked)
        assert queue.waiting == sum(len(line.tickets) for line in queue.lines)

    @invariant()
    def nobody_waits_who_could_start(self) -> None:
        """But for a rate of an upstream that has filled up since."""
        for line in self.ledger.queue.lines:
            if not line.head.terms.metered:
                assert self.ledger.slots.blockers(line.head, self.now)

    def teardown(self) -> None:
        """All streams end, one after the other: everybody who waits gets in, or has been told; then all is empty."""
        for ticket in [each for each in self.tickets if each.state is State.HELD]:
            self.leave(ticket)
        while self.tickets:
            held = next((each for each in self.tickets if each.state is State.HELD), None)
            if held is not None:
                self.leave(held)
            else:  # a rate of an upstream: in vain until the deadline
                before = len(self.tickets)
                self.wait(70.0)
                assert len(self.tickets) < before
        ledger = self.ledger
        assert (ledger.taken, ledger.waiting, len(ledger.queue.lines)) == (0, 0, 0)
        assert all(not count.used and not count.parked for count in ledger.register.counts.values())
        assert all(not tenant.leases for tenant in ledger.register.tenants.values())
        assert ledger.queue.filled == sum(rank.quota for rank in ledger.queue.ranks.values())
        ledger.reload(self.settings, self.now + 1e9)
        assert not ledger.register.counts and not ledger.register.tenants


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
