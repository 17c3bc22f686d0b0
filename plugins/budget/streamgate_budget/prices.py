"""What a request costs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

from streamgate_budget.amounts import NANO
from streamgate_budget.settings import Price

MILLION = 10**6
MOST = 10**9  # tokens of one request that are believed: an upstream may state anything, a store holds 64 bits
BYTES_A_TOKEN = 4  # of English text and of JSON, for common tokenizers; a rough guess by design


class Used(NamedTuple):
    """Tokens of one request; `input` and `output` are totals that include the kinds after them."""

    input: int
    output: int
    cached_input: int = 0
    cache_write: int = 0


class Stated(Protocol):
    """Usage as the gateway reports it."""

    @property
    def input(self) -> int: ...
    @property
    def output(self) -> int: ...
    @property
    def cached_input(self) -> int: ...
    @property
    def cache_write(self) -> int: ...


def price_of(prices: Sequence[Price], model: str) -> Price | None:
    """The first that matches."""
    return next((price for price in prices if any(fnmatchcase(model, glob) for glob in price.models)), None)


def believed(stated: Stated) -> Used:
    """What an upstream stated, within bounds."""
    counts = (stated.input, stated.output, stated.cached_input, stated.cache_write)
    return Used(*(min(max(count, 0), MOST) for count in counts))


def cost(price: Price, used: Stated) -> int:
    """Billionths of the money's unit, rounded once for each request."""
    cached = min(used.cached_input, used.input)
    written = min(used.cache_write, used.input - cached)
    amount = (
        (used.input - cached - written) * price.input
        + cached * _or(price.cached, price.input)
        + written * _or(price.cache_write, price.input)
        + used.output * price.output
    )
    return int((amount * NANO / MILLION).to_integral_value(ROUND_HALF_EVEN))


def guessed(*, asked: int, events: int, answered: int) -> Used:
    """For an answer that states no usage: `asked` and `answered` in bytes, `events` of a stream, a token each."""
    return Used(-(-asked // BYTES_A_TOKEN), events or -(-answered // BYTES_A_TOKEN))


def _or(price: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if price is None else price
