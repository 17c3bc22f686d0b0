"""The books of one process: what is refused, what waits, what is charged, and that all of it comes back."""

from __future__ import annotations

import pytest
from ledgers import Played, claim, gateway, streams

from streamgate.admission.books import Books, Quota, Row, books, quota
from streamgate.admission.claim import Bound, Claim, Level, Limits
from streamgate.admission.counts import Count
from streamgate.admission.queue import QueueSettings
from streamgate.admission.terms import Register
from streamgate.admission.ticket import Denied, State, Ticket, Unit
from streamgate.errors import Reason

KEY, TENANT, MODEL, UPSTREAM = Level.KEY, Level.TENANT, Level.MODEL, Level.UPSTREAM


def requests(level: Level, count: int, name: str = "") -> Bound:
    return Bound(level, name, Limits(requests_per_minute=count))


def tokens(level: Level, count: int, name: str = "") -> Bound:
    return Bound(level, name, Limits(tokens_per_minute=count))


def denied(ticket: Ticket) -> Denied:
    assert ticket.state is State.DENIED and ticket.denied is not None
    return ticket.denied


def used(play: Played, level: Level, name: str = "") -> int:
    return play.ledger.register.counts[level, name].used


def test_without_limits_everybody_starts() -> None:
    """And is counted."""
    play = Played()
    tickets = play.some(1000, claim())
    assert {ticket.state for ticket in tickets} == {State.HELD} and play.books == (1000, 0)
    for ticket in tickets:
        assert play.leave(ticket) == ()
    assert play.empty()


@pytest.mark.parametrize("level", [KEY, TENANT])
def test_an_own_limit_is_not_waited_for(level: Level) -> None:
    """Reached, it is a 429 at once, with the time until one of the own streams has ended."""
    play = Played(queue=10)
    mine = claim(gateway(10), own=[streams(level, 2, "me")])
    first, second = play.some(2, mine)
    play.now = 8.0
    play.leave(first)
    play.arrive(mine)
    said = denied(play.arrive(mine))
    assert (said.reason, said.level, said.own, said.retry_after) == (Reason.CONCURRENCY, level, True, 4.0)
    assert play.arrive(claim(gateway(10), own=[streams(level, 2, "other")])).state is State.HELD
    assert used(play, level, "me") == 2
    play.leave(second)
    assert play.arrive(mine).state is State.HELD


def test_who_waits_holds_the_own_slots() -> None:
    """So that nobody fills the queue with more than it may have; leaving the queue gives them back."""
    play = Played(queue=10)
    mine = claim(gateway(1), own=[streams(TENANT, 3, "me"), streams(KEY, 3, "mine")])
    running, waiting, _ = play.some(3, mine)
    assert play.books == (1, 2)
    assert denied(play.arrive(mine)).reason is Reason.CONCURRENCY
    play.ledger.withdraw(waiting, 1.0)
    assert (used(play, TENANT, "me"), used(play, KEY, "mine"), waiting.state) == (2, 2, State.GONE)
    assert play.arrive(mine).state is State.WAITING
    assert len(play.leave(running)) == 1
    assert used(play, TENANT, "me") == 2


@pytest.mark.parametrize(
    ("limit", "unit", "late"),
    [(requests, Unit.REQUESTS, 20.0), (tokens, Unit.TOKENS, 2.0)],
)
@pytest.mark.parametrize("level", list(Level))
def test_a_rate_is_never_waited_for(level: Level, limit: type[Bound], unit: Unit, late: float) -> None:
    """Refused at once, saying exactly when there is room: 429 for an own one, 503 for a shared one."""
    play = Played(queue=10)
    bound = limit(level, 3 if unit is Unit.REQUESTS else 300, "")
    mine = {
        KEY: claim(own=[bound]), TENANT: claim(own=[bound]), UPSTREAM: claim(upstreams=[bound]),
    }.get(level) or claim(bound)  # fmt: skip
    assert [play.arrive(mine, 100).state for _ in range(3)] == [State.HELD] * 3
    said = denied(play.arrive(mine, 10))
    assert (said.reason, said.level, said.own, said.unit) == (Reason.RATE, level, level in (KEY, TENANT), unit)
    assert said.retry_after == pytest.approx(late)
    play.now += late
    assert play.arrive(mine, 10).state is State.HELD


