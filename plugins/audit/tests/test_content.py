"""What is kept of requests and answers."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamgate_audit.content import Hashed, Plain, Said, hashed_request, plain_request

from streamgate.hooks import Text

SALT = b"0123456789abcdef"
# Halves of characters among them, as JSON's escapes may have them.
TEXTS = st.text(st.characters(categories=None) | st.sampled_from("\ud83d\ude00é\n"), max_size=20)


@given(texts=st.lists(TEXTS), limit=st.integers(1, 30))
def test_plain_text_is_the_beginning_whatever_the_split(texts: list[str], limit: int):
    """And says when there was more."""
    piece = Plain(limit)
    for text in texts:
        piece.add(text)
    whole = "".join(texts)
    facts = piece.facts()
    assert (facts["text"], facts["chars"]) == (whole[:limit], len(whole))
    assert facts.get("cut", False) == (len(whole) > limit)


@given(texts=st.lists(TEXTS))
def test_a_hash_is_the_same_for_every_split_even_within_a_character(texts: list[str]):
    """HMAC-SHA-256 of the whole text: who has the salt and the text can tell."""
    split, whole = Hashed(SALT), Hashed(SALT)
    for text in texts:
        split.add(text)
    whole.add("".join(texts))
    assert split.facts() == whole.facts()


def test_a_hash_is_that_of_the_text_in_utf_8():
    """Checked by other means."""
    piece = Hashed(SALT)
    for text in ("Grüße \ud83d", "\ude00"):
        piece.add(text)
    expected = hmac.digest(SALT, "Grüße 😀".encode(), "sha256").hex()
    assert piece.facts() == {"hmac_sha256": expected, "chars": 8}


def test_an_answer_is_kept_by_choice_and_kind_and_not_without_bound():
    """128 choices with text are kept; of more only how many texts came."""
    said = Said(lambda: Plain(10))
    said.add(Text(0, "content", "", False))
    said.add(Text(0, "content", "a", False))
    said.add(Text(0, "reasoning", "b", False))
    said.add(Text(0, "content", "c", True))
    assert said.facts() == [
        {"choice": 0, "kind": "content", "text": "ac", "chars": 2},
        {"choice": 0, "kind": "reasoning", "text": "b", "chars": 1},
    ]
    for choice in range(200):
        said.add(Text(choice, "content", "x", True))
    assert len(said.facts()) == 129 and said.facts()[-1] == {"more": 73}


@pytest.mark.parametrize(
    ("body", "limit", "text", "cut"),
    [
        (b'{"a":1}', 10, '{"a":1}', False),
        (b'{"a":1}', 7, '{"a":1}', False),
        (b'{"a":1}', 6, '{"a":1', True),
        ("äöü".encode(), 2, "äö", True),
        ("😀😀".encode(), 2, "😀😀", False),
        (b"x" * 1000, 5, "xxxxx", True),
    ],
)
def test_a_request_is_kept_as_its_body_s_text_cut(body: bytes, limit: int, text: str, cut: bool):
    """Characters are never cut in two."""
    facts = plain_request(body, limit)
    assert (facts["text"], facts["bytes"], facts.get("cut", False)) == (text, len(body), cut)


def test_a_request_s_hash_is_that_of_its_bytes():
    """Its length beside it."""
    assert hashed_request(b"{}", SALT) == {"hmac_sha256": hmac.digest(SALT, b"{}", "sha256").hex(), "bytes": 2}
