"""An expression is known to be decided exactly when nothing that may follow can change it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streamgate_redact.partial import Unsupported, expression


@pytest.mark.parametrize(
    ("pattern", "text", "reads"),
    [
        ("abc", "", True),
        ("abc", "ab", True),
        ("abc", "abc", False),
        ("abc", "ax", False),
        ("a+", "aa", True),
        ("a{2}", "aa", False),
        ("a{0}b", "a", False),
        ("a{1,3}+b", "aa", True),
        ("(?:ab){1,2}+c", "aba", True),
        ("(?:ab){1,2}c", "ababa", False),
        ("a|bc", "b", True),
        ("a|bc", "a", False),
        ("(?>a|ab)c", "ab", False),
        ("(?>a|ab)c", "a", True),
        ("a(?=b)", "a", True),
        ("a(?!b)", "a", True),
        ("a(?!b)", "ac", False),
        (r"a\b", "a", True),
        (r"a\b", "a ", False),
        (r"\bab", "a", True),
        ("(?<=x)a", "", False),
        ("^ab", "a", True),
        ("a(?!)", "a", False),
        ("(?i:A)b", "a", True),
        ("(?i)AB", "a", True),
        ("(?s:.)x", "\n", True),
        (".x", "\n", False),
        ("(?s)(?-s:.)x", "\n", False),
        ("[^a]x", "b", True),
        (r"[^a-c\d]x", "d", True),
        (r"[^a-c\d]x", "1", False),
        (r"[\w-]\W\s\D\S[^\W]", "-. x", True),
        ("(?x) a b  # spaces mean nothing", "a", True),
    ],
)
def test_it_reads_on_where_a_way_arrives_at_the_end(pattern: str, text: str, reads: bool):
    """`reading` matches where some way through the expression would read beyond the text."""
    assert (re.match(expression(pattern).reading, text) is not None) is reads


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("a$", "end of all text"),
        (r"a\Z", "end of all text"),
        (r"(a)\1", "refers back"),
        ("(a)?(?(1)b|c)", "refers back"),
        ("a(?=b*c)", "without a bound"),
    ],
)
def test_what_cannot_be_followed_is_refused(pattern: str, why: str):
    """With the reason."""
    with pytest.raises(Unsupported, match=why):
        expression(pattern)


def test_what_is_no_expression_is_said_as_python_says_it():
    """The words of `re`."""
    with pytest.raises(re.error, match="unterminated character set"):
        expression("[a")


@pytest.mark.parametrize(
    ("pattern", "shortest", "longest", "behind", "ahead"),
    [
        ("ab", 2, 2, 0, 1),
        ("a+", 1, None, 0, 1),
        (r"\b(?<!ab)c{2,3}(?=de|f)(?!ghi)", 2, 3, 3, 6),
        (r"(?:a\b|(?>b(?=c)))", 1, 1, 1, 2),
    ],
)
def test_how_far_it_looks(pattern: str, shortest: int, longest: int | None, behind: int, ahead: int):
    """Widths of matches, and of what is looked at on both sides of them."""
    found = expression(pattern)
    assert (found.shortest, found.longest, found.behind, found.ahead) == (shortest, longest, behind, ahead)


EDGES = st.sampled_from([r"\b", r"\B", "^", "(?=a)", "(?!b)", "(?<=a)", "(?<!b-)"])
ATOMS = st.sampled_from(["a", "b", "-", ".", "[ab]", "[^a]", r"\w"])
TIMES = st.sampled_from(["", "", "?", "*", "+", "{2}", "{1,2}", "+?", "{1,3}+", "??"])


def joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.tuples(st.sampled_from(["(?:", "(", "(?>", "(?i:"]), inner, TIMES)
    look = st.tuples(st.sampled_from(["(?=", "(?!"]), st.text("ab-.", min_size=1, max_size=3))
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda ways: f"(?:{'|'.join(ways)})"),
        group.map(lambda parts: f"{parts[0]}{parts[1]}){parts[2]}"),
        look.map(lambda parts: f"{parts[0]}{parts[1]})"),
    )


PATTERNS = st.recursive(st.one_of(st.tuples(ATOMS, TIMES).map("".join), EDGES), joined, max_leaves=6)
TEXTS = st.text("abA-", max_size=10)


@settings(max_examples=800, deadline=None)
@given(pattern=PATTERNS, text=TEXTS, more=TEXTS, at=st.integers(0, 10))
def test_what_is_decided_stays_decided(pattern: str, text: str, more: str, at: int):
    """Where `reading` does not match, the match is the same whatever follows; and `full` is the expression itself."""
    found, original, at = expression(pattern), re.compile(pattern), min(at, len(text))
    for read in (text, text + more):
        assert span(re.compile(found.full), read, at) == span(original, read, at)
    if re.compile(found.reading).match(text, at) is None:
        assert span(original, text, at) == span(original, text + more, at)


@settings(max_examples=500, deadline=None)
@given(pattern=PATTERNS, text=TEXTS.filter(len), at=st.integers(0, 10))
def test_no_match_begins_where_its_first_character_is_ruled_out(pattern: str, text: str, at: int):
    """`first` skips only places where no match begins, whatever follows; of an expression that reads at all."""
    found, at = expression(pattern), min(at, len(text) - 1)
    match = re.compile(pattern).match(text, at)
    assert match is None or found.shortest == 0 or re.compile(found.first).match(text, at)


def span(pattern: re.Pattern[str], text: str, at: int) -> tuple[int, int] | None:
    found = pattern.match(text, at)
    return None if found is None else found.span()