def test_all_levels_or_none() -> None:
    """What is refused by one level has taken nothing from the others."""
    play = Played()
    mine = claim(
        gateway(5), streams(MODEL, 1, "m"), own=[Bound(KEY, "k", Limits(concurrent=5, requests_per_minute=5))],
        upstreams=[streams(UPSTREAM, 5, "u")],
    )  # fmt: skip
    play.arrive(mine)
    denied(play.arrive(mine))
    assert [count.used for count in play.ledger.register.counts.values()] == [1, 1, 1, 1]
    assert play.ledger.register.counts[KEY, "k"].requests.remaining(0.0) == 4


def test_without_a_queue_a_full_house_is_said_so() -> None:
    """503, and the time until the next ending."""
    play = Played()
    mine = claim(gateway(4))
    held = play.some(4, mine)
    play.now = 2.0
    play.leave(held[0])
    play.arrive(mine)
    said = denied(play.arrive(mine))
    assert said == Denied(Reason.CONCURRENCY, Level.GLOBAL, 0.5)


def test_a_deadline_ends_a_wait() -> None:
    """Refused with the wait of one who would come then; nothing is charged; twice is once."""
    play = Played(queue=5, max_wait=3.0)
    mine = claim(gateway(1), own=[requests(KEY, 10, "k")])
    running, waiting = play.some(2, mine)
    assert waiting.deadline == 3.0
    play.now = 3.0
    assert play.ledger.expire(waiting, 3.0) == play.ledger.expire(waiting, 3.0) == ()
    assert denied(waiting).reason is Reason.QUEUE_TIMEOUT
    assert play.ledger.register.counts[KEY, "k"].requests.reset(0.0) == pytest.approx(6.0), "one of ten"
    assert play.ledger.expire(running, 3.0) == () and running.state is State.HELD
    play.leave(running)
    assert play.leave(running) == () and play.ledger.withdraw(running, 3.0) == ()
    assert play.empty()


def test_who_leaves_before_it_began_passes_its_slot_on() -> None:
    """A lease that was not used is charged to nobody."""
    play = Played(queue=5)
    mine = claim(gateway(1), own=[tokens(KEY, 100, "k")])
    first, second = play.arrive(mine, 40), play.arrive(mine, 40)
    assert play.ledger.withdraw(first, 0.0) == [second]
    assert play.ledger.register.counts[KEY, "k"].tokens.remaining(0.0) == 60


def test_the_upstream_is_the_first_of_the_order_that_has_room() -> None:
    """Asked in the moment of the grant; when all are full it is waited for the first that comes free."""
    play = Played(queue=5)
    mine = claim(upstreams=[streams(UPSTREAM, 1, name) for name in "ab"])
    a, b = play.arrive(mine, order="ba"), play.arrive(mine, order="ba")
    assert (a.upstream, b.upstream) == ("b", "a")
    late, later = play.arrive(mine, order="ab"), play.arrive(mine, order="ab")
    assert (late.state, late.upstream) == (State.WAITING, "")
    assert play.next(a) is late and late.upstream == "b"
    assert play.next(b) is later and later.upstream == "a"
    play.leave(late), play.leave(later)
    assert play.empty()


@pytest.mark.parametrize(("order", "upstream"), [("cab", "c"), ("ac", "a"), ("", "a")])
def test_an_upstream_without_a_limit(order: str, upstream: str) -> None:
    """One that the claim does not name has always room; without an order the claim's own is taken."""
    play = Played()
    mine = claim(upstreams=[streams(UPSTREAM, 1, name) for name in "ab"])
    ticket = play.arrive(mine, order=order)
    assert ticket.upstream == upstream
    play.leave(ticket)
    assert play.empty()


def metered(*names: str, slots: int = 1, per_minute: int = 2) -> list[Bound]:
    limits = Limits(concurrent=slots, requests_per_minute=per_minute, tokens_per_minute=1000)
    return [Bound(UPSTREAM, name, limits) for name in names]


def rates(play: Played, *names: str) -> list[int]:
    return [play.ledger.register.counts[UPSTREAM, name].requests.remaining(play.now) for name in names]


def test_upstreams_have_rates_too() -> None:
    """One without room in them is passed over; only when all are without, it is refused."""
    play = Played()
    mine = claim(upstreams=metered("a", "b", slots=9))
    assert [play.arrive(mine, order="ab").upstream for _ in range(4)] == ["a", "a", "b", "b"]
    said = denied(play.arrive(mine, order="ab"))
    assert (said.reason, said.level, said.unit) == (Reason.RATE, UPSTREAM, Unit.REQUESTS)
    assert said.retry_after == pytest.approx(30.0)


