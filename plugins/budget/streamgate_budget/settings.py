"""The plugin's settings."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from streamgate.hooks import Secret
from streamgate_budget.amounts import NANO, PeriodName, Unit


def _redis_url(secret: SecretStr) -> SecretStr:
    if not re.match(r"(rediss?|unix)://.", secret.get_secret_value()):
        raise ValueError("expected redis://[user:password@]host[:port][/database], or rediss:// for TLS")
    return secret


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ValueError("expected the name of a time zone, such as UTC or Europe/Zurich") from None
    return name


Globs = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(min_length=1)]
Rate = Annotated[Decimal, Field(ge=0, le=10**6, allow_inf_nan=False)]
RedisUrl = Annotated[Secret, AfterValidator(_redis_url)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Price(_Closed):
    """Prices per million tokens."""

    models: Globs
    """Globs of names as clients use them."""
    input: Rate
    """Of input tokens."""
    output: Rate
    """Of output tokens, reasoning among them."""
    cached: Rate | None = None
    """Of input that was read from a cache; else as input."""
    cache_write: Rate | None = None
    """Of input that was written to a cache; else as input."""


class Limit(_Closed):
    """Either tokens or money, for each tenant that matches, in each period."""

    tenants: Globs = ("*",)
    """Globs; each tenant has the limit for itself."""
    tokens: Annotated[int, Field(ge=1, le=10**15)] | None = None
    """Input and output together."""
    money: Annotated[Decimal, Field(gt=0, le=10**9, allow_inf_nan=False)] | None = None
    """In the unit of the prices."""
    period: PeriodName = "month"
    """Of the calendar."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.tokens is None) == (self.money is None):
            raise ValueError("expected either tokens or money")
        return self

    @property
    def unit(self) -> Unit:
        return "money" if self.tokens is None else "tokens"

    @property
    def amount(self) -> int:
        """Tokens, or billionths of money."""
        return int((self.money or Decimal()) * NANO) if self.tokens is None else self.tokens


class BudgetSettings(_Closed):
    """See the README for what each means."""

    limits: Annotated[tuple[Limit, ...], Field(min_length=1)]
    """Of those for the same period and unit, the first that matches a tenant holds."""
    prices: tuple[Price, ...] = ()
    """The first that matches a model is its price."""
    zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """Where days and months begin."""
    warn_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of a limit from which clients and the log are told."""
    unpriced: Literal["refuse", "allow"] = "refuse"
    """Models without a price, for tenants with a limit of money."""
    estimate: bool = True
    """Charge by the answer's size where no usage is stated."""
    free_paths: tuple[str, ...] = ("/tokenize", "/detokenize", "/v1/messages/count_tokens", "/api/show")
    """Never charged, never refused."""
    on_error: Literal["allow", "refuse"] = "allow"
    """What becomes of requests while the store is away."""
    sqlite: Annotated[str, Field(min_length=1)] = "streamgate-budget.db"
    """The file with the sums, on a local file system; the workers of a machine share it."""
    redis: RedisUrl | None = None
    """Sums in Redis instead, for many machines: an address, or `${NAME}` of the environment."""
    timeout: Annotated[float, Field(gt=0, le=10)] = 0.25
    """Seconds for a lock of SQLite or an answer of Redis; a request waits twice as long at most."""
    keep_days: Annotated[int, Field(ge=1, le=36500)] = 400
    """Days that the sums of past periods are kept."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if any(limit.unit == "money" for limit in self.limits) and not self.prices:
            raise ValueError("expected prices: a limit of money needs to know what models cost")
        if self.redis is not None and "sqlite" in self.model_fields_set:
            raise ValueError("expected either sqlite or redis")
        return self
