"""The plugin's settings."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from streamgate.hooks import Secret
from streamgate_redact.patterns import BUILT_IN, DEFAULT, LONGEST, Pattern, Rule
from streamgate_redact.scan import Scanner

Direction = Literal["in", "out"]
BuiltIn = Literal["private_key", "jwt", "key", "bearer", "email", "iban", "card", "phone"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
_JOINS = re.compile(r"[\w\s.%+@'/=~:\\-]")  # what could become part of a match beside it


HashKey = Annotated[Secret, Field(min_length=16)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Custom(_Closed):
    """A pattern of one's own. What matches more than `longest` characters is not hidden."""

    name: Name
    regex: Annotated[str, Field(min_length=1, max_length=1000)]
    longest: Annotated[int, Field(ge=1, le=LONGEST)]

    @property
    def pattern(self) -> Pattern:
        return Pattern(self.name, self.regex, longest=self.longest)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        try:
            Rule(self.pattern)
        except (re.error, ValueError, OverflowError, RecursionError) as why:
            raise ValueError(f"expected a regular expression that can be followed: {why}") from None
        return self


class RedactSettings(_Closed):
    """See the README for what each means."""

    direction: Annotated[frozenset[Direction], Field(min_length=1)] = frozenset(("in", "out"))
    patterns: tuple[BuiltIn, ...] = DEFAULT
    custom: tuple[Custom, ...] = ()
    trusted: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = ()
    replacement: Literal["label", "hash"] = "label"
    labels: dict[str, Annotated[str, Field(min_length=1, max_length=64)]] = {}
    hash_key: HashKey | None = None

    def rules(self) -> list[Rule]:
        """Custom ones first: who writes one knows better."""
        return [Rule(pattern) for pattern in (*(each.pattern for each in self.custom), *self._built_in())]

    def _built_in(self) -> list[Pattern]:
        return [BUILT_IN[name] for name in self.patterns]

    @model_validator(mode="after")
    def _named(self) -> Self:
        names = Counter([*self.patterns, *(each.name for each in self.custom)])
        twice = [name for name, times in names.items() if times > 1]
        if not names:
            raise ValueError("expected at least one of patterns and custom")
        if twice or any(each.name in BUILT_IN for each in self.custom):
            raise ValueError(f"expected each name once, and no custom one named as a built-in: {', '.join(names)}")
        unknown = self.labels.keys() - names.keys()
        if unknown:
            raise ValueError(f"expected labels for patterns that are used, not for {', '.join(sorted(unknown))}")
        return self

    @model_validator(mode="after")
    def _sealed(self) -> Self:
        if self.trusted and "in" not in self.direction:
            raise ValueError("expected direction to have in, where upstreams are trusted with requests as they came")
        if (self.replacement == "hash") != (self.hash_key is not None):
            raise ValueError("expected hash_key with replacement: hash, and only there")
        if self.replacement == "hash" and self.labels:
            raise ValueError("expected labels only with replacement: label")
        return self

    @model_validator(mode="after")
    def _inert(self) -> Self:
        """What stands for a match neither is one nor makes one of what it stands beside."""
        scanner = Scanner(self.rules())
        for label in self.labels.values():
            if _JOINS.match(label[0]) or _JOINS.match(label[-1]):
                raise ValueError(f"expected labels that begin and end with a bracket or the like: {label!r}")
            if scanner.whole(label, lambda _: "") != label:
                raise ValueError(f"expected labels in which there is nothing to hide: {label!r}")
        return self
