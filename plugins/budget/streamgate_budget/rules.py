"""Which limits hold for a tenant, and how it stands with them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import tzinfo
from fnmatch import fnmatchcase
from typing import NamedTuple

from streamgate_budget.amounts import Account, Amount, PeriodName, Unit, readable
from streamgate_budget.periods import span
from streamgate_budget.settings import Limit


def limits_of(limits: Sequence[Limit], tenant: str) -> tuple[Limit, ...]:
    """Of those for the same period and unit, the first that matches: a tenant's own goes before everybody's."""
    chosen: dict[tuple[PeriodName, Unit], Limit] = {}
    for limit in limits:
        if any(fnmatchcase(tenant, glob) for glob in limit.tenants):
            chosen.setdefault((limit.period, limit.unit), limit)
    return tuple(chosen.values())


def accounts_of(limits: Iterable[Limit], tenant: str, at: float, zone: tzinfo) -> dict[PeriodName, Account]:
    """One for each period that some limit has."""
    return {limit.period: Account(tenant, limit.period, *span(limit.period, at, zone)) for limit in limits}


class Standing(NamedTuple):
    """How a tenant stands with one limit."""

    limit: Limit
    account: Account
    spent: int

    @property
    def remaining(self) -> int:
        return max(0, self.limit.amount - self.spent)

    @property
    def used(self) -> float:
        """0.0 to 1.0, and beyond by what was running when it was reached."""
        return self.spent / self.limit.amount

    def header(self, at: float) -> str:
        """As a structured field (RFC 8941): `1200; unit=tokens; period=day; reset=3600`."""
        left = readable(self.limit.unit, self.remaining)
        reset = max(0, round(self.account.end - at))
        return f"{left}; unit={self.limit.unit}; period={self.limit.period}; reset={reset}"


def standings(
    limits: Iterable[Limit], accounts: dict[PeriodName, Account], spent: dict[Account, Amount]
) -> list[Standing]:
    """The worst one first."""
    each = [Standing(limit, accounts[limit.period], spent[accounts[limit.period]].of(limit.unit)) for limit in limits]
    return sorted(each, key=lambda standing: -standing.used)
