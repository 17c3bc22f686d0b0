"""Strict JSON: what passes means the same to everybody, what does not is refused in words, whatever the bytes."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamgate.relay.strict_json import MAX_DEPTH, BadJson, parse

NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=20)
KEYS = st.text(max_size=5)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)
PIECES = ["{", "}", "[", "]", ",", ":", '"', "a", '"a"', '"a":', "1", "1e999", "-", ".", "NaN", "null", "\\", "\\u0061"]


@given(OBJECTS, st.booleans())
def test_good_json_passes(value: dict[str, Any], ascii_only: bool) -> None:
    """Any object of plain values comes out as it went in, escaped or not."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    try:
        body = text.encode()
    except UnicodeEncodeError:  # half a surrogate pair has no bytes
        body = json.dumps(value).encode()
    assert parse(body) == value


@given(OBJECTS, st.lists(st.sampled_from(["[", "{"]), max_size=MAX_DEPTH - 1), KEYS, VALUES)
def test_a_key_twice_is_found(value: dict[str, Any], way: list[str], key: str, other: Any) -> None:
    """However deep, whatever the values, equal ones included."""
    pair = f"{json.dumps(key)}:{json.dumps(other)}"
    inner = "{" + pair + "," + json.dumps({f"{key}_": value})[1:-1] + "," + pair + "}"
    for bracket in way:
        inner = f"[{inner}]" if bracket == "[" else f'{{"x":{inner}}}'
    with pytest.raises(BadJson, match="appears twice"):
        parse(b'{"y":' + inner.encode("utf-8", "replace") + b"}")


@given(st.integers(1, 3 * MAX_DEPTH), st.sampled_from(["array", "object", "both"]), st.text("[]{}", max_size=200))
@example(MAX_DEPTH - 1, "array", "[" * 200)
@example(MAX_DEPTH, "array", "")
@example(MAX_DEPTH - 1, "object", "")
@example(MAX_DEPTH, "object", "")
def test_depth(levels: int, kind: str, noise: str) -> None:
    """64 levels pass, the object itself among them, and 65 do not; brackets in strings do not count."""
    value: Any = noise
    for level in range(levels):
        value = [value, noise] if kind == "array" or (kind == "both" and level % 2) else {"a": noise, "b": value}
    body = json.dumps({"x": value}).encode()
    if levels + 1 <= MAX_DEPTH:
        assert parse(body) == {"x": value}
        return
    with pytest.raises(BadJson, match="nested more than 64 levels"):
        parse(body)


@given(st.binary(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=20).map(lambda all_: "".join(all_).encode()))
@example(b"")
@example(b"\xff")
@example(b"[" * 100_000)
@example(b'{"a":' + b"9" * 4301 + b"}")
def test_any_bytes(body: bytes) -> None:
    """An object, or a sentence that says what is wrong: never another exception."""
    try:
        parsed = parse(body)
    except BadJson as said:
        words = str(said)
    else:
        assert isinstance(parsed, dict)
        assert parsed == json.loads(body)
        return
    assert words.endswith(".") and len(words.split()) > 2


@given(st.integers(1, 400), st.integers(-400, 400), st.booleans())
def test_numbers_are_finite(digits: int, exponent: int, negative: bool) -> None:
    """A number that a double cannot hold is refused, before it turns into Infinity for somebody else."""
    text = f"{'-' * negative}{'9' * digits}e{exponent}"
    body = f'{{"x":[{text}]}}'.encode()
    if math.isinf(float(text)):
        with pytest.raises(BadJson, match="out of range"):
            parse(body)
    else:
        assert parse(body) == {"x": [float(text)]}
