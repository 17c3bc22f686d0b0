"""docs/logging.md names every line the gateway writes, and every field of the lines that are a promise."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from streamgate.errors import Reason, Refusal
from streamgate.observe import lines
from streamgate.record import Outcome, StreamRecord

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "logging.md").read_text()
LEVELS = {"debug", "info", "warning", "error", "critical"}


def section(title: str) -> set[str]:
    """The names in the first column of the table under a heading."""
    text = PAGE.split(f"## {title}", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}


def written() -> set[str]:
    """Every event that a call of a structlog logger names, in the whole package."""
    found = set()
    for path in (ROOT / "streamgate").glob("**/*.py"):
        if "demo" in path.parts or "sse" in path.parts:  # a command of its own; a library with Python's logging
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                owner = ast.unparse(node.func.value)
                first = node.args[0] if node.args else None
                if "log" in owner and isinstance(first, ast.Constant) and re.fullmatch(r"[a-z_]+", str(first.value)):
                    found.add(str(first.value))
    return found


def test_the_streams_line_is_documented_whole():
    """No field without its row, no row without its field."""
    fields = lines.finished(StreamRecord(0.0), Outcome.COMPLETED, None)
    assert section("`stream_finished`") == set(fields)


def test_the_refusals_line_is_documented_whole():
    """The same for a request that never became a stream."""
    refusal = Refusal(Reason.BAD_REQUEST, 400, "no")
    assert section("`request_rejected`") == set(lines.rejected(StreamRecord(0.0), refusal))


def test_every_other_line_has_its_row():
    """Whoever adds a line says what it is for."""
    promised = section("The rest") | {"stream_finished", "request_rejected"}
    assert written() - promised == set()


@pytest.mark.parametrize("name", ["timestamp", "level", "event", "service", "version", "instance"])
def test_standing_fields(name: str):
    """What every line says is on the page."""
    assert name in section("Every line")
