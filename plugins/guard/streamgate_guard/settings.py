"""The settings of both plugins."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from streamgate.hooks import Kind, Secret

Mode = Literal["block", "watch"]
Unsure = Literal["pass", "stop"]


def _address(url: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+(?:/\S*)?", url):
        raise ValueError("expected http://host[:port]/path or https://, without a user")
    return url


def _expression(written: str) -> str:
    try:
        compiled = re.compile(written)
    except (re.error, OverflowError, RecursionError) as why:
        raise ValueError(f"expected a regular expression: {why}") from None
    if compiled.match(""):
        raise ValueError("expected a regular expression that does not match where there is nothing")
    return written


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    message: Annotated[str, Field(min_length=1, max_length=500)] = "The answer was stopped by a rule about its content."
    mode: Mode = "block"
    kinds: Annotated[frozenset[Kind], Field(min_length=1)] = frozenset(("content", "reasoning"))


class Rule(BaseModel):
    """What stops a stream: a match of at most `longest` characters. `name` is for metrics and the log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    regex: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_expression)]
    longest: Annotated[int, Field(ge=1, le=4096)]


class GuardSettings(_Closed):
    """See the README for what each means."""

    patterns: Annotated[tuple[Rule, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _named(self) -> Self:
        if len({rule.name for rule in self.patterns}) < len(self.patterns):
            raise ValueError("expected each name once")
        return self


class ClassifierSettings(_Closed):
    """See the README for what each means. Times in seconds, `window` and `overlap` in characters."""

    url: Annotated[str, AfterValidator(_address)]
    headers: dict[str, Secret] = {}
    format: Literal["plain", "openai"] = "plain"
    model: str | None = None
    window: Annotated[int, Field(ge=16, le=16384)] = 400
    overlap: Annotated[int, Field(ge=0)] = 100
    deadline: Annotated[float, Field(gt=0, le=30)] = 0.8
    on_timeout: Unsure = "stop"
    on_error: Unsure = "stop"
    connections: Annotated[int, Field(ge=1, le=1000)] = 64

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.overlap > self.window // 2:
            raise ValueError("expected an overlap of at most half the window")
        if self.model is not None and self.format != "openai":
            raise ValueError("expected model only with format: openai")
        return self
