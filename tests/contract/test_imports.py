"""Who may import whom, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "streamgate"
HEAVY = ("uvicorn", "prometheus_client", "opentelemetry", "pydantic", "httptools", "structlog", "yaml", "click")


def loaded_by(statement: str) -> set[str]:
    """The modules a fresh interpreter has after a statement."""
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_import_rules_are_kept():
    """The layers and the bans of pyproject.toml, as `make check` sees them."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_sse_library_loads_nothing_it_does_not_need():
    """`import streamgate.sse` is for any Starlette application."""
    loaded = loaded_by("import streamgate.sse")
    assert not loaded & set(HEAVY)
    assert not [name for name in loaded if name.startswith("streamgate.") and not name.startswith("streamgate.sse")]


def test_counting_streams_needs_no_metrics_library():
    """Only rendering does."""
    assert "prometheus_client" not in loaded_by("import streamgate.observe")


def test_the_edge_imports_only_sse_drain_and_errors():
    """It must not know streams or models."""
    allowed = ("streamgate.edge", "streamgate.sse", "streamgate.drain", "streamgate.errors")
    for path in (PACKAGE / "edge").glob("**/*.py"):
        ours = [name for name in imported(path) if name.startswith("streamgate.")]
        assert [name for name in ours if not name.startswith(allowed)] == [], path.name


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_every_package_says_what_it_owns(path):
    """A docstring of at most ten lines."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert len(docstring.splitlines()) <= 10


def imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names
