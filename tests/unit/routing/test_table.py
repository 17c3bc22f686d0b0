"""Which route a model leads to."""

from __future__ import annotations

import pytest

from streamgate.routing.table import Balance, Route, RouteTable

LLAMA = Route(models=("llama-70b", "llama-*"), upstreams=("gpu",))
GPT = Route(models=("gpt-?", "gpt-4"), upstreams=("api",), alias="llama-70b", clocks={"idle": 5.0})
LATE = Route(models=("llama-special", "llama-70b"), upstreams=("late",))
REST = Route(models=("*",), upstreams=("gpu", "api"), balance=Balance.IN_ORDER, paths=("/v1/audio/speech",))
TABLE = RouteTable([LLAMA, GPT, LATE, REST])


@pytest.mark.parametrize(
    "model, route, label",
    [
        ("llama-70b", LLAMA, "llama-70b"),
        ("llama-8b", LLAMA, "llama-*"),
        ("llama-special", LATE, "llama-special"),
        ("gpt-4", GPT, "gpt-4"),
        ("gpt-5", GPT, "gpt-?"),
        ("gpt-", REST, "other"),
        ("LLAMA-8b", REST, "other"),
        ("llama\n-8b", REST, "other"),
        ("llama-a\nb", LLAMA, "llama-*"),
        ("", REST, "other"),
    ],
)
def test_exact_names_win_then_the_first_glob(model: str, route: Route, label: str) -> None:
    """Case counts; an exact name wins over every glob, whatever the order; metrics see the pattern only."""
    match = TABLE.find(model)
    assert match is not None
    assert (match.route, match.label) == (route, label)


def test_nothing_matches_without_a_route() -> None:
    """An unknown model has no route."""
    assert RouteTable([LLAMA]).find("gpt-4") is None
    assert RouteTable([]).find("gpt-4") is None


@pytest.mark.parametrize(
    "glob, name, fits",
    [
        ("a.c", "abc", False),
        ("a[bc]", "ab", False),
        ("a[bc]*", "a[bc]d", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("*-it", "gemma-it", True),
        ("a**b", "a-b", True),
        ("(x)?", "(x)y", True),
        ("org/*", "org/a/b", True),
    ],
)
def test_only_star_and_question_mark_are_special(glob: str, name: str, fits: bool) -> None:
    """Everything else in a pattern stands for itself."""
    assert (RouteTable([Route(models=(glob,), upstreams=("a",))]).find(name) is not None) is fits


def test_many_stars_stay_cheap() -> None:
    """A pattern of stars in a row does not try every split."""
    table = RouteTable([Route(models=("*" * 200 + "x",), upstreams=("a",))])
    assert table.find("y" * 256) is None


def test_a_request_without_a_model() -> None:
    """It goes where its path is listed, else to `*`, else to the first route."""
    assert TABLE.any_route() is REST
    assert TABLE.any_route("/v1/audio/speech") is REST
    assert RouteTable([LLAMA, GPT]).any_route() is LLAMA
    assert RouteTable([]).any_route() is None
    assert RouteTable([REST, Route(models=("w",), upstreams=("w",), paths=("/p",))]).any_route("/p") != REST


def test_names_and_globs_are_listed_once() -> None:
    """For the list of models."""
    assert TABLE.names() == ("llama-70b", "gpt-4", "llama-special")
    assert TABLE.globs() == ("llama-*", "gpt-?", "*")
