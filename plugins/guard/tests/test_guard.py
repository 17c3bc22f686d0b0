"""A stream is stopped by a pattern, however it is cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streamgate_guard import Guard, Rule
from streamgate_guard.by_pattern import first_hit, sought

from streamgate.testing import Delta, PluginHarness

pytestmark = pytest.mark.anyio

BOMB = {"patterns": [{"name": "bomb", "regex": r"(?i:\bbomb\b)", "longest": 4}], "message": "Stopped."}


async def test_nothing_of_a_match_leaves_while_it_blocks():
    """The text before it, an error event, and nothing else; the outcome says who."""
    async with PluginHarness(Guard, BOMB) as gateway:
        received = await gateway.stream(["this is a ", "BO", "MB", " you know"])
        assert received.text == "this is a "
        assert (received.outcome, received.code, received.message) == ("plugin_abort", "guard", "Stopped.")
        assert b"BO" not in received.body
        assert gateway.metric("stopped_total", pattern="bomb") == 1
        [(level, event, values)] = gateway.log.lines
        assert (level, event, values["pattern"]) == ("info", "guard_stopped", "bomb")


async def test_a_word_that_goes_on_is_another_word():
    """A match at the end of what is known is not certain; text that has none arrives whole."""
    async with PluginHarness(Guard, BOMB) as gateway:
        received = await gateway.stream(["a bomb", "astic bom", "b", "e ends"])
        assert received.text == "a bombastic bombe ends"
        assert received.outcome == "completed"


@pytest.mark.parametrize("mode", ["block", "watch"])
async def test_the_last_word_counts(mode: str):
    """What ends with the text is a match."""
    async with PluginHarness(Guard, BOMB | {"mode": mode}) as gateway:
        assert (await gateway.stream(["a bo", "mb"])).outcome == "plugin_abort"
        assert (await gateway.stream(["a bo", "m"])).text == "a bom"
        assert (await gateway.answer("a bomb")).code == "guard"


async def test_watching_holds_nothing():
    """The text flows as it comes, and stops when a match is certain."""
    async with PluginHarness(Guard, BOMB | {"mode": "watch"}) as gateway:
        received = await gateway.stream(["this is a ", "bo", "mb", " you know", " more"])
        assert received.text == "this is a bom"
        assert received.outcome == "plugin_abort"


async def test_choices_and_kinds_are_texts_of_their_own():
    """Halves in different ones are no match, and a kind that is not asked for is left alone."""
    async with PluginHarness(Guard, BOMB | {"kinds": ["content"]}) as gateway:
        received = await gateway.stream(
            [Delta("bo", 0), Delta("mb", 1), Delta("bomb ", 0, "reasoning"), Delta(" x", 0)]
        )
        assert received.outcome == "completed"
        assert received.texts() == {0: "bo x", 1: "mb"}


@pytest.mark.parametrize(
    ("regex", "longest", "text", "found"),
    [
        ("a+b", 3, "aaaab", True),
        ("a+b", 3, "a-aacb", False),
        ("x.*y", 4, "x12345y", False),
        ("x.*?y|x.*y", 4, "x2y45y", True),
        ("x.*y", 4, "x2y45y", True),
        ("(?=a)", 4, "aaa", False),
        ("^b", 1, "ab", False),
    ],
)
def test_a_match_has_at_most_the_longest(regex: str, longest: int, text: str, found: bool):
    """Within that many characters, whatever the expression would take beyond."""
    rules = [sought(Rule(name="x", regex=regex, longest=longest))]
    assert (first_hit(rules, text, 0, final=True) is not None) is found


@settings(max_examples=300, deadline=None)
@given(text=st.text("ab cX", max_size=30), places=st.lists(st.integers(0, 30), max_size=12), watch=st.booleans())
async def test_any_split_stops_the_same_streams(text: str, places: list[int], watch: bool):
    """And what was passed on before is a beginning of the text; while it blocks, one without a match."""
    rules = [
        {"name": "one", "regex": r"\bab{1,3}\b", "longest": 4},
        {"name": "two", "regex": "(?<=c)X+a", "longest": 5},
    ]
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    deltas = [text[start:end] for start, end in pairwise(edges)]
    given: dict[str, Any] = {"patterns": rules, "mode": "watch" if watch else "block"}
    expected = first_hit([sought(Rule(**rule)) for rule in rules], text, 0, final=True)
    async with PluginHarness(Guard, given) as gateway:
        received = await gateway.stream(deltas)
        assert received.outcome == ("completed" if expected is None else "plugin_abort")
        assert text.startswith(received.text)
        assert expected is not None or received.text == text
        assert gateway.failures == []
        if not watch:
            assert first_hit([sought(Rule(**rule)) for rule in rules], received.text + " ", 0, final=False) is None
