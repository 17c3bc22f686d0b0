"""The table at the head of each file names its tests, and only tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FILES = [path for path in sorted(Path(__file__).parent.glob("test_*.py")) if path.name != Path(__file__).name]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_complaint_is_in_the_table(path: Path) -> None:
    """Each name in the table begins the name of a test, and each test's name begins with one of the table."""
    text = path.read_text()
    table = text[text.index("# Each complaint") : text.index("from __future__")]
    listed = {name for line in re.findall(r"^#     (.+)$", table, re.MULTILINE) for name in re.findall(r"\w+", line)}
    tests = set(re.findall(r"^(?:async )?def test_(\w+)\(", text, re.MULTILINE))
    assert listed
    assert [name for name in listed if not any(name in test for test in tests)] == []
    assert [test for test in tests if not any(name in test for name in listed)] == []