def test_who_waits_is_charged_for_the_upstream_it_gets() -> None:
    """One of them is charged from the start; the charge moves when it gets another, and is returned when it leaves."""
    play = Played(queue=5)
    mine = claim(upstreams=metered("a", "b", per_minute=10))
    a, b = play.arrive(mine, order="ab"), play.arrive(mine, order="ab")
    waiting, leaving = play.arrive(mine, order="ab"), play.arrive(mine, order="ab")
    assert sum(rates(play, "a", "b")) == 16
    assert play.next(b) is waiting
    assert waiting.upstream == "b" and waiting.paid is waiting.seat
    play.ledger.withdraw(leaving, 0.0)
    assert rates(play, "a", "b") == [9, 8]
    play.leave(a), play.leave(waiting)
    assert play.empty()


def test_a_free_upstream_whose_rate_is_used_up_is_no_use() -> None:
    """It waits for a slot of the one that it was charged for."""
    play = Played(queue=5)
    mine = claim(upstreams=metered("a", "b", per_minute=2))
    only_a = claim(upstreams=metered("a", per_minute=2))
    b = play.arrive(mine, order="ba")
    play.leave(play.arrive(only_a, order="a")), play.leave(play.arrive(only_a, order="a"))
    waiting = play.arrive(mine, order="ab")
    assert waiting.state is State.WAITING and waiting.paid is b.seat
    assert play.next(b) is waiting and waiting.upstream == "b"


def test_a_move_exchanges_the_slot() -> None:
    """For that of an upstream with room, and who waits for the old one gets it."""
    play = Played(queue=5)
    mine = claim(upstreams=[streams(UPSTREAM, 1, name) for name in "ab"])
    only_a = claim(upstreams=[streams(UPSTREAM, 1, "a")], route="a")
    ticket, waiting = play.arrive(mine, order="ab"), play.arrive(only_a, order="a")
    assert play.ledger.shift(ticket, "a", 0.0) and not play.ledger.shifted(ticket, "a", 0.0, moved=True)
    assert play.ledger.shift(ticket, "b", 0.0)
    assert (used(play, UPSTREAM, "a"), used(play, UPSTREAM, "b")) == (1, 1), "both, until it is decided"
    assert play.ledger.shifted(ticket, "b", 0.0, moved=True) == [waiting]
    assert ticket.upstream == "b"
    assert not play.ledger.shift(ticket, "a", 0.0) and used(play, UPSTREAM, "a") == 1
    assert play.ledger.shift(ticket, "no limit", 0.0)
    play.ledger.shifted(ticket, "no limit", 0.0, moved=True)
    assert (ticket.upstream, used(play, UPSTREAM, "b")) == ("no limit", 0)
    assert play.ledger.shift(ticket, "b", 0.0)
    assert not play.ledger.shifted(ticket, "b", 0.0, moved=True)
    play.leave(ticket), play.leave(waiting)
    assert not play.ledger.shift(ticket, "a", 0.0) and play.empty()


def test_a_move_that_came_to_nothing() -> None:
    """The new slot is given back, the old one kept."""
    play = Played(queue=5)
    mine = claim(upstreams=[streams(UPSTREAM, 1, name) for name in "ab"])
    ticket = play.arrive(mine, order="ab")
    assert play.ledger.shift(ticket, "b", 0.0)
    assert play.ledger.shifted(ticket, "b", 0.0, moved=False) == []
    assert play.ledger.shifted(ticket, "b", 0.0, moved=False) == []
    assert (ticket.upstream, used(play, UPSTREAM, "a"), used(play, UPSTREAM, "b")) == ("a", 1, 0)


def test_a_move_moves_the_tokens() -> None:
    """The new upstream is charged; the old one keeps the request that was tried there."""
    play = Played()
    mine = claim(upstreams=metered("a", "b", per_minute=10))
    ticket = play.arrive(mine, 300, order="ab")
    assert play.ledger.shift(ticket, "b", 0.0)
    play.ledger.shifted(ticket, "b", 0.0, moved=True)
    a, b = (play.ledger.register.counts[UPSTREAM, name] for name in "ab")
    assert rates(play, "a", "b") == [9, 9]
    assert (a.tokens.remaining(0.0), b.tokens.remaining(0.0)) == (1000, 700)
    play.ledger.settle(ticket, 100, 0.0)
    assert b.tokens.remaining(0.0) == 900
    play.ledger.shift(ticket, "c", 0.0)
    play.ledger.shifted(ticket, "c", 0.0, moved=True)
    assert ticket.paid is None


