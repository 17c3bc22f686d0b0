"""`streamgate plugins`: what it says of plugins, and its exit codes."""

from __future__ import annotations

import sys
from enum import Enum
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any, Literal

import pytest
from click.testing import CliRunner, Result
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from streamgate import cli
from streamgate.control.config import Config, load
from streamgate.control.listing import configured_page, installed_page, settings_rows
from streamgate.hooks import Plugin, Request, Stream, finding
from streamgate.hooks.finding import installed

HERE = "plugins_to_be_listed"


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Branch(BaseModel):
    """One branch."""

    name: str
    more: list[Branch] = []


class Many(Plugin):
    """Has all kinds of settings.

    And says more than that."""

    class Settings(BaseModel):
        needed: int = Field(ge=1, description="Needed. " + "And of great importance. " * 6)
        share: float = Field(default=0.5, gt=0, le=1)
        colour: Colour = Colour.RED
        mode: Literal["on", "off"] = "on"
        words: frozenset[str] = frozenset(("b", "a"))
        made: list[str] = Field(default_factory=list)
        tree: Branch
        named: dict[str, Branch | None] = {}
        key: SecretStr | None = None
        anything: Any = None

    def on_request(self, request: Request, stream: Stream) -> None: ...


class Opaque:
    """Of no type that JSON has."""


class Odd(Plugin):
    """Settings that JSON knows nothing of."""

    class Settings(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)

        thing: Opaque | None = Field(default=None, description="A thing.")

    def on_request(self, request: Request, stream: Stream) -> None: ...


class Bare(Plugin):
    fail = "closed"

    def on_end(self, record: object) -> None: ...


class Older(Bare):
    api = 0


def points() -> dict[str, EntryPoint]:
    return {
        kind.__name__.lower(): EntryPoint(kind.__name__.lower(), f"{HERE}:{kind.__name__}", "streamgate.plugins")
        for kind in (Many, Odd, Bare, Older)
    }


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    there = ModuleType(HERE)
    for kind in (Many, Odd, Bare, Older):
        setattr(there, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, HERE, there)


def test_settings_are_told_in_the_configurations_words() -> None:
    """Type, bounds and default of each; keys of maps below it, and of maps that hold themselves a few times."""
    _, many, _, _ = installed(points)
    rows = {row.name: row for row in settings_rows(many, points)}
    assert list(rows)[5:9] == ["made", "tree", "tree.name", "tree.more"] and list(rows)[-1] == "anything"
    assert {name: (rows[name].type, rows[name].default) for name in rows if "." not in name} == {
        "needed": ("whole number, 1 or more", ""),
        "share": ("number, more than 0, 1 or less", "0.5"),
        "colour": ("red, blue", "red"),
        "mode": ("on, off", "'on'"),
        "words": ("list of text", "[a, b]"),
        "made": ("list of text", "of its own"),
        "tree": ("map, see below", ""),
        "named": ("map", "{}"),
        "key": ("reference to a secret or null", "null"),
        "anything": ("anything", "null"),
    }
    assert rows["tree"].text == "One branch."
    assert "tree.more[].more[].name" in rows and "named.*.more[].name" in rows
    assert max(name.count(".") for name in rows) < 8


def test_a_page_of_what_is_installed() -> None:
    """One paragraph each, at most 100 columns; what cannot be used says why."""
    page = installed_page(installed(points), points)
    assert "many ( )\n  Has all kinds of settings.\n  hooks: on_request\n  settings:\n    needed (whole" in page
    assert "bare ( )\n  hooks: on_end\n  settings: none\n" in page
    assert "older ( )\n  cannot be used: 'older' was written for version 0" in page
    assert "    thing (" in page and "): A thing.\n" in page
    assert "    anything (anything; default null)\n" in page
    assert max(map(len, page.splitlines())) <= 100
    assert installed_page([], points) == "No plugin is installed.\n"


def test_a_page_of_what_is_configured() -> None:
    """In order, with what holds for each."""
    plugins = [
        {"use": f"{HERE}:Bare", "name": "last", "routes": ["gpt-*", "o1"], "budget": 2.5},
        {"use": f"{HERE}:Many", "settings": {"needed": 3, "tree": {"name": "x"}, "key": "literal"}},
    ]
    config = load(None, {"STREAMGATE_PLUGINS": str(plugins)}, {})
    page = configured_page(config)
    assert f"1. last ({HERE}:Bare)\n  hooks: on_end\n  fail: closed\n  budget: 2.5 s\n  models: gpt-*, o1\n\n" in page
    assert f"2. many ({HERE}:Many)\n  hooks: on_request\n  fail: closed for authenticate and on_request, open" in page
    assert "  models: all\n  settings:\n    needed: 3\n" in page and "literal" not in page
    assert configured_page(Config()) == ""


def listed(monkeypatch: pytest.MonkeyPatch, *uses: str, **environ: str) -> Result:
    """The command where these plugins are installed."""
    there = [entry for use, entry in points().items() if use in uses]
    monkeypatch.setattr(finding, "entry_points", lambda **_: there)
    return CliRunner().invoke(cli.main, ["plugins"], env=environ)


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 when all is well; 2 when an installed plugin cannot be used, or the configuration is wrong."""
    good = listed(monkeypatch, "bare", STREAMGATE_PLUGINS=f"[{{use: '{HERE}:Bare'}}]")
    assert good.exit_code == 0 and good.output.startswith("bare ( )\n") and "\n1. bare (" in good.output
    assert listed(monkeypatch, "bare", "older").exit_code == 2
    wrong = listed(monkeypatch, "bare", STREAMGATE_PLUGINS="[{use: nowhere}]")
    assert wrong.exit_code == 2 and wrong.stdout.startswith("bare ( )\n")
    assert "streamgate: STREAMGATE_PLUGINS: plugins[0].use: no plugin 'nowhere'" in wrong.stderr
