"""Which limits hold, and how a tenant stands with them."""

from __future__ import annotations

from datetime import UTC

from streamgate_budget.amounts import NOTHING, Amount
from streamgate_budget.rules import accounts_of, limits_of, standings
from streamgate_budget.settings import Limit

LIMITS = (
    Limit(tenants=["acme"], money=50),
    Limit(tenants=["free-*"], tokens=1000, period="day"),
    Limit(tenants=["*"], money=10),
    Limit(tenants=["*"], money=1, period="hour"),
)


def test_of_limits_for_the_same_period_and_unit_the_first_that_matches_holds():
    """A tenant's own limit goes before everybody's; limits of other periods or units hold beside it."""
    assert limits_of(LIMITS, "acme") == (LIMITS[0], LIMITS[3])
    assert limits_of(LIMITS, "free-7") == (LIMITS[1], LIMITS[2], LIMITS[3])
    assert limits_of(LIMITS[:2], "other") == ()


def test_the_worst_standing_comes_first_and_nothing_remains_below_zero():
    """What was running when a limit was reached goes beyond it."""
    limits = limits_of(LIMITS, "free-7")
    accounts = accounts_of(limits, "free-7", 1_772_366_400.0, UTC)
    spent = dict.fromkeys(accounts.values(), NOTHING) | {accounts["day"]: Amount(tokens=1500)}
    worst, *others = standings(limits, accounts, spent)
    assert (worst.limit.unit, worst.used, worst.remaining) == ("tokens", 1.5, 0)
    assert [each.used for each in others] == [0.0, 0.0]
    assert worst.header(accounts["day"].end - 60.4) == "0; unit=tokens; period=day; reset=60"
