"""What a configuration's limits become."""

from __future__ import annotations

from typing import Any

import pytest

from streamgate.admission.claim import Bound, Level, Limits, Priority
from streamgate.admission.gate import QueueSettings
from streamgate.admission.pressure import ShedSettings
from streamgate.app import routes_of
from streamgate.control.settings import Config
from streamgate.control.terms import max_bodies_of, queue_of, shared_of, shed_of, terms_of, upstream_bounds, whole
from streamgate.relay.allowances import RouteTerms
from streamgate.routing.table import Route

UPSTREAMS: list[dict[str, Any]] = [{"name": name, "url": f"http://{name}.test"} for name in "abc"]


def config(**keys: Any) -> Config:
    return Config.built({"upstreams": UPSTREAMS, "keys": "none"} | keys, {"SECRET": "s3cret"})


def terms(**keys: Any) -> list[RouteTerms]:
    settings = config(**keys)
    routes = routes_of(settings)
    found = terms_of(settings, routes)
    return [found[route] for route in routes]


def limited(name: str, **limits: float) -> dict[str, Any]:
    return {"name": name, "url": f"http://{name}.test", "limits": limits}


def test_the_gateway_as_a_whole() -> None:
    """Its bound is always there, so that streams are counted; the queue, classes and shedding beside it."""
    settings = config(
        limits={
            "concurrent": 5,
            "requests_per_minute": 6,
            "tokens_per_minute": 7,
            "queue": 8,
            "max_wait": 9,
            "shed": {"lag": 0.5, "memory": 1000},
        },
        priorities=[{"name": "fast", "weight": 3, "reserved": 0.25}, {"name": "slow"}],
    )
    assert whole(settings) == Bound(Level.GLOBAL, "", Limits(concurrent=5, requests_per_minute=6, tokens_per_minute=7))
    assert queue_of(settings) == QueueSettings(
        queue=8, max_wait=9.0, priorities=(Priority(name="fast", weight=3.0, reserved=0.25), Priority(name="slow"))
    )
    assert shed_of(settings) == ShedSettings(lag=0.5, memory=1000)
    assert terms()[0].shared == (Bound(Level.GLOBAL, "", Limits()),)


def test_a_route_has_a_bound_where_it_has_a_limit_for_the_ledger() -> None:
    """Sizes and times are judged elsewhere."""
    routes = [
        {"models": ["x", "y*"], "upstreams": ["a"], "limits": {"concurrent": 2}},
        {"models": ["z"], "upstreams": ["a"], "limits": {"max_body": 2, "max_duration": 3}},
    ]
    first, second = terms(routes=routes)
    assert first.shared[1:] == (Bound(Level.MODEL, "x,y*", Limits(concurrent=2)),)
    assert second.shared[1:] == () and second.deadlines.total == 3.0


def test_routes_of_the_same_models_on_other_paths_are_others() -> None:
    """Each has its own limits: they must not be taken for each other's."""
    routes = [
        {"models": ["m"], "upstreams": ["a"], "paths": ["/v1/embeddings"], "limits": {"concurrent": 50}},
        {"models": ["m"], "upstreams": ["a"], "limits": {"concurrent": 2}},
    ]
    first, second = terms(routes=routes)
    assert (first.shared[1].limits.concurrent, second.shared[1].limits.concurrent) == (50, 2)
    assert [(each.name, each.shared[1].name) for each in (first, second)] == [("m,/v1/embeddings",) * 2, ("m", "m")]


def test_of_two_equal_routes_the_first_holds() -> None:
    """The second one is never taken."""
    route = {"models": ["m"], "upstreams": ["a"]}
    first, second = terms(routes=[route | {"limits": {"concurrent": 1}}, route | {"limits": {"concurrent": 2}}])
    assert first is second and first.shared[1].limits.concurrent == 1


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, []),
        ({"max_body": 9, "max_duration": 9}, []),
        ({"concurrent": 3}, [Limits(concurrent=3), Limits()]),
        ({"requests_per_minute": 3}, [Limits(requests_per_minute=3), Limits()]),
    ],
)
def test_upstreams_are_waited_for_when_one_of_them_is_limited(limits: dict[str, float], expected: list[Limits]) -> None:
    """All of the route's then stand in its claims: one without a limit always has room. Others' limits are nothing."""
    settings = config(upstreams=[limited("a", **limits), limited("b"), limited("c", concurrent=1)])
    found = upstream_bounds(settings, Route(models=("m",), upstreams=("a", "b")))
    assert [bound.limits for bound in found] == expected
    assert [(bound.level, bound.name) for bound in found] == [(Level.UPSTREAM, name) for name in "ab"[: len(found)]]


def test_the_smallest_time_of_all_that_apply() -> None:
    """Of the gateway, the route, and any of its upstreams; clocks that are smaller stay."""
    upstreams = [limited("a", max_duration=40), limited("b"), limited("c", max_duration=10)]
    routes = [
        {"models": ["x"], "upstreams": ["a", "b"], "clocks": {"total": 30}, "limits": {"max_duration": 60}},
        {"models": ["y"], "upstreams": ["b"]},
        {"models": ["z"], "upstreams": ["b", "c"]},
    ]
    first, second, third = terms(upstreams=upstreams, routes=routes, limits={"max_duration": 50})
    assert (first.deadlines.total, first.deadlines.answer) == (30.0, 40.0)
    assert (second.deadlines.total, second.deadlines.answer) == (50.0, 50.0)
    assert (third.deadlines.total, third.deadlines.answer) == (10.0, 10.0)


def test_the_smallest_body_of_a_route() -> None:
    """Only where it is limited."""
    settings = config(
        upstreams=[limited("a", max_body=40), limited("b")],
        routes=[
            {"models": ["x"], "upstreams": ["a"], "limits": {"max_body": 60}},
            {"models": ["y"], "upstreams": ["b"]},
        ],
    )
    routes = routes_of(settings)
    assert max_bodies_of(settings, routes) == {routes[0]: 40}


def test_the_store_that_replicas_share() -> None:
    """None unless it is named; its settings are those of the configuration, and its password is not shown."""
    assert shared_of(config()) is None
    store = {"store": "redis://:${SECRET}@cache.test:6380/2", "store_timeout": 0.5, "store_down": "closed"}
    shared = shared_of(config(limits=store | {"lease_ttl": 12}))
    assert shared is not None
    assert "s3cret" not in repr(shared) + repr(shared.store)
