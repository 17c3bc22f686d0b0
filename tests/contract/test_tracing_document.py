"""docs/tracing.md names every span attribute, and none that does not exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from streamgate.observe import semconv

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tracing.md").read_text()


def test_a_gateway_without_a_collector_does_not_load_the_sdk():
    """It takes 0.1 s and 10 MB to import."""
    code = (
        "from streamgate.observe.choice import tracing_of; import streamgate.server, structlog, sys;"
        "tracing_of({}, sample=1.0, slow=1.0, broken=True, trust_incoming=False, semconv='1.41',"
        " log=structlog.get_logger()); sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def section(start: str, end: str) -> str:
    return PAGE.partition(start)[2].partition(end)[0]


@pytest.mark.parametrize(
    ("start", "end", "names"),
    [
        ("### SERVER", "### CLIENT", semconv.SERVER_SPAN),
        ("### CLIENT `{operation}", "Events, at most", semconv.MODEL_SPAN),
        ("| attribute of an event", "### CLIENT `POST`", semconv.EVENT_ATTRIBUTES),
        ("### CLIENT `POST`", "Never in a span", semconv.TRY_SPAN),
    ],
)
def test_every_attribute_has_its_row(start, end, names):
    """The table of each span is the code's."""
    rows = re.findall(r"^\| `([^`]+)` \|", section(start, end), re.MULTILINE)
    assert sorted(rows) == sorted(names)


@pytest.mark.parametrize("word", [*semconv.KEPT, *semconv.EVENTS, semconv.CLIENT_DISCONNECT, *semconv.CONVENTIONS])
def test_every_value_is_explained(word):
    """Whoever finds the word in a trace finds it here."""
    assert re.search(rf"`{word}`|version {re.escape(word)}|`semconv: {word}`", PAGE)


def test_every_name_is_in_one_module():
    """No other file of the package spells an attribute out."""
    package = Path(semconv.__file__).parents[1]
    ours = {*semconv.SERVER_SPAN, *semconv.MODEL_SPAN, *semconv.TRY_SPAN, *semconv.EVENT_ATTRIBUTES}
    for path in package.rglob("*.py"):
        if path.name in ("semconv.py", "sse_spans.py"):  # that one is the library's own
            continue
        found = [name for name in ours if f'"{name}"' in path.read_text()]
        assert not found, f"{path}: {found}"
