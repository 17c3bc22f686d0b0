"""From what the configuration limits to the values that admission and relay know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamgate.admission.claim import Bound, Level, Limits
from streamgate.admission.gate import QueueSettings
from streamgate.admission.pressure import ShedSettings
from streamgate.admission.shared import SharedLimits
from streamgate.control.admitting import NO_LIMITS
from streamgate.control.identities import ceilings, limits_at, priorities_of
from streamgate.control.settings import Config
from streamgate.relay.allowances import UNLIMITED, RouteTerms, ending_by
from streamgate.relay.deadlines import Deadlines
from streamgate.routing.table import Route
from streamgate.store import Store


def terms_of(config: Config, routes: Sequence[Route]) -> dict[Route, RouteTerms]:
    """What holds on each route for everybody. Of two routes that are equal the first is the one taken."""
    limits = [route.limits for route in config.routes] or [NO_LIMITS]
    deadlines = deadlines_of(config, routes)
    terms = {}
    for route, own in reversed(list(zip(routes, limits, strict=True))):
        name = ",".join((*route.models, *route.paths))  # the same models on other paths are another route's
        model = Bound(Level.MODEL, name, limits_at(own))
        terms[route] = RouteTerms(
            name=name,
            deadlines=ending_by(deadlines[route], ceilings(config, own, route.upstreams)[1]),
            shared=(whole(config), model) if model.limits != UNLIMITED else (whole(config),),
            upstreams=upstream_bounds(config, route),
        )
    return terms


def whole(config: Config) -> Bound:
    """The limits of the gateway as a whole."""
    limits = config.limits
    rates = Limits(
        concurrent=limits.concurrent,
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
    )
    return Bound(Level.GLOBAL, "", rates)


def upstream_bounds(config: Config, route: Route) -> tuple[Bound, ...]:
    """Of all upstreams of a route, when any of them has a limit: one without is then one that always has room."""
    limits = {up.name: limits_at(up.limits) for up in config.upstreams}
    if all(limits[name] == UNLIMITED for name in route.upstreams):
        return ()
    return tuple(Bound(Level.UPSTREAM, name, limits[name]) for name in route.upstreams)


def deadlines_of(config: Config, routes: Sequence[Route]) -> Mapping[Route, Deadlines]:
    """Each route's clocks: its own over the gateway's."""
    base = config.clocks.model_dump(exclude={"connect"})
    return {route: Deadlines(**base | dict(route.clocks)) for route in routes}


def max_bodies_of(config: Config, routes: Sequence[Route]) -> Mapping[Route, int]:
    """By route: the largest body, in bytes, where it is less than for all."""
    limits = [route.limits for route in config.routes] or [NO_LIMITS]
    pairs = reversed(list(zip(routes, limits, strict=True)))
    sizes = {route: ceilings(config, own, route.upstreams)[0] for route, own in pairs}
    return {route: size for route, size in sizes.items() if size}


def queue_of(config: Config) -> QueueSettings:
    limits = config.limits
    return QueueSettings(queue=limits.queue, max_wait=limits.max_wait, priorities=priorities_of(config))


def shed_of(config: Config) -> ShedSettings:
    return ShedSettings(**config.limits.shed.model_dump())


def shared_of(config: Config) -> SharedLimits | None:
    """What replicas share their limits by; None: each process counts for itself."""
    limits = config.limits
    if limits.store is None:
        return None
    store = Store(limits.store.get_secret_value(), timeout=limits.store_timeout)
    return SharedLimits(store, ttl=limits.lease_ttl, down=limits.store_down)
