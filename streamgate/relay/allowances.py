"""What one key is allowed on one route: the limits that its requests claim, and their clocks. Made once, and kept."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, replace

from streamgate.admission.claim import Bound, Claim, Level, Limits
from streamgate.admission.identity import Identity, smallest
from streamgate.relay.deadlines import Deadlines
from streamgate.routing.table import Route

# Tenants come and go with their tokens. Above this all are made anew, which costs 5 us for each that is still in use.
KEPT = 4096
UNLIMITED = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTerms:
    """What holds on a route for everybody: `shared` limits, those of its `upstreams` (empty: none has any), and its
    clocks. `name` is the route's in metrics."""

    name: str
    deadlines: Deadlines
    shared: tuple[Bound, ...] = ()
    upstreams: tuple[Bound, ...] = ()


@dataclass(frozen=True, slots=True)
class Allowance:
    """See the module."""

    claim: Claim
    deadlines: Deadlines


class Allowances:
    """All that were asked for lately, by who asks and for what."""

    def __init__(self, routes: Mapping[Route, RouteTerms]) -> None:
        self._routes = routes
        self._made: dict[Hashable, Allowance] = {}
        self._parts: dict[Hashable, Claim] = {}

    def of(self, identity: Identity, route: Route) -> Allowance:
        # Not the whole identity: each token expires at another time, and a claim for each would be forgotten at once.
        limits = (identity.limits, identity.tenant_limits, identity.max_duration)
        key = (identity.key, identity.tenant, identity.priority, limits, route)
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= KEPT:
                self._made.clear()
            made = self._made[key] = allowance(identity, self._routes[route])
        return made

    def among(self, claim: Claim, names: Collection[str]) -> Claim:
        """The same claim on some of its upstreams: those that plugins have left of them."""
        if all(bound.name in names for bound in claim.upstreams):
            return claim
        key = (claim, frozenset(names))
        part = self._parts.get(key)
        if part is None:
            if len(self._parts) >= KEPT:
                self._parts.clear()
            left = tuple(bound for bound in claim.upstreams if bound.name in names)
            part = self._parts[key] = replace(claim, upstreams=left)
        return part


def allowance(identity: Identity, terms: RouteTerms) -> Allowance:
    own = (
        Bound(Level.TENANT, identity.tenant, identity.tenant_limits),
        Bound(Level.KEY, identity.key, identity.limits),
    )
    claim = Claim(
        own=tuple(bound for bound in own if bound.limits != UNLIMITED),
        shared=terms.shared,
        upstreams=terms.upstreams,
        tenant=identity.tenant,
        priority=identity.priority,
        route=terms.name,
    )
    return Allowance(claim, ending_by(terms.deadlines, identity.max_duration))


def ending_by(deadlines: Deadlines, longest: float) -> Deadlines:
    """These clocks, for streams that may take so many seconds in all; 0: as long as they like."""
    if not longest:
        return deadlines
    return replace(
        deadlines, total=float(smallest(deadlines.total, longest)), answer=float(smallest(deadlines.answer, longest))
    )