@pytest.mark.parametrize(("real", "left"), [(10, 90), (100, 0), (300, 0)])
def test_the_real_usage_takes_the_place_of_the_estimate(real: int, left: int) -> None:
    """Once, at all levels; more than there was is a debt."""
    play = Played()
    mine = claim(tokens(MODEL, 100, "m"), own=[tokens(KEY, 100, "k"), requests(TENANT, 5, "t")])
    ticket = play.arrive(mine, 50)
    assert play.ledger.settle(ticket, real, 0.0) == real - 50
    assert play.ledger.settle(ticket, 0, 0.0) == 0
    counts = play.ledger.register.counts
    assert [counts[key].tokens.remaining(0.0) for key in ((MODEL, "m"), (KEY, "k"))] == [left, left]
    assert counts[TENANT, "t"].requests.remaining(0.0) == 4
    play.leave(ticket)
    if real == 300:
        assert denied(play.arrive(mine, 0)).retry_after == pytest.approx(120.0)


def test_nothing_is_settled_for_who_was_refused() -> None:
    """It used nothing."""
    play = Played()
    mine = claim(own=[tokens(KEY, 100, "k")])
    play.arrive(mine, 100)
    assert play.ledger.settle(play.arrive(mine, 1), 50, 0.0) == 0


def test_other_limits_come_with_new_claims() -> None:
    """The count goes on; lowered it lets nobody in until enough have left, raised it lets in who waits."""
    play = Played(queue=9)
    held = play.some(4, claim(gateway(4)))
    lower = claim(gateway(2))
    waiting = [play.arrive(lower) for _ in range(3)]
    assert {ticket.state for ticket in waiting} == {State.WAITING}
    assert [list(play.leave(ticket)) for ticket in held[:3]] == [[], [], [waiting[0]]]
    higher = claim(gateway(4))
    newcomer = play.arrive(higher)
    assert (play.changed, newcomer.state) == (waiting[1:], State.WAITING)
    assert play.books == (4, 1)
    assert play.arrive(claim(gateway(0))).state is State.HELD
    assert newcomer.state is State.HELD


def test_a_rate_may_come_and_go_with_a_claim() -> None:
    """Also for older claims of the same level."""
    play = Played()
    old = claim(own=[streams(KEY, 9, "k")])
    play.arrive(old)
    new = claim(own=[Bound(KEY, "k", Limits(concurrent=9, requests_per_minute=1))])
    play.arrive(new)
    assert denied(play.arrive(old)).reason is Reason.RATE


def test_a_shorter_queue() -> None:
    """Who waits stays; who comes finds it full."""
    play = Played(queue=9)
    mine = claim(gateway(1))
    running = play.arrive(mine)
    waiting = play.some(5, mine)
    play.ledger.reload(QueueSettings(queue=2, max_wait=1e9), 0.0)
    assert denied(play.arrive(mine)).reason is Reason.QUEUE_FULL
    assert play.next(running) is waiting[0]


def test_limits_of_one_line_may_differ_after_a_reload() -> None:
    """Who is first now is judged by its own claim, when the one before has a slot or has left."""
    play = Played(queue=9)
    old, new = claim(gateway(1), streams(MODEL, 1, "m")), claim(gateway(1))
    running, first, second = play.arrive(old), play.arrive(old), play.arrive(claim(streams(MODEL, 2, "m")))
    assert second.state is State.WAITING, "one line, in order"
    assert play.ledger.withdraw(first, 0.0) == [second]
    third, fourth = play.arrive(new), play.arrive(claim(streams(MODEL, 2, "n")))
    assert play.leave(running) == [third, fourth]


