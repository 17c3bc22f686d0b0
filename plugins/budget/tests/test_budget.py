"""The plugin: who is refused, warned, charged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from streamgate_budget import Budget

from streamgate.hooks import Headers, Refuse, ResponseHead, Stream
from streamgate.testing import PluginHarness
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio
Open = Callable[..., AbstractAsyncContextManager[Budget]]
PRICES = [{"models": ["m"], "input": 1, "output": 10}]
SSE = ResponseHead(status=200, headers=Headers({"content-type": "text/event-stream"}))
MARCH_END = 1_775_001_600.0  # 2026-04-01T00:00:00Z


@pytest.fixture
def opened(gateway: Any, tmp_path: Path) -> Open:
    """The plugin, started; its file is the test's."""

    @asynccontextmanager
    async def budget(**settings: Any) -> AsyncIterator[Budget]:
        where = {} if "redis" in settings else {"sqlite": str(tmp_path / "budget.db")}
        plugin = Budget(Budget.Settings.model_validate({"timeout": 2.0} | where | settings), gateway)
        await plugin.startup()
        try:
            yield plugin
        finally:
            await plugin.shutdown()

    return budget


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"redis": request.getfixturevalue("redis").url} if request.param == "redis" else {}


async def asked(budget: Budget, made: Any, tenant: str = "acme", **request: Any) -> Stream:
    stream: Stream = made.stream(tenant)
    await budget.on_request(made.request(**request), stream)
    return stream


async def test_a_tenant_is_warned_then_refused_until_its_period_ends(opened: Open, made, gateway, store):
    """The header tells what is left from warn_at on; beyond the limit a 429 says when to come again."""
    async with opened(limits=[{"tokens": 100}], **store) as budget:
        assert budget.on_open(SSE, await asked(budget, made)) is None
        budget.on_end(made.ended(gateway, usage=made.tokens(60, 20)))
        head = budget.on_open(SSE, await asked(budget, made))
        left = MARCH_END - gateway.at
        assert head.headers["x-streamgate-budget-remaining"] == f"20; unit=tokens; period=month; reset={left:.0f}"
        budget.on_end(made.ended(gateway, usage=made.tokens(10, 15)))
        with pytest.raises(Refuse, match="budget of tokens for this month is used up") as refused:
            await asked(budget, made)
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (429, "budget_exceeded", 60.0)
        assert refused.value.headers["x-streamgate-budget-remaining"].startswith("0; unit=tokens")
        await asked(budget, made, tenant="other")
        gateway.at = MARCH_END - 5
        with pytest.raises(Refuse) as refused:
            await asked(budget, made)
        assert refused.value.retry_after == 5.0
        gateway.at = MARCH_END
        assert (await asked(budget, made)).state == []
    assert gateway.values["refusals_total"] == 2 and gateway.values["warnings_total"] == 1
    assert gateway.values["tokens_total"] == 105


async def test_money_is_counted_by_the_price_table(opened: Open, made, gateway):
    """To the billionth: a thousand small requests leave no rounding behind."""
    async with opened(limits=[{"money": "0.02", "period": "day"}], prices=PRICES, warn_at=0.5) as budget:
        for _ in range(1000):
            budget.on_end(made.ended(gateway, usage=made.tokens(5, 1)))
        head = budget.on_open(SSE, await asked(budget, made))
        assert head.headers["x-streamgate-budget-remaining"] == "0.005; unit=money; period=day; reset=43200"
    assert gateway.values["money_total"] == pytest.approx(0.015)


