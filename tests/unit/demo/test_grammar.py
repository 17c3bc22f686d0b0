"""The demo upstream's model names."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgate.demo import grammar
from streamgate.demo.grammar import EXCLUSIVE, OPTIONS, Group, UnknownModel, parse, table
from streamgate.demo.moves import ANSWERS
from streamgate.demo.turns import TURNS


def test_a_plain_name_has_the_default_pace() -> None:
    """`demo` alone is 16 tokens, 20 ms apart, and nothing odd."""
    script = parse("demo")
    assert (script.tokens, script.gap, script.delay, script.head_delay, script.padding) == (16, 0.02, 0.0, 0.0, 0)
    assert script.options == {} and script.chosen(Group.TURN) == ("", 0)


def test_options_are_joined_by_minus_or_plus() -> None:
    """Both signs separate options; numbers are where they belong, milliseconds become seconds."""
    script = parse("demo-n5+t50-d100+hb250-p7-crlf-stall3+redirect+status8".replace("+status8", ""))
    assert (script.tokens, script.gap, script.delay, script.head_delay, script.padding) == (5, 0.05, 0.1, 0.25, 7)
    assert script.options == {"crlf": 0, "stall": 3, "redirect": 302}
    assert script.chosen(Group.TURN) == ("stall", 3)
    assert script.chosen(Group.ANSWER) == ("redirect", 302)


def test_words_may_hold_digits() -> None:
    """`utf8` and `http10` are words, not words with numbers."""
    assert parse("demo-utf8-http10").options == {"utf8": 0, "http10": 0}


def test_the_first_k_requests_fail() -> None:
    """What follows `first<k>:` is for the first k requests; what stands before it counts for all."""
    script = parse("demo-n5-t0-first2:status503-r3")
    assert (script.tokens, script.options, script.first) == (5, {}, 2)
    assert script.faults is not None
    assert (script.faults.tokens, script.faults.options) == (5, {"status": 503, "r": 3})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("gpt-4", "does not exist"),
        ("", "does not exist"),
        ("demox", "does not exist"),
        ("demo-", "no option ``"),
        ("demo-what", "no option `what`"),
        ("demo-n", "needs a number"),
        ("demo-stall", "needs a number"),
        ("demo-silent3", "takes no number"),
        ("demo-n1-n2", "twice"),
        ("demo-stall1-reset2", "exclude"),
        ("demo-silent-status500", "exclude"),
        ("demo-nodone-nofinish", "exclude"),
        ("demo-silent-first1:status500", "exclude"),
        ("demo-first1:", "no option"),
        ("demo-first1:what", "no option `what`"),
    ],
)
def test_a_wrong_name_says_what_is_wrong(name: str, wrong: str) -> None:
    """A name outside the grammar is an unknown model."""
    with pytest.raises(UnknownModel, match=wrong):
        parse(name)


def test_every_fault_can_be_played() -> None:
    """Each option of the exclusive groups has something that plays it."""
    assert set(ANSWERS) == {word for word, option in OPTIONS.items() if option.group is Group.ANSWER}
    assert set(TURNS) == {word for word, option in OPTIONS.items() if option.group is Group.TURN}
    assert {Group.ANSWER, Group.TURN, Group.END} == EXCLUSIVE


def test_the_document_holds_every_option() -> None:
    """docs/demo-upstream.md has the table that `python -m streamgate.demo.grammar` prints."""
    document = (Path(grammar.__file__).parents[2] / "docs" / "demo-upstream.md").read_text()
    for line in table().splitlines():
        assert line.removeprefix("#") in document
