"""The composition root: what each key of the configuration becomes."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from streamgate.admission.claim import Bound, Level, Limits
from streamgate.admission.gate import QueueSettings
from streamgate.admission.pressure import ShedSettings
from streamgate.app import (
    Gateway,
    guard_of,
    pool_of,
    routes_of,
    target_of,
)
from streamgate.control.settings import Clocks, Config, Edge
from streamgate.control.terms import deadlines_of, max_bodies_of, queue_of, shared_of, shed_of, terms_of, whole
from streamgate.drain import Drain
from streamgate.edge.guard import GuardSettings
from streamgate.observe.observer import Observer
from streamgate.relay.allowances import RouteTerms
from streamgate.relay.deadlines import Deadlines
from streamgate.routing.table import Balance, Route

UPSTREAMS = [
    {"name": "a", "url": "http://10.0.0.1:8000/base"},
    {"name": "b", "url": "https://b.test", "auth": "client", "weight": 3, "idle": 1.5, "verify": False},
    {"name": "c", "url": "http://c.test", "auth": {"key": "${OURS}"}, "connect": 0.5},
]
SECRETS = {"OURS": "sk-ours", "A": "sk-a", "B": "sk-b"}


def config(**keys: Any) -> Config:
    return Config.built({"upstreams": UPSTREAMS, "keys": "none"} | keys, SECRETS)


def gateway(**keys: Any) -> Gateway:
    log = SimpleNamespace(info=lambda *_, **__: None, warning=lambda *_, **__: None, error=lambda *_, **__: None)
    return Gateway(config(**keys), Drain(), Observer(log=log))


def test_without_routes_every_model_goes_everywhere() -> None:
    """One route for all of them."""
    assert routes_of(config()) == [Route(models=("*",), upstreams=("a", "b", "c"))]


def test_routes_are_taken_in_order_and_whole() -> None:
    """Each key of a route arrives; absent ones have the same meaning in both places."""
    written = [
        {"models": ["llama-*"], "upstreams": ["b", "a"], "balance": "round_robin", "clocks": {"first_token": 30}},
        {"models": ["gpt-4"], "as": "llama-70b", "upstreams": ["a"], "paths": ["/v1/audio/speech"]},
    ]
    first, second = routes_of(config(routes=written))
    assert first == Route(
        models=("llama-*",), upstreams=("b", "a"), balance=Balance.ROUND_ROBIN, clocks={"first_token": 30.0}
    )
    assert second == Route(models=("gpt-4",), upstreams=("a",), alias="llama-70b", paths=("/v1/audio/speech",))
    assert second.balance is Balance.LEAST_STREAMS and dict(second.clocks) == {}


def test_a_routes_clocks_stand_over_the_gateways() -> None:
    """Every other clock is the gateway's; connecting is the upstream's unless the route says otherwise."""
    clocks = {"first_token": 90, "idle": 40, "total": 500, "answer": 300, "stall": 5, "send": 20, "heartbeat": 7}
    written = [
        {"models": ["x"], "upstreams": ["a"], "clocks": {"first_token": 3, "early_commit": 0, "connect": 1}},
        {"models": ["y"], "upstreams": ["a"]},
    ]
    settings = config(routes=written, clocks=clocks)
    routes = routes_of(settings)
    deadlines = deadlines_of(settings, routes)
    general = Deadlines(
        first_token=90, idle=40, total=500, answer=300, stall=5, send=20, heartbeat=7, early_commit=10, connect=None
    )
    assert deadlines[routes[1]] == general
    assert deadlines[routes[0]] == Deadlines(
        **{field.name: getattr(general, field.name) for field in fields(Deadlines)}
        | {"first_token": 3, "early_commit": 0, "connect": 1}
    )


def test_the_defaults_of_both_places_agree() -> None:
    """A clock or a bound means the same whether it was written down or not."""
    settings = config()
    assert deadlines_of(settings, routes_of(settings)) == {routes_of(settings)[0]: Deadlines()}
    assert guard_of(settings) == GuardSettings()
    assert replace(queue_of(settings), priorities=()) == QueueSettings()
    assert terms_of(settings, routes_of(settings)) == {
        routes_of(settings)[0]: RouteTerms(name="*", deadlines=Deadlines(), shared=(Bound(Level.GLOBAL, "", Limits()),))
    }
    assert shed_of(settings) == ShedSettings()
    assert shared_of(settings) is None
    assert {field.name for field in fields(Deadlines)} == set(Clocks.model_fields)
    assert set(Edge.model_fields) <= {field.name for field in fields(GuardSettings)}


def test_each_upstream_is_a_target() -> None:
    """Address, credentials, weight and patience: its own where it has some."""
    settings = config(clocks={"connect": 2})
    a, b, c = (target_of(upstream, settings) for upstream in settings.upstreams)
    assert (a.name, a.origin.host, a.origin.port, a.origin.prefix) == ("a", "10.0.0.1", 8000, b"/base")
    assert (a.key, a.client_key, a.weight, a.connect) == (None, False, 1, 2.0)
    assert (b.key, b.client_key, b.weight, b.connect) == (None, True, 3, 2.0)
    assert (b.origin.scheme, b.origin.verify, b.origin.idle) == ("https", False, 1.5)
    assert (c.key, c.client_key, c.connect) == ("sk-ours", False, 0.5)
    assert pool_of(settings).connect == 2.0


def test_the_strictest_body_of_a_route_and_its_upstreams_holds() -> None:
    """A route without a limit is not listed; of two equal ones the first, which is the one that is taken, says it."""
    limits = [{"name": "a", "url": "http://a.test", "limits": {"max_body": 5000}}, *UPSTREAMS[1:]]
    written = [
        {"models": ["x"], "upstreams": ["a", "b"], "limits": {"max_body": 7000}},
        {"models": ["y"], "upstreams": ["b"], "limits": {"max_body": 3000}},
        {"models": ["y"], "upstreams": ["b"], "limits": {"max_body": 9000}},
        {"models": ["z"], "upstreams": ["c"]},
    ]
    settings = config(upstreams=limits, routes=written)
    routes = routes_of(settings)
    assert max_bodies_of(settings, routes) == {routes[0]: 5000, routes[1]: 3000}
    settings = config(upstreams=limits)
    assert list(max_bodies_of(settings, routes_of(settings)).values()) == [5000]


def test_limits_and_bounds() -> None:
    """Of streams, and of what the edge lets in; the send clock is the edge's, too."""
    settings = config(
        limits={"concurrent": 5, "queue": 6, "max_wait": 7},
        edge={"max_head": 2048, "max_body": 4096, "max_connections": 9, "trusted_proxies": ["10.0.0.0/8", "::1"]},
        clocks={"send": 12},
    )
    assert (queue_of(settings).queue, queue_of(settings).max_wait) == (6, 7.0)
    assert whole(settings) == Bound(Level.GLOBAL, "", Limits(concurrent=5))
    guard = guard_of(settings)
    assert (guard.max_head, guard.max_body, guard.max_connections, guard.send) == (2048, 4096, 9, 12.0)
    assert guard.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))


