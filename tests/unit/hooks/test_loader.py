"""From the configuration to plugins: every mistake at once, each with its key."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
from pydantic import BaseModel, Field

from streamgate.hooks import Plugin, Request, ServerSentEvent, Stream, Text
from streamgate.hooks.facade import Gateway
from streamgate.hooks.finding import found, installed
from streamgate.hooks.loader import PluginConfig, PluginError, check, load
from streamgate.testing.harness import Books

HERE = "plugins_for_tests"


class Shout(Plugin):
    """Says it louder.

    At any length."""

    class Settings(BaseModel):
        """Settings."""

        times: int = Field(default=1, description="How often.")
        word: str

    def on_text(self, text: Text, stream: Stream) -> str:
        return text.pending * self.settings.times


class Quiet(Plugin):
    def on_request(self, request: Request, stream: Stream) -> None: ...


class Older(Quiet):
    api = 0


class Wide(Quiet):
    window = -1


class Broken(Quiet):
    def __init__(self, settings, gateway):
        raise RuntimeError("no such file")


class Slow(Plugin):
    async def on_event(self, event: ServerSentEvent, stream: Stream) -> ServerSentEvent:
        return event


@pytest.fixture(autouse=True)
def module(monkeypatch):
    there = ModuleType(HERE)
    for kind in (Shout, Quiet, Older, Wide, Broken, Slow, Plugin, Gateway):
        setattr(there, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, HERE, there)


def points() -> dict[str, EntryPoint]:
    targets = {"shout": "Shout", "older": "Older", "gone": "Gone"}
    return {use: EntryPoint(use, f"{HERE}:{name}", "streamgate.plugins") for use, name in targets.items()}


def problems(*configs: PluginConfig) -> list[tuple[str, str]]:
    with pytest.raises(PluginError) as caught:
        load(configs, Gateway, Books(), points)
    return [(".".join(map(str, path)), expected) for path, expected in caught.value.problems]


def test_plugins_are_made_in_order():
    """By entry point or by class; the name is the configured one, the entry point's or the class's."""
    configs = [
        PluginConfig(use="shout", settings={"word": "x", "times": 2}, fail="closed", budget=2.0, routes=("a-*",)),
        PluginConfig(use=f"{HERE}:Quiet"),
        PluginConfig(use=f"{HERE}:Quiet", name="other"),
    ]
    plugins = load(configs, Gateway, Books(), points)
    assert [member.name for member in plugins.members] == ["shout", "quiet", "other"]
    first, second, _ = plugins.members
    assert (first.fail, first.budget, first.restricted, first.plugin.settings.times) == ("closed", 2.0, True, 2)
    assert first.serves("a-1") and not first.serves("b")
    assert second.plugin.settings is None and second.plugin.gateway.name == "quiet"
    assert plugins and not load([], Gateway, Books(), points)


def test_every_mistake_is_told_with_its_key():
    """Settings with the keys below `settings`, and none with a value in it."""
    got = problems(
        PluginConfig(use="nowhere"),
        PluginConfig(use="shout", settings={"times": "secret"}),
        PluginConfig(use=f"{HERE}:Quiet", settings={"a": 1}, name="B-d", fail="ajar", budget=0.0),  # type: ignore[arg-type]
    )
    assert [key for key, _ in got] == [
        "0.use", "1.settings.times", "1.settings.word", "2.name", "2.fail", "2.budget", "2.settings",
    ]  # fmt: skip
    assert "installed: gone, older, shout" in got[0][1]
    assert "secret" not in str(got)


def test_the_error_reads_as_a_path():
    """For an operator."""
    with pytest.raises(PluginError, match=r"plugins\[0\]\.settings\.word: Field required"):
        check([PluginConfig(use="shout")], points)


@pytest.mark.parametrize(
    "use, expected",
    [
        ("older", "version 0"),
        ("gone", "no such class"),
        (f"{HERE}:Gone", "no such class"),
        (f"{HERE}:Gateway", "not a subclass"),
        (f"{HERE}:Plugin", "at least one hook"),
        (f"{HERE}:Slow", "waits = True"),
        ("no_such_module_at_all:X", "no module"),
        ("streamgate.no_such.module:X", "no module"),
        (":X", "is not module:Class"),
    ],
)
def test_a_plugin_that_cannot_be_used(use, expected):
    """Each says what is wrong with it."""
    [(key, said)] = problems(PluginConfig(use=use))
    assert key == "0.use" and expected in said


def test_a_module_that_cannot_be_imported(tmp_path, monkeypatch):
    """Whatever it raises; a module that it misses itself is not taken for it."""
    (tmp_path / "raising_plugin.py").write_text("raise SyntaxError('oh')")
    (tmp_path / "missing_plugin.py").write_text("import no_such_module_at_all")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("raising_plugin", "missing_plugin"):
        [(_, said)] = problems(PluginConfig(use=f"{module}:X"))
        assert "cannot be imported" in said


def test_a_name_is_given_once():
    """Metrics and routes go by it."""
    [(key, said)] = problems(PluginConfig(use=f"{HERE}:Quiet"), PluginConfig(use=f"{HERE}:Quiet"))
    assert (key, said) == ("1.name", "expected another name: there already is a plugin quiet")


def test_a_plugin_that_cannot_be_made():
    """Its constructor raises, or its window is no size."""
    got = problems(PluginConfig(use=f"{HERE}:Broken"), PluginConfig(use=f"{HERE}:Wide"))
    assert got == [
        ("0", "cannot be made: RuntimeError: no such file"), ("1", "its window must be a number of characters"),
    ]  # fmt: skip


def test_what_is_installed():
    """Name, hooks, settings, and why one cannot be used."""
    gone, older, shout = installed(points)
    assert "no such class" in gone.problem and "version 0" in older.problem
    assert (shout.use, shout.hooks, shout.text, shout.problem) == ("shout", ("on_text",), "Says it louder.", "")
    times, word = shout.settings
    assert (times.name, times.type, times.default, times.text) == ("times", "int", "1", "How often.")
    assert (word.name, word.default) == ("word", "")


def test_entry_points_are_read_from_the_environment():
    """Whatever is installed here, it is by name."""
    assert all(entry.group == "streamgate.plugins" for entry in found().values())
    assert [one.use for one in installed()] == sorted(found())