async def test_a_model_without_a_price_is_refused_or_let_pass_and_counted(opened: Open, made, gateway):
    """Under a limit of money only: with tokens alone no price is needed."""
    money = [{"tenants": ["rich"], "money": 1}, {"tenants": ["plain"], "tokens": 1}]
    async with opened(limits=money, prices=PRICES) as budget:
        with pytest.raises(Refuse, match="no price") as refused:
            await asked(budget, made, tenant="rich", model="x")
        assert (refused.value.status, refused.value.code) == (403, "model_not_priced")
        await asked(budget, made, tenant="plain", model="x")
    async with opened(limits=money, prices=PRICES, unpriced="allow") as budget:
        await asked(budget, made, tenant="rich", model="x")
        budget.on_end(made.ended(gateway, tenant="rich", model="x", usage=made.tokens(5, 5)))
    assert gateway.values["unpriced_total"] == 2


async def test_what_is_running_when_a_limit_is_reached_is_charged_beyond_it(opened: Open, made, gateway):
    """Its costs are known at its end."""
    async with opened(limits=[{"tokens": 10}]) as budget:
        for _ in range(3):
            await asked(budget, made)
        for _ in range(3):
            budget.on_end(made.ended(gateway, usage=made.tokens(5, 5)))
        with pytest.raises(Refuse):
            await asked(budget, made)
    assert gateway.values["used_ratio"] == 3.0


@pytest.mark.parametrize(
    ("facts", "tokens"),
    [
        ({"usage": (7, 5)}, 12),
        ({"usage": (10**40, -5)}, 10**9),  # nobody is believed that much
        ({"events": 9}, 9 + 25),  # no usage: the stream's events, and a quarter of the request's bytes
        ({"events": 9, "outcome": "client_closed"}, 34),  # who leaves before the usage comes is charged too
        ({"bytes_in": 40}, 10 + 25),  # one JSON body
        ({"bytes_in": 40, "status": 500}, 0),
        ({"outcome": "upstream_error"}, 0),
        ({"outcome": "", "reason": "rate", "attempts": 0}, 0),
        ({"attempts": 0, "events": 9}, 0),  # another plugin answered
        ({"method": "GET", "events": 9}, 0),
        ({"path": "/tokenize", "bytes_in": 40}, 0),
        ({"tenant": "nobody", "usage": (7, 5)}, 0),
    ],
)
async def test_what_is_charged_is_the_usage_or_else_an_estimate(opened: Open, made, gateway, facts, tokens: int):
    """Nothing for what no upstream answered."""
    async with opened(limits=[{"tenants": ["acme"], "tokens": 10**15}]) as budget:
        ended = made.ended(gateway, **(facts | {"usage": made.tokens(*facts["usage"])} if "usage" in facts else facts))
        ended.stream.request = made.request(body=b"x" * 100)
        budget.on_end(ended)
    assert gateway.values["tokens_total"] == tokens
    assert gateway.values["estimated_total"] == ("usage" not in facts and tokens > 0)


async def test_without_estimates_only_stated_usage_counts(opened: Open, made, gateway):
    """`estimate: false`."""
    async with opened(limits=[{"tokens": 10}], estimate=False) as budget:
        budget.on_end(made.ended(gateway, events=50))
        await asked(budget, made)
    assert gateway.values["tokens_total"] == 0


async def test_what_costs_nothing_is_not_asked_about(opened: Open, made, gateway):
    """Free paths, GET requests, and tenants without a limit."""
    async with opened(limits=[{"tenants": ["acme"], "tokens": 1}]) as budget:
        budget.on_end(made.ended(gateway, usage=made.tokens(5, 5)))
        await asked(budget, made, path="/tokenize")
        await asked(budget, made, method="GET", path="/v1/models")
        await asked(budget, made, tenant="")
        with pytest.raises(Refuse):
            await asked(budget, made)


async def test_the_log_is_told_once_for_each_tenant_and_period(opened: Open, made, gateway):
    """Not by every request; and again in the next period."""
    async with opened(limits=[{"tokens": 10, "period": "hour"}]) as budget:
        for _ in range(2):
            budget.on_end(made.ended(gateway, usage=made.tokens(9, 0)))
            for _ in range(3):
                await asked(budget, made)
            gateway.at += 3600
    assert [line[0] for line in gateway.lines] == ["budget_low", "budget_low"]
    assert gateway.lines[0][1] == {"tenant": "acme", "unit": "tokens", "period": "hour", "used": 0.9}


