"""What a key is allowed on a route."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamgate.admission.claim import Bound, Claim, Level, Limits
from streamgate.admission.identity import ANONYMOUS, Identity
from streamgate.relay import allowances
from streamgate.relay.allowances import Allowances, RouteTerms, ending_by
from streamgate.relay.deadlines import Deadlines
from streamgate.routing.table import Route

ROUTE, OTHER = Route(models=("m",), upstreams=("a",)), Route(models=("n",), upstreams=("a",))
WHOLE = Bound(Level.GLOBAL, "", Limits(concurrent=9))
MODEL = Bound(Level.MODEL, "m", Limits(concurrent=5))
SEAT = Bound(Level.UPSTREAM, "a", Limits(concurrent=3))
TERMS = {
    ROUTE: RouteTerms(name="m", deadlines=Deadlines(total=50), shared=(WHOLE, MODEL), upstreams=(SEAT,)),
    OTHER: RouteTerms(name="n", deadlines=Deadlines(), shared=(WHOLE,)),
}
MINE = Identity(
    key="mine", tenant="acme", priority="batch", limits=Limits(concurrent=1), tenant_limits=Limits(concurrent=2)
)


def test_a_claim_is_the_sum_of_both() -> None:
    """The key's own limits, and the route's for everybody; who waits is in the line of its class, tenant and route."""
    allowance = Allowances(TERMS).of(MINE, ROUTE)
    assert allowance.claim == Claim(
        own=(Bound(Level.TENANT, "acme", Limits(concurrent=2)), Bound(Level.KEY, "mine", Limits(concurrent=1))),
        shared=(WHOLE, MODEL),
        upstreams=(SEAT,),
        tenant="acme",
        priority="batch",
        route="m",
    )
    assert allowance.deadlines == Deadlines(total=50)


def test_who_has_no_limits_has_no_bounds() -> None:
    """Nothing is counted for a key or tenant that is not limited."""
    made = Allowances(TERMS)
    assert made.of(ANONYMOUS, OTHER).claim == Claim(shared=(WHOLE,), route="n")
    assert [bound.level for bound in made.of(replace(MINE, limits=Limits()), ROUTE).claim.own] == [Level.TENANT]
    assert [bound.level for bound in made.of(replace(MINE, tenant_limits=Limits()), ROUTE).claim.own] == [Level.KEY]


def test_the_same_for_every_request() -> None:
    """One claim, by identity: for each token of a tenant, too, whenever it ends and whatever models it is for."""
    made = Allowances(TERMS)
    first = made.of(MINE, ROUTE)
    assert made.of(replace(MINE, expires=5.0, models=("x",), max_body=7), ROUTE) is first
    for other in (
        replace(MINE, key="other"),
        replace(MINE, tenant="other"),
        replace(MINE, priority="interactive"),
        replace(MINE, limits=Limits(concurrent=8)),
        replace(MINE, tenant_limits=Limits(concurrent=8)),
        replace(MINE, max_duration=8.0),
    ):
        assert made.of(other, ROUTE) is not first
    assert made.of(MINE, OTHER) is not first
    assert made.of(MINE, ROUTE) is first


def test_they_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tenants come and go with their tokens: above a number all are made anew."""
    monkeypatch.setattr(allowances, "KEPT", 3)
    made = Allowances(TERMS)
    first = made.of(MINE, ROUTE)
    for number in range(10):
        made.of(replace(MINE, key=f"jwt:{number}", tenant=str(number)), ROUTE)
        assert len(made._made) <= 3
    again = made.of(MINE, ROUTE)
    assert again is not first and again == first


@pytest.mark.parametrize(
    ("total", "answer", "longest", "expected"),
    [
        (0.0, 600.0, 0.0, (0.0, 600.0)),
        (0.0, 600.0, 30.0, (30.0, 30.0)),
        (20.0, 10.0, 30.0, (20.0, 10.0)),
        (50.0, 0.0, 30.0, (30.0, 30.0)),
    ],
)
def test_the_smallest_time_holds(total: float, answer: float, longest: float, expected: tuple[float, float]) -> None:
    """Of the clocks and of the most that is allowed, where 0 is none; the other clocks are as they were."""
    clocks = Deadlines(total=total, answer=answer, idle=7.0)
    ended = ending_by(clocks, longest)
    assert (ended.total, ended.answer, ended.idle) == (*expected, 7.0)
    made = Allowances({ROUTE: RouteTerms(name="m", deadlines=clocks)})
    assert made.of(replace(ANONYMOUS, max_duration=longest), ROUTE).deadlines == ended


def test_a_part_of_the_upstreams() -> None:
    """What is left of a claim is made once; one that loses none is itself."""
    seats = tuple(Bound(Level.UPSTREAM, name, Limits(concurrent=3)) for name in "abc")
    kept = Allowances({ROUTE: replace(TERMS[ROUTE], upstreams=seats)})
    claim = kept.of(MINE, ROUTE).claim
    assert kept.among(claim, ["c", "b", "a"]) is claim
    part = kept.among(claim, ["c", "a"])
    assert part == replace(claim, upstreams=(seats[0], seats[2]))
    assert kept.among(claim, ["a", "c"]) is part
