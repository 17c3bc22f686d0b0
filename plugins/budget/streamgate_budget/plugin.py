"""A budget of tokens or money for each tenant and period: told when it gets low, refused when it is spent.

What a request costs is known at its end, so a tenant can exceed its budget by what was running when it was reached;
limits of concurrency bound that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from zoneinfo import ZoneInfo

from streamgate.hooks import Ended, Facade, Plugin, Refuse, Request, ResponseHead, Stream
from streamgate_budget.amounts import NANO, Account, Amount, PeriodName, Unavailable, Unit
from streamgate_budget.books import Books
from streamgate_budget.desk import Desk
from streamgate_budget.prices import Used, believed, cost, guessed, price_of
from streamgate_budget.rules import Standing, accounts_of, limits_of, standings
from streamgate_budget.settings import BudgetSettings, Limit
from streamgate_budget.sqlite_books import DAY, SqliteBooks

HEADER = "x-streamgate-budget-remaining"
LONGEST_WAIT = 60.0  # s: what the gateway tells at most; one SDK sleeps whatever it is told
STORE_BACK = 5.0  # s
TENANTS = 4096  # whose limits are remembered

Warned = tuple[Account, Unit]


class Budget(Plugin):
    """Tokens or money for each tenant and period: told when it gets low, refused when it is spent."""

    Settings = BudgetSettings

    def __init__(self, settings: BudgetSettings, gateway: Facade) -> None:
        super().__init__(settings, gateway)
        self._settings = settings
        self._zone = ZoneInfo(settings.zone)
        self._free = frozenset(settings.free_paths)
        self._limits = lru_cache(maxsize=TENANTS)(lambda tenant: limits_of(settings.limits, tenant))
        self._warned: set[Warned] = set()
        self._away = False  # the store, as far as the log has been told
        self._desk = Desk(
            books_of(settings, gateway), patience=2 * settings.timeout, now=gateway.now, failed=self._store_failed
        )
        metrics = gateway.metrics
        self._tokens = metrics.counter("tokens_total", "Tokens charged.", ["tenant"])
        self._money = metrics.counter("money_total", "Money charged, in the unit of the price table.", ["tenant"])
        self._estimated = metrics.counter("estimated_total", "Requests charged by estimate: no usage was stated.")
        self._unpriced = metrics.counter("unpriced_total", "Requests for models without a price.")
        self._warnings = metrics.counter("warnings_total", "Times that a budget got low.", ["tenant"])
        self._refusals = metrics.counter("refusals_total", "Requests refused: the budget was spent.", ["tenant"])
        self._used = metrics.gauge("used_ratio", "Spent of the limit, as last asked.", ["tenant", "unit", "period"])
        self._errors = metrics.counter("store_errors_total", "Times that the store failed.")

    async def startup(self) -> None:
        await self._desk.start()

    async def shutdown(self) -> None:
        lost = await self._desk.close()
        if lost:
            tokens = sum(amount.tokens for amount in lost.values())
            self.gateway.log.error("budget_charges_lost", accounts=len(lost), tokens=tokens)

    async def on_request(self, request: Request, stream: Stream) -> None:
        limits = self._limits(stream.tenant)
        if not limits or request.path in self._free or request.method != "POST":
            return
        self._check_priced(limits, request)
        at = self.gateway.wall()
        accounts = accounts_of(limits, stream.tenant, at, self._zone)
        try:
            spent = await self._desk.spent(accounts.values())
        except Unavailable:
            if self._settings.on_error == "allow":
                return
            raise Refuse(503, "budget_unavailable", "The budget cannot be read now.", STORE_BACK) from None
        self._away = False
        found = standings(limits, accounts, spent)
        self._note(found, stream.tenant)
        if not found[0].remaining:
            raise self._refusal(found, stream.tenant, at)
        stream.state = [standing for standing in found if standing.used >= self._settings.warn_at]

    def on_open(self, head: ResponseHead, stream: Stream) -> ResponseHead | None:
        low: list[Standing] | None = stream.state
        if not low:
            return None
        at = self.gateway.wall()
        return head.replaced(headers={HEADER: ", ".join(standing.header(at) for standing in low)})

    def on_end(self, record: Ended) -> None:
        limits = self._limits(record.tenant)
        if not limits or record.path in self._free or record.method != "POST" or not record.attempts:
            return
        used = self._guess(record) if record.usage is None else believed(record.usage)
        if used is not None:
            self._charge(limits, record, used)

    def _charge(self, limits: Sequence[Limit], record: Ended, used: Used) -> None:
        price = price_of(self._settings.prices, record.model)
        amount = Amount(used.input + used.output, 0 if price is None else cost(price, used), 1)
        for account in accounts_of(limits, record.tenant, record.at, self._zone).values():
            self._desk.add(account, amount)
        self._tokens.inc(amount.tokens, tenant=record.tenant)
        self._money.inc(amount.money / NANO, tenant=record.tenant)

    def _guess(self, record: Ended) -> Used | None:
        """Where an upstream states no usage, or a client leaves before it is stated; nothing for what was no answer."""
        answered = record.events or (record.bytes_in and 200 <= record.status < 300)
        if not answered or not self._settings.estimate:
            return None
        self._estimated.inc()
        request = record.stream.request
        asked = 0 if request is None else len(request.body)
        return guessed(asked=asked, events=record.events, answered=record.bytes_in)

    def _check_priced(self, limits: Sequence[Limit], request: Request) -> None:
        """A model without a price would be free: a limit of money means nothing then."""
        if any(limit.unit == "money" for limit in limits) and price_of(self._settings.prices, request.model) is None:
            self._unpriced.inc()
            if self._settings.unpriced == "refuse":
                raise Refuse(403, "model_not_priced", "This model has no price, and your budget is one of money.")

    def _note(self, found: Sequence[Standing], tenant: str) -> None:
        """Metrics of each limit; and, once for each period, a line in the log when it gets low."""
        for standing in found:
            limit = standing.limit
            self._used.set(standing.used, tenant=tenant, unit=limit.unit, period=limit.period)
            warned = (standing.account, limit.unit)
            if standing.used >= self._settings.warn_at and warned not in self._warned:
                self._forget_past()
                self._warned.add(warned)
                self._warnings.inc(tenant=tenant)
                self.gateway.log.warning(
                    "budget_low", tenant=tenant, unit=limit.unit, period=limit.period, used=round(standing.used, 3)
                )

    def _forget_past(self) -> None:
        at = self.gateway.wall()
        self._warned = {warned for warned in self._warned if warned[0].end > at}

    def _refusal(self, found: Sequence[Standing], tenant: str, at: float) -> Refuse:
        """By the limit among the spent ones that is there the longest."""
        self._refusals.inc(tenant=tenant)
        spent = max((standing for standing in found if not standing.remaining), key=lambda each: each.account.end)
        words: dict[PeriodName, str] = {"hour": "this hour", "day": "today", "month": "this month"}
        message = f"The budget of {spent.limit.unit} for {words[spent.limit.period]} is used up."
        wait = min(LONGEST_WAIT, max(1.0, spent.account.end - at))
        return Refuse(429, "budget_exceeded", message, wait, headers={HEADER: spent.header(at)})

    def _store_failed(self, why: str) -> None:
        self._errors.inc()
        if not self._away:
            self._away = True
            self.gateway.log.warning("budget_store_away", why=why)


def books_of(settings: BudgetSettings, gateway: Facade) -> Books:
    """The configured store."""
    keep = settings.keep_days * float(DAY)
    if settings.redis is None:
        return SqliteBooks(settings.sqlite, gateway.name, timeout=settings.timeout, keep=keep, wall=gateway.wall)
    from streamgate_budget.redis_books import RedisBooks  # noqa: PLC0415 - its driver is an extra

    return RedisBooks(settings.redis.get_secret_value(), gateway.name, timeout=settings.timeout, keep=keep)
