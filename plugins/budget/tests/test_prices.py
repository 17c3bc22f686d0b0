"""What requests cost."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamgate_budget.amounts import readable
from streamgate_budget.prices import Used, cost, guessed, price_of
from streamgate_budget.settings import Price

FULL = Price(models=["*"], input=2.5, output=10, cached=0.25, cache_write=3)
PLAIN = Price(models=["*"], input="0.0375", output="0.15")


@pytest.mark.parametrize(
    ("price", "used", "billionths"),
    [
        (FULL, Used(1_000_000, 0), 2_500_000_000),
        (FULL, Used(0, 1), 10_000),
        (FULL, Used(1000, 0, cached_input=400, cache_write=100), 500 * 2500 + 400 * 250 + 100 * 3000),
        (FULL, Used(10, 0, cached_input=50, cache_write=7), 10 * 250),  # an upstream that counts them apart
        (PLAIN, Used(2, 1, cached_input=1), 75 + 150),
        (PLAIN, Used(1, 0), 38),  # 37.5, half to even
    ],
)
def test_each_kind_of_token_has_its_price(price: Price, used: Used, billionths: int):
    """Cached input and input written to a cache are parts of the input; without a price of their own they cost the
    same."""
    assert cost(price, used) == billionths


@given(tokens=st.integers(0, 10**9), rate=st.decimals(0, 1000, places=3))
def test_prices_of_up_to_three_decimals_are_exact(tokens: int, rate: Decimal):
    """A billionth is a thousandth of the price of one token at 1 per million."""
    assert cost(Price(models=["*"], input=rate, output=0), Used(tokens, 0)) == tokens * int(rate * 1000)


def test_the_first_price_that_matches_is_the_model_s():
    """So exceptions go before what they are exceptions of."""
    prices = [Price(models=["gpt-4o-mini*"], input=1, output=1), Price(models=["gpt-4*", "o*"], input=2, output=2)]
    found = [price_of(prices, name) for name in ("gpt-4o-mini-1", "o3", "x")]
    assert found == [*prices, None]


def test_without_usage_an_event_is_a_token_and_four_bytes_are_one():
    """An estimate: of a stream by its events, of a whole answer by its length."""
    assert guessed(asked=401, events=7, answered=9000) == Used(101, 7)
    assert guessed(asked=0, events=0, answered=9) == Used(0, 3)


def test_amounts_read_well():
    """No zeros at the end, and no exponent."""
    assert [readable("money", each) for each in (0, 1, 500_000_000, 12 * 10**9)] == ["0", "0.000000001", "0.5", "12"]
    assert readable("tokens", 1200) == "1200"
