"""Who is next: classes by weight, tenants by their leases, lines in order; and who gives way when the queue is full."""

from __future__ import annotations

from collections import Counter

import pytest
from ledgers import FAST_AND_SLOW, Played, claim, gateway, streams

from streamgate.admission.claim import Level, Priority
from streamgate.admission.queue import QueueSettings
from streamgate.admission.ticket import State, Ticket
from streamgate.errors import Reason


def priorities_of(tickets: list[Ticket]) -> str:
    return "".join(ticket.claim.priority[0] for ticket in tickets)


def served(play: Played, first: Ticket, count: int) -> list[Ticket]:
    """The next ones on one slot, each ending before the next begins."""
    found = [first]
    for _ in range(count):
        play.now += 1.0
        found.append(play.next(found[-1]))
    return found[1:]


def test_a_flood_is_one_tenant_s_own_matter() -> None:
    """Behind a hundred of one tenant, another's single request is next."""
    play = Played(queue=200)
    flood, single = claim(gateway(1), tenant="flood"), claim(gateway(1), tenant="single")
    running = play.arrive(flood)
    play.some(100, flood)
    one = play.arrive(single)
    assert play.next(running) is one


def test_tenants_take_turns() -> None:
    """On one slot: whoever was served longest ago, whatever the lengths of their lines."""
    play = Played(queue=100)
    claims = [claim(gateway(1), tenant=name) for name in "abc"]
    running = play.arrive(claims[0])
    for count, each in zip((20, 5, 5), claims, strict=True):
        play.some(count, each)
    assert "".join(ticket.claim.tenant for ticket in served(play, running, 9)) == "bcabcabca"


def test_fewest_leases_first() -> None:
    """The tenant with less running is next, although it was served last."""
    play = Played(queue=10)
    big, small = claim(gateway(5), tenant="big"), claim(gateway(5), tenant="small")
    running = play.some(5, big)
    play.some(5, big), play.some(5, small)
    assert [play.next(ticket).claim.tenant for ticket in running[:3]] == ["small", "small", "big"]


def test_a_tenant_s_routes_take_turns() -> None:
    """Lines of one tenant and class are served one after the other."""
    play = Played(queue=10)
    a, b = claim(gateway(1), route="a"), claim(gateway(1), route="b")
    running = play.arrive(a)
    play.some(3, a), play.some(3, b)
    assert "".join(ticket.claim.route for ticket in served(play, running, 6)) in ("ababab", "bababa")


def test_a_line_is_first_come_first_served() -> None:
    """Also around those who leave it."""
    play = Played(queue=10)
    mine = claim(gateway(1))
    running = play.arrive(mine)
    a, b, c, d = play.some(4, mine)
    play.ledger.withdraw(b, 0.0)
    play.ledger.withdraw(a, 0.0)
    assert served(play, running, 2) == [c, d]


def test_classes_share_by_weight() -> None:
    """4 to 1, evenly mixed, while both wait; all of it for one that waits alone."""
    play = Played(queue=100, priorities=FAST_AND_SLOW)
    fast, slow = (claim(gateway(1), priority=each.name) for each in FAST_AND_SLOW)
    running = play.arrive(slow)
    play.some(8, fast), play.some(6, slow)
    order = priorities_of(served(play, running, 14))
    assert [order[at : at + 5].count("b") for at in range(6)] == [1] * 6, order
    assert order[10:] == "bbbb"


def test_an_idle_class_saves_nothing_up() -> None:
    """After a long time alone the other class does not have to make up for it."""
    play = Played(queue=300, priorities=FAST_AND_SLOW)
    fast, slow = (claim(gateway(1), priority=each.name) for each in FAST_AND_SLOW)
    running = play.arrive(fast)
    play.some(100, fast)
    last = served(play, running, 80)[-1]
    play.some(50, slow)
    assert Counter(priorities_of(served(play, last, 20))) == {"i": 16, "b": 4}


def test_a_blocked_class_saves_nothing_up_either() -> None:
    """Turns it could not use, because its model was full, are not made up for."""
    play = Played(queue=300, priorities=FAST_AND_SLOW)
    fast = claim(gateway(2), streams(Level.MODEL, 2, "m"), priority="interactive", route="m")
    slow = claim(gateway(2), streams(Level.MODEL, 1, "n"), priority="batch", route="n")
    blocking, running = play.arrive(slow), play.arrive(fast)
    play.some(60, fast), play.some(60, slow)
    last = served(play, running, 40)[-1]
    assert {ticket.claim.priority for ticket in served(play, last, 1)} == {"interactive"}
    assert play.next(blocking).claim.priority in ("batch", "interactive")
    assert play.ledger.queue.ranks["batch"].turn >= play.ledger.queue.ranks["interactive"].turn - 1.25


