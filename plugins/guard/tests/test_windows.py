"""Windows are the same for every split, and hold all of the text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamgate_guard.windows import Windows


@pytest.mark.parametrize(
    ("step", "overlap", "text", "windows"),
    [
        (3, 2, "abcdefgh", ["abc", "bcdef", "efgh"]),
        (3, 0, "abcdef", ["abc", "def"]),
        (4, 2, "ab", ["ab"]),
        (4, 4, "abcdefghi", ["abcd", "abcdefgh", "efghi"]),
        (4, 2, "", []),
    ],
)
def test_windows_overlap(step: int, overlap: int, text: str, windows: list[str]):
    """`step` new characters each, after those that were there before."""
    assert Windows(step, overlap).cut(text, final=True) == (windows, 0)


@given(
    text=st.text(max_size=40), places=st.lists(st.integers(0, 40), max_size=8),
    step=st.integers(1, 9), overlap=st.integers(0, 9),
)  # fmt: skip
def test_any_split_gives_the_same_windows(text: str, places: list[int], step: int, overlap: int):
    """What is left over comes again; never a whole step."""
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    windows, cut, kept = Windows(step, overlap), [], ""
    for start, end in pairwise(edges):
        found, left = windows.cut(kept + text[start:end], final=False)
        assert left < step
        kept = (kept + text[start:end])[-left:] if left else ""
        cut += found
    assert [*cut, *windows.cut(kept, final=True)[0]] == Windows(step, overlap).cut(text, final=True)[0]
