"""Which route does a model name lead to? Exact names first, then the first glob in the order of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from streamgate.routing.balance import Balance

__all__ = ["Balance", "Match", "Route", "RouteTable"]

NO_OVERRIDES: Mapping[str, float] = MappingProxyType({})
EVERYTHING = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Some models, and the upstreams that serve them."""

    models: tuple[str, ...]  # names, or globs with * and ?; case counts
    upstreams: tuple[str, ...]  # names
    alias: str | None = None  # the model's name as it is sent up; None: as it came
    balance: Balance = Balance.LEAST_STREAMS
    clocks: Mapping[str, float] = field(default_factory=dict, hash=False)  # seconds, instead of the general ones
    paths: tuple[str, ...] = ()  # API paths whose requests come here without naming a model
    plugins: tuple[str, ...] | None = None  # names of those that see its requests; None: all


@dataclass(frozen=True, slots=True)
class Match:
    """A route, and which of its patterns led to it."""

    route: Route
    pattern: str

    @property
    def label(self) -> str:
        """The model as metrics may name it: what the configuration says, never what a client sent."""
        return "other" if self.pattern == EVERYTHING else self.pattern


def is_glob(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def compiled(glob: str) -> re.Pattern[str]:
    """`*` is any text, `?` any one character, and nothing else is special."""
    pieces = {"*": ".*", "?": "."}
    # Stars in a row mean one star, but would each try every split.
    once = re.sub(r"\*+", "*", glob)
    return re.compile("".join(pieces.get(character, re.escape(character)) for character in once), re.DOTALL)


class RouteTable:
    """All routes, in the order of the configuration."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(routes)
        self._exact: dict[str, Match] = {}
        self._globs: list[tuple[re.Pattern[str], Match]] = []
        for route in self._routes:
            for pattern in route.models:
                if is_glob(pattern):
                    self._globs.append((compiled(pattern), Match(route, pattern)))
                else:
                    self._exact.setdefault(pattern, Match(route, pattern))

    def find(self, model: str) -> Match | None:
        """The route for a model, None when there is none."""
        exact = self._exact.get(model)
        if exact is not None:
            return exact
        return next((match for glob, match in self._globs if glob.fullmatch(model)), None)

    def any_route(self, path: str | None = None) -> Route | None:
        """For a request that names no model: the route that lists its path, else the one for `*`, else the first."""
        for route in self._routes:
            if path is not None and path in route.paths:
                return route
        everything = (route for route in self._routes if EVERYTHING in route.models)
        return next(everything, self._routes[0] if self._routes else None)

    def names(self) -> tuple[str, ...]:
        """Models that are named in full, each once."""
        return tuple(self._exact)

    def globs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(match.pattern for _, match in self._globs))