def test_idle_tenants_are_forgotten() -> None:
    """A hundred thousand of them leave no more than a few thousand counts; one that still owes stays."""
    play = Played()
    debtor = play.arrive(claim(own=[tokens(TENANT, 1, "debtor")], tenant="debtor"), 100000)
    play.leave(debtor)
    for number in range(20000):
        name = str(number)
        play.leave(play.arrive(claim(gateway(5), own=[streams(TENANT, 3, name)], tenant=name)))
    register = play.ledger.register
    assert max(len(register.counts), len(register.tenants), len(register._terms)) <= Register.KEPT + 2
    assert (TENANT, "debtor") in register.counts
    assert (Level.GLOBAL, "") in register.counts
    play.ledger.reload(play.settings, 1e9)
    assert register.counts == {} and register.tenants == {} and register._terms == {}


def test_who_is_there_is_not_forgotten() -> None:
    """More live claims than are kept otherwise: all stay, and all come back."""
    play = Played()
    tickets = [
        play.arrive(claim(own=[streams(TENANT, 3, str(number))], tenant=str(number)))
        for number in range(Register.KEPT + 100)
    ]
    assert len(play.ledger.register.counts) == len(tickets)
    for ticket in tickets:
        play.leave(ticket)
    assert play.empty()


def test_the_log() -> None:
    """Arrivals, grants, refusals with what was said, and leaves; by line."""
    play = Played(queue=1)
    play.ledger.log = []
    mine = claim(gateway(1), tenant="a", route="m")
    first, second = play.some(2, mine)
    play.arrive(mine)
    play.leave(first)
    play.ledger.withdraw(second, 0.0)
    log = play.ledger.log
    assert [(note.what, note.number) for note in log] == [
        ("arrive", 1), ("grant", 1), ("arrive", 2), ("arrive", 3), ("refuse", 3),
        ("leave", 1), ("grant", 2), ("leave", 2),
    ]  # fmt: skip
    assert {note.line for note in log} == {("", "a", "m")}
    assert (log[4].said, log[4].reason) == (1.0, Reason.QUEUE_FULL)


def test_the_books() -> None:
    """Shared limits with what is used, who waits by class, and for how long; nothing about tenants and keys."""
    play = Played(queue=5)
    mine = claim(gateway(2), streams(MODEL, 0, "m"), own=[streams(KEY, 9, "k")], upstreams=[streams(UPSTREAM, 9, "u")])
    play.some(3, mine)
    assert books(play.ledger, 4.0) == Books(
        leases=2,
        rows=(Row(Level.GLOBAL, "", 2, 2), Row(MODEL, "m", 2, 0), Row(UPSTREAM, "u", 2, 9)),
        waiting={"": 1},
        oldest=4.0,
    )
    assert books(Played().ledger, 4.0) == Books(leases=0, rows=(), waiting={"": 0}, oldest=0.0)


def told(play: Played, claim: Claim) -> Quota | None:
    return quota(play.ledger.register.terms(claim, play.now), play.now)


def test_the_quota_is_that_of_the_nearest_own_limit() -> None:
    """By share left, of requests or of tokens; shared ones are nobody's business."""
    play = Played()
    key = Bound(KEY, "k", Limits(requests_per_minute=10, tokens_per_minute=1000))
    mine = claim(requests(Level.GLOBAL, 1), own=[key, requests(TENANT, 100, "t"), streams(TENANT, 9, "u")])
    play.arrive(mine, 100)
    assert told(play, mine) == Quota(
        limit_requests=10, remaining_requests=9, reset_requests=pytest.approx(6.0),
        limit_tokens=1000, remaining_tokens=900, reset_tokens=pytest.approx(6.0),
    )  # fmt: skip
    other = claim(own=[requests(TENANT, 2, "v"), tokens(KEY, 1000, "w")])
    play.arrive(other, 100)
    assert told(play, other) == Quota(limit_requests=2, remaining_requests=1, reset_requests=pytest.approx(30.0))
    only = claim(own=[tokens(KEY, 1000, "w")])
    assert told(play, only) == Quota(limit_tokens=1000, remaining_tokens=900, reset_tokens=pytest.approx(6.0))
    assert told(play, claim(requests(Level.GLOBAL, 1), own=[streams(KEY, 1, "x")])) is None


def test_how_long_slots_are_kept_follows_a_change() -> None:
    """The mean of the first ones, then of about the last 32."""
    count = Count(MODEL, "m")
    assert count.pace() == 0.0
    for seconds in (1.0, 3.0):
        count.ended(seconds)
    assert count.kept == 2.0
    for _ in range(100):
        count.ended(10.0)
    assert count.kept == pytest.approx(10.0, rel=0.05)
