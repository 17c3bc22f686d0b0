"""docs/plugins.md is what the code promises: every hook with its signature, every number, code that runs."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamgate.hooks
import streamgate.testing
from streamgate.hooks import HOOKS, Plugin, breaker, chain, figures, member, watchdog
from streamgate.relay import hooked, mailbox

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text()
WORDS = re.sub(r"\s+", " ", PAGE)
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
BLOCK = re.compile(r"<!-- runs as (?P<name>\w+) -->\n```python\n(?P<code>.*?)```\n", re.DOTALL)
BLOCKS = {block["name"]: block["code"] for block in BLOCK.finditer(PAGE)}


def written(hook: str) -> str:
    """The code below the hook's heading."""
    found = re.search(rf"^### `{hook}`\n\n```python\n(.*?)```\n", PAGE, re.MULTILINE | re.DOTALL)
    assert found, hook
    return found[1]


def entry_points(folder: Path) -> dict[str, str]:
    """Of a distribution, by name."""
    section = (folder / "pyproject.toml").read_text().partition('[project.entry-points."streamgate.plugins"]\n')[2]
    return dict(re.findall(r'^(\w+) = "([\w.]+:\w+)"$', section.partition("\n[")[0], re.MULTILINE))


ENTRIES = {name: use for folder in PLUGINS for name, use in entry_points(folder).items()}


def hooks_in(folder: Path) -> set[str]:
    """Hooks that the distribution's classes define."""
    trees = [ast.parse(path.read_text()) for path in folder.glob("streamgate_*/**/*.py")]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    defined = [node for each in classes if is_plugin(each) for node in each.body]
    return {node.name for node in defined if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)} & set(HOOKS)


def is_plugin(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Plugin" for base in node.bases)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_its_exact_signature(hook: str):
    """Names, annotations and what is given back, as `inspect` reads them off the class."""
    [said] = ast.parse(written(hook)).body
    assert isinstance(said, ast.FunctionDef) and said.name == hook and said.returns is not None
    real = inspect.signature(getattr(Plugin, hook))
    parameters = [(arg.arg, ast.unparse(arg.annotation) if arg.annotation else None) for arg in said.args.args]
    named = {name: None if each.annotation is each.empty else each.annotation for name, each in real.parameters.items()}
    assert parameters == list(named.items())
    assert ast.unparse(said.returns) == real.return_annotation


def test_no_other_hook_is_promised():
    """The headings of the section are the hooks, in the order of a stream's life but for the two ends."""
    section = PAGE.partition("\n## Hooks\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### `(\w+)`$", section, re.MULTILINE) == list(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_used_by_a_first_party_plugin(hook: str):
    """A promise that nobody of ours has needed is not kept for long."""
    assert [folder.name for folder in PLUGINS if hook in hooks_in(folder)]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test(hook: str):
    """Some plugin in the tests of the hooks defines it."""
    tests = [
        path.read_text()
        for folder in ("unit/hooks", "unit/relay", "unit/testing", "wire")
        for path in (ROOT / "tests" / folder).glob("*.py")
    ]
    assert any(re.search(rf"def {hook}\(self\b", text) for text in tests)


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_every_first_party_plugin_has_its_row(folder: Path):
    """With a link to its page, for each entry point; its name is the folder's."""
    names = entry_points(folder)
    assert folder.name in names
    for name in names:
        assert f"| [`{name}`](../plugins/{folder.name}/README.md) |" in PAGE
    assert (folder / "README.md").exists()
    assert f'name = "streamgate-{folder.name.replace("_", "-")}"' in (folder / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_the_row_of_a_plugin_names_its_hooks(name: str, monkeypatch: pytest.MonkeyPatch):
    """All of them, in the order of a stream's life."""
    module, _, kind = ENTRIES[name].partition(":")
    monkeypatch.syspath_prepend(str(ROOT / "plugins" / module.removeprefix("streamgate_").partition(".")[0]))
    hooks = streamgate.hooks.hooks_of(getattr(importlib.import_module(module), kind))
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| [`{name}`]")]
    assert re.findall(r"`(\w+)`", row.rpartition(" | ")[2]) == list(hooks)


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_plugins_import_only_what_is_public(folder: Path):
    """Of streamgate: hooks, sse and testing."""
    for path in folder.glob("streamgate_*/**/*.py"):
        for name in imported(ast.parse(path.read_text())):
            assert not re.match(r"streamgate(\.|$)", name) or name in ("streamgate.hooks", "streamgate.sse"), path


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)


@pytest.mark.parametrize(
    "said",
    [
        f"After {breaker.FAILURES} failures in a row the plugin's breaker opens: for {breaker.OPEN_FOR:.0f} s",
        f"after {breaker.STALLS} stalls in {breaker.STALLS_WITHIN / 60:.0f} minutes",
        f"keeps the event loop for {member.STALL * 1000:.0f} ms or more",
        f"running for more than {watchdog.STUCK:.0f} s is named in the log by a thread",
        f"and after {watchdog.LOCKED:.0f} s the stacks of all threads",
        f"in worker threads, {member.THREADS} at most",
        f"Before the first request, {chain.STARTUP:.0f} s at most",
        f"After the last stream, {chain.SHUTDOWN:.0f} s at most",
        f"After {figures.LABEL_SETS} different sets of label values the rest is counted under `{figures.OTHER}`",
        f"a mailbox of {mailbox.FULL // 1024} KiB",
        f"hooks took {hooked.FAIR * 1000:.0f} ms in one turn",
        f"up to {hooked.WHOLE // 2**20} MiB: longer ones",
        f"Version {streamgate.hooks.API} of the promise",
    ],
)
def test_every_number_is_the_codes(said: str):
    """What the page says is what the constants are."""
    assert said in WORDS


def test_everything_public_is_named():
    """Of the harness, what a test is written with."""
    section = PAGE.partition("\n## A plugin in 30 lines\n")[2].partition("\n## ")[0]
    for name in streamgate.testing.__all__:
        assert name == "Failure" or name in section, name


def test_the_plugin_has_about_30_lines():
    """As its heading says."""
    assert BLOCKS["polite"].count("\n") <= 33


@pytest.mark.anyio
async def test_the_plugin_and_its_test_run(monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str):
    """As they are printed."""
    for name, code in BLOCKS.items():
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(code, f"docs/plugins.md: {name}", "exec"), module.__dict__)
    tests = [each for name, each in vars(sys.modules["test_polite"]).items() if name.startswith("test_")]
    assert tests
    for test in tests:
        await test()
