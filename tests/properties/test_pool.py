"""Whatever happens to connections, the books balance, and nobody gets a connection another has."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamgate.upstream.pool import Pool
from streamgate.upstream.settings import PoolSettings, origin_of

ORIGINS = [origin_of("a", "http://a"), origin_of("b", "http://b"), origin_of("a", "http://moved")]
LIMITS = PoolSettings(idle=4.0, life=20.0, max_idle=3, settle=1.0)


class Books(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.pool: Pool[int] = Pool(LIMITS)
        self.now = 0.0
        self.next = 0
        self.opened = self.closed = 0
        self.active: dict[int, object] = {}  # -> its origin
        self.settling: dict[int, float] = {}  # -> until
        self.idle: dict[int, float] = {}  # -> until
        self.born: dict[int, float] = {}
        self.origin: dict[int, object] = {}

    def close(self, connection: int) -> None:
        self.pool.lost(connection)
        self.closed += 1
        for place in (self.active, self.settling, self.idle):
            place.pop(connection, None)

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(which=st.sampled_from(ORIGINS))
    def an_exchange_begins(self, which: object) -> None:
        connection, old = self.pool.take(which, self.now)  # type: ignore[arg-type]
        for expired in old:
            assert self.idle[expired] <= self.now or self.born[expired] + LIMITS.life <= self.now
            self.close(expired)
        if connection is None:
            connection, self.next = self.next, self.next + 1
            self.pool.opened(which, connection, self.now)  # type: ignore[arg-type]
            self.opened += 1
            self.born[connection], self.origin[connection] = self.now, which
        else:
            assert self.idle.pop(connection) > self.now
            assert self.origin[connection] == which
        assert connection not in self.active
        self.active[connection] = which

    @precondition(lambda self: self.active)
    @rule(pick=st.randoms(use_true_random=False), how=st.sampled_from(["whole", "settle", "abort"]))
    def an_exchange_ends(self, pick: object, how: str) -> None:
        connection = pick.choice(sorted(self.active))  # type: ignore[attr-defined]
        if how == "settle":
            self.pool.settle(connection, self.now)
            del self.active[connection]
            self.settling[connection] = self.now + LIMITS.settle
        elif how == "whole" and self.pool.give_back(connection, self.now):
            assert self.now < self.born[connection] + LIMITS.life
            del self.active[connection]
            self.idle[connection] = self.now + LIMITS.idle
        else:
            self.close(connection)

    @precondition(lambda self: self.settling)
    @rule()
    def a_body_ends(self) -> None:
        connection = next(iter(self.settling))
        if self.pool.give_back(connection, self.now):
            del self.settling[connection]
            self.idle[connection] = self.now + LIMITS.idle
        else:
            self.close(connection)

    @precondition(lambda self: self.idle)
    @rule()
    def a_peer_closes(self) -> None:
        self.close(next(iter(self.idle)))

    @rule()
    def the_timer_rings(self) -> None:
        due = self.pool.next_due()
        overdue = self.pool.overdue(self.now)
        assert bool(overdue) == (due <= self.now)
        waiting = {**self.idle, **self.settling}
        assert sorted(overdue) == sorted(key for key, until in waiting.items() if until <= self.now)
        for connection in overdue:
            self.close(connection)
        assert self.pool.next_due() > self.now

    @invariant()
    def the_books_balance(self) -> None:
        found = self.pool.statistics().values()
        assert sum(each.opened for each in found) == self.opened
        assert sum(each.closed for each in found) == self.closed
        assert sum(each.active for each in found) == len(self.active)
        assert sum(each.pooled for each in found) == len(self.idle)
        assert sum(each.settling for each in found) == len(self.settling)
        for each in found:
            assert each.opened == each.closed + each.pooled + each.active + each.settling


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase
