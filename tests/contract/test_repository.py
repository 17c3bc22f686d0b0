"""The repository itself: nothing of one machine in it, nothing of a size that cannot be read."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / "streamgate", ROOT / "benchmarks", *ROOT.glob("plugins/*/streamgate_*")]
PYTHON = sorted(path for folder in FOLDERS for path in folder.glob("**/*.py"))

BANNED_WORDS = ("manager", "handler", "helper", "util", "utils", "common", "data", "info", "process", "misc")
# Absolute paths of somebody's home or work folder, and addresses that pip or a proxy would need.
MACHINE = re.compile(
    r"(?<![\w.])/(?:home|root|work|Users|opt|private)/\w|--(?:extra-)?index[-]url|--find[-]links|/simpl[e]\b"
)


def committed() -> list[Path]:
    """Every file git has or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git repository")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""


def test_no_file_tells_whose_machine_it_came_from():
    """No home folders, no package index."""
    guilty = {}
    for path in committed():
        found = MACHINE.search(text_of(path)) if path != Path(__file__) else None
        if found:
            guilty[str(path.relative_to(ROOT))] = found[0]
    assert guilty == {}


def test_constraints_are_pins_and_nothing_else():
    """name==version, no address."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.!+]*", line), line


def test_files_and_functions_stay_readable():
    """A file has at most 300 lines, a function at most 60."""
    for path in PYTHON:
        source = path.read_text()
        assert source.count("\n") <= 300, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= 60, f"{path.name}: {node.name} has {length} lines"


def test_names_are_words_of_the_glossary():
    """No module, class or function is named for nothing, as managers and helpers are."""
    for path in PYTHON:
        nodes = ast.walk(ast.parse(path.read_text()))
        named = [node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
        for name in (path.stem, *named):
            words = re.findall(r"[a-z]+|[A-Z][a-z]+", name)
            banned = [word for word in words if word.lower() in BANNED_WORDS]
            assert not banned or name in ASYNCIO, f"{path.name}: {name}"


# asyncio.Protocol and logging name these callbacks.
ASYNCIO = {"data_received", "handle", "info"}


def test_no_test_sleeps():
    """Waiting is for an event with a deadline; only `until` in conftest.py polls. A turn of the loop is fine."""
    for path in sorted([*(ROOT / "tests").glob("**/*.py"), *ROOT.glob("plugins/*/tests/*.py")]):
        if path.name in ("conftest.py", Path(__file__).name) or "soak" in path.parts:
            continue
        assert not re.search(r"\b(?:time|asyncio|anyio|trio)\.sleep\((?!0\))", path.read_text()), path
