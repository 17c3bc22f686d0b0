"""What is counted, for whom, and when: plain values."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal, NamedTuple

PeriodName = Literal["hour", "day", "month"]
Unit = Literal["tokens", "money"]

# Money is counted in billionths, as whole numbers: then a sum is the same in any order, and in any store.
NANO: Final = 10**9


class Account(NamedTuple):
    """One tenant in one period; `start` and `end` are seconds since the epoch."""

    tenant: str
    period: PeriodName
    start: int
    end: int


class Amount(NamedTuple):
    """What was spent; `money` in billionths."""

    tokens: int = 0
    money: int = 0
    requests: int = 0

    def plus(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.money + other.money, self.requests + other.requests)

    def of(self, unit: Unit) -> int:
        return self.tokens if unit == "tokens" else self.money


NOTHING: Final = Amount()


class Unavailable(Exception):
    """The store is away or would not; the message says why, in words that are safe to log."""


def readable(unit: Unit, amount: int) -> str:
    """An amount for people and headers: "1200", "0.5"."""
    if unit == "tokens":
        return str(amount)
    text = f"{Decimal(amount) / NANO:.9f}"
    return text.rstrip("0").rstrip(".")
