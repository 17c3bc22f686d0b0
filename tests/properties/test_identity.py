"""What a key may do, for all globs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamgate.admission.identity import Identity
from streamgate.routing.table import Route, RouteTable, compiled

globs = st.lists(st.text("ab*?[]", min_size=1, max_size=5), min_size=1, max_size=3).map(tuple)
names = st.text("ab[]", min_size=1, max_size=5)


@given(globs, names)
def test_a_keys_globs_mean_what_a_routes_do(models: tuple[str, ...], name: str) -> None:
    """The same text matches the same names in both places."""
    found = RouteTable([Route(models=models, upstreams=("up",))]).find(name)
    assert Identity(models=models).may(name) is (found is not None)


@given(globs, globs, st.lists(names, max_size=20))
def test_all_of_a_route_means_every_model_of_it(
    models: tuple[str, ...], route: tuple[str, ...], tried: list[str]
) -> None:
    """Who may send what names no model may use each model that its route has."""
    identity = Identity(models=models)
    if identity.may_all(route):
        for name in tried:
            if any(compiled(pattern).fullmatch(name) for pattern in route):
                assert identity.may(name), name