@pytest.mark.parametrize(("reserved", "batch"), [(0.0, 10), (0.25, 8), (0.3, 7), (1.0, 0)])
def test_a_reserve_is_free_for_its_class_only(reserved: float, batch: int) -> None:
    """Others find the gateway full; the class itself may use all of it."""
    classes = (Priority(name="interactive", reserved=reserved), Priority(name="batch"))
    play = Played(queue=20, priorities=classes)
    fast, slow = (claim(gateway(10), priority=each.name) for each in classes)
    held = [ticket for ticket in play.some(10, slow) if ticket.state is State.HELD]
    assert len(held) == batch
    assert [ticket.state for ticket in play.some(10 - batch, fast)] == [State.HELD] * (10 - batch)
    late = play.arrive(fast)
    assert late.state is State.WAITING
    if held:
        play.next(held[0])
    play = Played(queue=20, priorities=classes)
    assert all(ticket.state is State.HELD for ticket in play.some(10, fast))


def test_a_reserve_that_is_in_use_is_given_back_to_its_class() -> None:
    """A slot of the reserve that comes free is not for those who wait in another class."""
    classes = (Priority(name="interactive", reserved=0.5), Priority(name="batch"))
    play = Played(queue=20, priorities=classes)
    fast, slow = (claim(gateway(2), priority=each.name) for each in classes)
    kept, other = play.arrive(fast), play.arrive(slow)
    waiting = play.arrive(slow)
    assert play.leave(kept) == []
    assert play.arrive(fast).state is State.HELD
    assert play.next(other) is waiting


def test_a_full_model_is_in_nobody_s_way() -> None:
    """A line whose model is full is passed over, and is first when that comes free."""
    play = Played(queue=10)
    a, b = (claim(gateway(2), streams(Level.MODEL, 1, name), route=name) for name in "ab")
    running = play.arrive(a)
    blocked = play.arrive(a)
    assert blocked.state is State.WAITING
    other = play.arrive(b)
    assert other.state is State.HELD, "there was room in the gateway and at its own model"
    late = play.arrive(b)
    assert play.next(other) is late
    assert play.next(running) is blocked
    play.leave(late), play.leave(blocked)
    assert play.empty()


def test_the_longest_line_gives_way() -> None:
    """A newcomer takes the place of its newest; a line that would be the longest itself gets none."""
    play = Played(queue=4)
    flood, single = claim(gateway(1), tenant="flood"), claim(gateway(1), tenant="single")
    running = play.arrive(flood)
    waiting = play.some(4, flood)
    assert play.arrive(flood).denied.reason is Reason.QUEUE_FULL  # type: ignore[union-attr]
    one = play.arrive(single)
    assert one.state is State.WAITING and play.changed == [waiting[-1]]
    assert waiting[-1].state is State.DENIED and waiting[-1].denied.reason is Reason.QUEUE_FULL  # type: ignore[union-attr]
    assert play.arrive(single).state is State.WAITING
    assert play.arrive(single).state is State.DENIED, "two against two: no change for the sake of change"
    assert play.books == (1, 4)
    assert served(play, running, 4)[:2] == [one, waiting[0]]


def test_weight_does_not_count_in_length() -> None:
    """A class that is served sooner has as many places as any: else it would wait as long as the others."""
    play = Played(queue=5, priorities=FAST_AND_SLOW)
    fast, slow = (claim(gateway(1), priority=each.name) for each in FAST_AND_SLOW)
    play.arrive(fast)
    batch = play.some(4, slow)
    play.some(1, fast)
    assert play.arrive(fast).state is State.WAITING and play.changed == [batch[-1]]
    assert play.arrive(fast).state is State.DENIED
    assert play.arrive(slow).state is State.DENIED


def test_a_class_nobody_named_is_the_first() -> None:
    """And without any there is but one."""
    play = Played(queue=5, priorities=FAST_AND_SLOW)
    assert play.arrive(claim(gateway(1), priority="unheard of")).rank.name == "interactive"
    assert Played().arrive(claim(gateway(1), priority="unheard of")).rank.name == ""


def test_classes_of_another_configuration() -> None:
    """Who waits in a class that is gone is still served, and the class goes with the last of them."""
    play = Played(queue=9, priorities=FAST_AND_SLOW)
    slow = claim(gateway(1), priority="batch")
    running = play.arrive(slow)
    waiting = play.some(2, slow)
    settings = QueueSettings(queue=9, max_wait=9.0, priorities=(Priority(name="new", reserved=1.0),))
    assert play.ledger.reload(settings, 0.0) == []
    assert list(play.ledger.queue.ranks) == ["new", "batch"]
    fresh = play.arrive(claim(gateway(1), priority="new"))
    assert fresh.state is State.WAITING
    assert play.next(running) is fresh, "all is reserved for it"
    for ticket in waiting:
        play.ledger.withdraw(ticket, 0.0)
    play.leave(fresh)
    play.ledger.reload(settings, 0.0)
    assert list(play.ledger.queue.ranks) == ["new"] and play.empty()