@pytest.fixture
def served(anyio_backend: Any) -> Any:
    """`async with served(...) as (gateway, client)`: the traffic port's application, asked without a socket."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def opened(**keys: Any) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
        built = gateway(**keys)
        transport = httpx.ASGITransport(app=built.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield built, client
        await built.close()

    return opened


@pytest.mark.anyio
async def test_probes_tell_start_up_and_drain(served: Any) -> None:
    """Alive from the start; ready once started, and not while draining; no redirects on the way."""
    async with served() as (built, client):
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        built.health.started = True
        assert (await client.get("/readyz")).status_code == 200
        built.drain.begin()
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/livez/")).status_code == 404


@pytest.mark.anyio
async def test_keys_and_paths_reach_the_relay(served: Any) -> None:
    """401 without a key, 404 for an unknown path, and a path of the operator's is known."""
    async with served(keys=[{"name": "team", "key": "${A}"}], paths=["/v1/extra"]) as (built, client):
        assert (await client.post("/v1/chat/completions", json={"model": "m"})).status_code == 401
        assert (await client.post("/v1/other", json={})).status_code == 404
        assert (await client.post("/v1/extra", json={})).status_code == 401
        assert built.observer.statistics()["rejected"] == 3


@pytest.mark.anyio
@pytest.mark.parametrize("origins", [[], ["https://app.test"]])
async def test_cors_is_answered_before_the_key(served: Any, origins: list[str]) -> None:
    """A preflight carries no key; without origins configured there is no CORS at all."""
    preflight = {
        "origin": "https://app.test",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    async with served(keys=[{"name": "team", "key": "${A}"}], cors={"origins": origins}) as (_, client):
        answer = await client.options("/v1/chat/completions", headers=preflight)
        other = await client.options("/v1/chat/completions", headers=preflight | {"origin": "https://evil.test"})
        plain = await client.post("/v1/chat/completions", json={}, headers={"origin": "https://app.test"})
        bare = await client.post("/v1/chat/completions", json={})
    if origins:
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.test"
        assert other.status_code == 400 and "access-control-allow-origin" not in other.headers
        exposed = plain.headers["access-control-expose-headers"]
        assert "x-request-id" in exposed and "retry-after" in exposed
    else:
        assert answer.status_code == 405
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert plain.status_code == bare.status_code == 401


@pytest.mark.anyio
async def test_a_closed_gateway_keeps_no_connection() -> None:
    """What no exchange uses is closed, and nothing is kept from then on."""
    built = gateway()
    await built.close()
    assert all(each.pooled == 0 for each in built.upstreams.statistics().values())


def test_what_holds_on_a_route() -> None:
    """The gateway's limits, the route's own where it has any, and its upstreams' when one of them has some."""
    upstreams = [UPSTREAMS[0] | {"limits": {"concurrent": 3, "max_duration": 50}}, UPSTREAMS[1]]
    routes = [
        {"models": ["x", "y*"], "upstreams": ["a", "b"], "limits": {"tokens_per_minute": 9, "max_duration": 70}},
        {"models": ["z"], "upstreams": ["b"]},
    ]
    settings = config(upstreams=upstreams, routes=routes, limits={"requests_per_minute": 5, "max_duration": 60})
    first, second = terms_of(settings, routes_of(settings)).values()
    if first.name == "z":
        first, second = second, first
    whole_bound = Bound(Level.GLOBAL, "", Limits(requests_per_minute=5))
    assert first.shared == (whole_bound, Bound(Level.MODEL, "x,y*", Limits(tokens_per_minute=9)))
    seats = (Bound(Level.UPSTREAM, "a", Limits(concurrent=3)), Bound(Level.UPSTREAM, "b", Limits()))
    assert first.upstreams == seats
    assert (first.deadlines.total, first.deadlines.answer) == (50, 50)  # the smallest of all that apply
    assert (second.shared, second.upstreams) == ((whole_bound,), ())
    assert (second.deadlines.total, second.deadlines.answer) == (60, 60)