async def test_of_spent_limits_the_one_that_lasts_is_named(opened: Open, made, gateway):
    """To wait for the hour's end would not help."""
    limits = [{"tokens": 10, "period": period} for period in ("hour", "month", "day")]
    async with opened(limits=limits) as budget:
        budget.on_end(made.ended(gateway, usage=made.tokens(10, 5)))
        with pytest.raises(Refuse, match="this month"):
            await asked(budget, made)


@pytest.mark.parametrize("on_error", ["allow", "refuse"])
async def test_a_store_that_is_away_is_passed_over_or_refuses_and_no_charge_is_lost(
    opened: Open, made, gateway, redis: RedisServer, on_error: str
):
    """As `on_error` says; what ends meanwhile is charged when it is back. The log is told once."""
    async with opened(limits=[{"tokens": 10}], redis=redis.url, on_error=on_error, timeout=0.2) as budget:
        redis.kill()
        for _ in range(2):
            if on_error == "refuse":
                with pytest.raises(Refuse) as refused:
                    await asked(budget, made)
                assert (refused.value.status, refused.value.code) == (503, "budget_unavailable")
            else:
                await asked(budget, made)
        budget.on_end(made.ended(gateway, usage=made.tokens(10, 0)))
        redis.start()
        gateway.at += 1
        with pytest.raises(Refuse) as refused:
            await asked(budget, made)
        assert refused.value.code == "budget_exceeded"
    assert [line[0] for line in gateway.lines] == ["budget_store_away", "budget_low"]


async def test_charges_that_could_not_be_written_are_said_at_the_end(opened: Open, made, gateway, redis: RedisServer):
    """Only then are they lost."""
    async with opened(limits=[{"tokens": 10}], redis=redis.url, timeout=0.2) as budget:
        redis.kill()
        budget.on_end(made.ended(gateway, usage=made.tokens(7, 0)))
    assert ("budget_charges_lost", {"accounts": 1, "tokens": 7}) in gateway.lines


async def test_in_a_gateway_streams_are_charged_warned_and_refused(tmp_path: Path):
    """The same through real streams: usage comes from the upstream's last event, the header goes to the client."""
    said = b'data: {"choices":[],"usage":{"prompt_tokens":6,"completion_tokens":3,"total_tokens":9}}\n\n'
    settings = {"limits": [{"tokens": 10}], "sqlite": str(tmp_path / "b.db"), "timeout": 2.0}
    async with PluginHarness(Budget, settings) as gateway:
        first = await gateway.stream(["hello", said], tenant="acme")
        assert (first.text, first.outcome) == ("hello", "completed")
        assert "x-streamgate-budget-remaining" not in first.headers
        second = await gateway.stream(["hello", said], tenant="acme")
        assert second.headers["x-streamgate-budget-remaining"].startswith("1; unit=tokens")
        third = await gateway.stream(["hello", said], tenant="acme")
        assert (third.status, third.code, third.json["error"]["code"]) == (429, "budget_exceeded", "budget_exceeded")
        assert third.headers["retry-after"]
        assert (gateway.metric("tokens_total", tenant="acme"), gateway.failures) == (18.0, [])


async def test_two_workers_on_one_file_share_a_budget_and_a_restart_does_not_reset_it(opened: Open, made, gateway):
    """What one charged refuses at the other."""
    async with opened(limits=[{"tokens": 10}]) as one, opened(limits=[{"tokens": 10}]) as other:
        one.on_end(made.ended(gateway, usage=made.tokens(4, 0)))
        other.on_end(made.ended(gateway, usage=made.tokens(6, 0)))
        with anyio.fail_after(5), pytest.raises(Refuse):  # each writes when it gets to it
            while True:
                await asked(one, made)
    async with opened(limits=[{"tokens": 10}]) as later:
        with pytest.raises(Refuse):
            await asked(later, made)
