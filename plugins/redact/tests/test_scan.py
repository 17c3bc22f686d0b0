"""However a text is cut, the same of it is hidden, nothing of that leaves, and no more is held than must be."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from streamgate_redact.patterns import BUILT_IN, DEFAULT, Pattern, Rule
from streamgate_redact.scan import SLICE, Place, Scanner
from streamgate_redact.seal import Hashed

RULES = [Rule(pattern) for pattern in BUILT_IN.values()]
ALL = Scanner(RULES)
SEALED = Scanner(RULES, sealed=True)
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA1234567890abcd\nabc=\n-----END RSA PRIVATE KEY-----\n"
SECRETS = [
    "john.doe+x@mail.example.co.uk", "a@b.com", "4111 1111 1111 1111", "4111111111111111", "5555-5555-5555-4444",
    "sk-proj-abcDEF0123456789abcdefXYZ_-z", "ghp_abcdefghij0123456789abcdefghij0123", "AKIAIOSFODNN7EXAMPLE",
    "xoxb-123456789012-abcdef", "Bearer abcDEF123.abc-12345678", "+41 44 668 18 00", "(212) 555-0123",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", PEM, PEM.replace("\n", "\\n"),
]  # fmt: skip
JOINTS = st.sampled_from(
    [" ", "", ".", ", ", "@", "-", "_", "1", "0.", "x", "é", "我", "\U0001f600", "\ud83d", "\n", "\\n"]
)
CUT = st.tuples(st.sampled_from(SECRETS), st.integers(0, 60), st.integers(20, 120)).map(
    lambda cut: cut[0][cut[1] : cut[2]]
)
PIECES = st.one_of(st.sampled_from(SECRETS), CUT, JOINTS, JOINTS, st.text("abz09@.- +_/=", max_size=8))
TEXTS = st.lists(PIECES, max_size=12).map("".join)


def label(rule: Rule) -> str:
    return f"[{rule.name}]"


def seal(rule: Rule) -> Hashed:
    return Hashed(rule.name, b"key")


def fed(scanner: Scanner, place: Place, deltas: list[str]) -> str:
    """What comes out, as the gateway would do it: a text that ends while nothing is held gets no last word."""
    out, kept = "", ""
    for position, delta in enumerate([*deltas, ""]):
        pending, final = kept + delta, position == len(deltas)
        if pending:
            released, keep = scanner.feed(place, pending, final=final)
            assert keep <= min(scanner.window, len(pending)) and not (final and keep)
            out, kept = out + released, pending[len(pending) - keep :]
    return out


def cut(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(edges)]


@settings(max_examples=500, deadline=None)
@given(text=TEXTS, places=st.lists(st.integers(0, 2000), max_size=30))
def test_any_split_hides_the_same(text: str, places: list[int]):
    """Deltas of any lengths give what the whole text gives, with labels and with seals."""
    assert fed(ALL, Place(label), cut(text, places)) == ALL.whole(text, label)
    assert fed(SEALED, Place(seal), cut(text, places)) == SEALED.whole(text, seal)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_one_character_at_a_time_hides_the_same(text: str):
    """The split that a tokenizer would have to be worst for."""
    assert fed(ALL, Place(label), list(text)) == ALL.whole(text, label)


@settings(max_examples=500, deadline=None)
@given(text=TEXTS)
def test_nothing_that_is_hidden_leaves(text: str):
    """There is nothing to hide in what comes out."""
    out = ALL.whole(text, label)
    assert ALL.whole(out, label) == out


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(st.characters(exclude_characters="@"), max_size=60), places=st.lists(st.integers(0, 60), max_size=9)
)
def test_other_text_is_left_as_it_is(text: str, places: list[int]):
    """Any characters, lone surrogates among them; what cannot be an address, a number or a key passes."""
    assume(not re.search(r"\d|-----|eyJ|[Bb]earer|[a-z]{2,4}[-_]", text))
    assert fed(ALL, Place(label), cut(text, places)) == text


@pytest.mark.parametrize(
    ("deltas", "released"),
    [
        (["Hello", " wor", "ld", ", how"], ["", "Hello ", "", "world, "]),
        (["at 4", "111", " apples"], ["at ", "", "4111 "]),
        (["key sk-", "learn is", " fine"], ["key ", "sk-learn ", "is "]),
        (["我们", "在这里"], ["我们", "在这里"]),
    ],
)
def test_only_what_may_become_a_match_is_held(deltas: list[str], released: list[str]):
    """A word may be the beginning of an address, digits that of a number; where it cannot be, the text flows."""
    scanner = Scanner([Rule(BUILT_IN[name]) for name in DEFAULT])
    place, kept, out = Place(label), "", []
    for delta in deltas:
        pending = kept + delta
        text, keep = scanner.feed(place, pending, final=False)
        kept = pending[len(pending) - keep :]
        out.append(text)
    assert out == released


def test_a_long_key_needs_no_long_window():
    """The label is out when the head has been seen; the tail is dropped as it comes, whatever its length."""
    scanner = Scanner([Rule(BUILT_IN["key"])])
    place = Place(label)
    assert scanner.feed(place, "sk-A0000000000000000000", final=False) == ("[key]", 0)
    assert scanner.feed(place, "z" * 100_000, final=False) == ("", 0)
    assert scanner.feed(place, "z! bye", final=False) == ("! bye", 0)
    assert scanner.window < 64


def test_matches_of_more_than_the_longest_are_none_for_every_split():
    """`longest` is part of the pattern."""
    scanner = Scanner([Rule(Pattern("run", "<a+>", longest=6))])
    for text, out in (("<aaaa>", "[run]"), ("<aaaaa>", "<aaaaa>"), ("<aaaaa<aa>", "<aaaaa[run]")):
        for size in range(1, len(text) + 1):
            deltas = [text[at : at + size] for at in range(0, len(text), size)]
            assert fed(scanner, Place(label), deltas) == out


def test_a_custom_pattern_is_followed_like_any():
    """With what it looks at around it, and where two rules meet the first one wins."""
    scanner = Scanner(
        [Rule(Pattern("id", r"(?<=id: )\d{2,3}\b", longest=3)), Rule(Pattern("year", r"\d{4}", longest=4))]
    )
    text = "id: 123, id: 1234, 12 id: 77"
    for size in range(1, len(text) + 1):
        deltas = [text[at : at + size] for at in range(0, len(text), size)]
        assert fed(scanner, Place(label), deltas) == "id: [id], id: [year], 12 id: [id]"


PATTERNS = st.sampled_from(
    [
        "a+b",
        "a+",
        "(?:ab|a)c?",
        "a.{0,3}b",
        r"\ba{1,3}\b",
        "(?<!b)a+(?!c)",
        "a(?=bc)",
        "a+?b?",
        "(?>ab|a)b",
        "[^c]{2}c",
        "a{2}",
    ]
)


@settings(max_examples=600, deadline=None)
@given(
    patterns=st.lists(PATTERNS, min_size=1, max_size=3),
    longest=st.integers(3, 6),
    text=st.text("abc ", max_size=24),
    places=st.lists(st.integers(0, 24), max_size=10),
)
def test_any_split_hides_the_same_by_any_patterns(patterns: list[str], longest: int, text: str, places: list[int]):
    """The same for expressions that touch, overlap and look around."""
    scanner = Scanner([Rule(Pattern(f"p{place}", each, longest=longest)) for place, each in enumerate(patterns)])
    assert fed(scanner, Place(label), cut(text, places)) == scanner.whole(text, label)


def test_a_long_text_is_read_in_slices():
    """What lies across two slices is found."""
    text = "x" * (SLICE - 3) + " a@example.com " + "y " * SLICE
    assert ALL.whole(text, label) == text.replace("a@example.com", "[email]")


def test_no_rules_hide_nothing():
    """And hold nothing."""
    assert Scanner([]).feed(Place(label), "a@b.com", final=False) == ("a@b.com", 0)
