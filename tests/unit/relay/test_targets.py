"""The upstreams as the relay uses them."""

from __future__ import annotations

from collections import Counter

import pytest

from streamgate.relay.paths import KNOWN
from streamgate.relay.request import Request
from streamgate.relay.targets import Load, Target, Targets
from streamgate.routing.balance import Balance
from streamgate.routing.ejection import Ejections, EjectionSettings
from streamgate.routing.table import Route
from streamgate.upstream.client import origin_of

ALL = Route(models=("*",), upstreams=("a", "b", "c"), balance=Balance.IN_ORDER)
PASSED = ((b"accept", b"*/*"),)
CREDENTIALS = ((b"authorization", b"Bearer sk-client"), (b"openai-organization", b"org"))
REQUEST = Request(KNOWN[b"/v1/chat/completions"], b"/v1/chat/completions", PASSED, CREDENTIALS, b"{}", True, ALL)


def target(name: str, **more: object) -> Target:
    return Target(name=name, origin=origin_of(name, f"http://{name}:8000"), **more)  # type: ignore[arg-type]


def targets(**weights: float) -> Targets:
    made = {name: target(name, weight=weight) for name, weight in (weights or {"a": 1, "b": 1, "c": 1}).items()}
    return Targets(made, Ejections(made, EjectionSettings(failures=1, seconds=30)))


def names(order: list[Target]) -> list[str]:
    return [each.name for each in order]


@pytest.mark.parametrize(
    ("more", "headers"),
    [
        ({}, PASSED),
        ({"client_key": True}, PASSED + CREDENTIALS),
        ({"key": "sk-ours"}, (*PASSED, (b"authorization", b"Bearer sk-ours"), (b"x-api-key", b"sk-ours"))),
        ({"key": "schl\u00fcssel"}, None),
    ],
)
def test_credentials(more: dict[str, object], headers: object) -> None:
    """None, the client's, or the gateway's own under both names; never the client's beside the gateway's."""
    sent = target("a", **more).headers(REQUEST)
    assert headers is None or sent == headers
    assert more.get("client_key") or not any(b"sk-client" in value for _, value in sent)


def test_a_load_is_counted_while_inside() -> None:
    """Also when a try fails."""
    load = Load()
    with load, load:
        assert load.active == 2
    with pytest.raises(KeyError), load:
        raise KeyError
    assert load.active == 0


def test_an_upstream_is_found_by_name() -> None:
    """And each has a load of its own."""
    many = targets()
    assert many["b"].name == "b"
    with many["b"].load:
        assert many.active() == {"a": 0, "b": 1, "c": 0}


def test_one_upstream_is_the_whole_order() -> None:
    """Ejected or not: a bad one is better than none."""
    route = Route(models=("*",), upstreams=("b",))
    many = targets()
    many.failed("b", 0.0)
    assert names(many.order(route, 1.0)) == ["b"]


def test_the_order_holds_every_upstream_of_the_route_once() -> None:
    """And none of another route."""
    route = Route(models=("*",), upstreams=("c", "a"), balance=Balance.IN_ORDER)
    assert names(targets().order(route, 0.0)) == ["c", "a"]


def test_the_least_busy_comes_first() -> None:
    """By the tries that are running now."""
    many = targets()
    route = Route(models=("*",), upstreams=("a", "b", "c"))
    with many["a"].load, many["c"].load, many["c"].load:
        assert names(many.order(route, 0.0)) == ["b", "a", "c"]


def test_weights_are_the_targets() -> None:
    """One with twice the weight bears twice the streams before another is preferred."""
    many = targets(a=1, b=3)
    route = Route(models=("*",), upstreams=("a", "b"))
    with many["b"].load:
        assert names(many.order(route, 0.0)) == ["b", "a"]


def test_the_ejected_come_last_for_a_while() -> None:
    """After their time, or after a success, they are back in their place."""
    many = targets()
    many.failed("a", 100.0)
    assert names(many.order(ALL, 101.0)) == ["b", "c", "a"]
    assert names(many.order(ALL, 130.0)) == ["a", "b", "c"]
    many.failed("b", 131.0)
    assert names(many.order(ALL, 132.0)) == ["a", "c", "b"]
    many.succeeded("b")
    assert names(many.order(ALL, 132.0)) == ["a", "b", "c"]


@pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.LEAST_STREAMS])
def test_turns_are_counted_per_route(balance: Balance) -> None:
    """Requests of other routes between them do not make one route's turns come out on the same upstream."""
    many = targets()
    pair = Route(models=("x",), upstreams=("a", "b"), balance=balance)
    other = Route(models=("y",), upstreams=("a", "b", "c"), balance=balance)
    single = Route(models=("z",), upstreams=("c",), balance=balance)
    for between in ([], [other], [single], [other, single]):
        firsts: Counter[str] = Counter()
        for _ in range(12):
            firsts[many.order(pair, 0.0)[0].name] += 1
            for route in between:
                many.order(route, 0.0)
        assert firsts == {"a": 6, "b": 6}, between
