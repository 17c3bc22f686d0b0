"""Plugins in the configuration: found, checked, named, their secrets resolved and never printed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
import yaml
from pydantic import BaseModel, BeforeValidator, SecretStr, ValidationInfo

from streamgate.control.config import Config, ConfigError, effective, load, plugins_of
from streamgate.control.plugging import PluginEntry
from streamgate.control.problems import Problem
from streamgate.hooks import Plugin, Request, Stream
from streamgate.hooks.facade import Gateway
from streamgate.hooks.loader import PluginConfig
from streamgate.hooks.loader import load as made
from streamgate.testing.harness import Books

HERE = "plugins_of_the_configuration"


def of_the_environment(written: str, info: ValidationInfo) -> str:
    assert info.context is not None
    return str(info.context["environ"][written.strip("${}")])


class Limit(BaseModel, extra="forbid"):
    tokens: int


class Shout(Plugin):
    class Settings(BaseModel, extra="forbid"):
        word: str
        limits: tuple[Limit, ...] = ()
        key: Annotated[SecretStr, BeforeValidator(of_the_environment)] | None = None
        keys: dict[str, SecretStr] = {}
        wide: frozenset[str] = frozenset(("b", "a", "c"))
        either: dict[str, int] | int = 0

    def on_request(self, request: Request, stream: Stream) -> None: ...


class Quiet(Plugin):
    fail = "open"

    async def on_request(self, request: Request, stream: Stream) -> None: ...


class Older(Quiet):
    api = 0


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    there = ModuleType(HERE)
    for kind in (Shout, Quiet, Older):
        setattr(there, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, HERE, there)


def written(tmp_path: Path, text: str, **environ: str) -> Config:
    file = tmp_path / "gate.yaml"
    file.write_text(text.replace("HERE", HERE))
    return load(file, environ, {})


def wrong(tmp_path: Path, text: str, **environ: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, text, **environ)
    return list(caught.value.problems)


FULL = """
plugins:
- use: HERE:Shout
  fail: closed
  budget: 2
  routes: ["gpt-*"]
  settings:
    word: hey
    key: "${KEY}"
    keys: {a: literal}
    limits: [{tokens: 5}]
- {use: HERE:Quiet, name: other}
"""


def test_plugins_come_out_ready_to_be_made(tmp_path: Path) -> None:
    """In order, with names, with settings that are the plugin's own model and hold what references refer to."""
    config = written(tmp_path, FULL, KEY="salt-and-pepper")
    shout, other = plugins_of(config)
    assert (shout.use, shout.name, shout.fail, shout.budget, shout.routes) == (
        f"{HERE}:Shout", "shout", "closed", 2.0, ("gpt-*",),
    )  # fmt: skip
    assert isinstance(shout.settings, Shout.Settings)
    assert shout.settings.key is not None and shout.settings.key.get_secret_value() == "salt-and-pepper"
    assert other == PluginConfig(use=f"{HERE}:Quiet", name="other")
    members = made([shout, other], Gateway, Books()).members
    assert [member.name for member in members] == ["shout", "other"]
    assert members[0].plugin.settings is shout.settings and members[1].plugin.settings is None
    assert plugins_of(Config()) == []


def test_what_is_in_force_is_printed_without_secrets(tmp_path: Path) -> None:
    """Defaults included; sets in an order that does not change from one replica to the next."""
    printed = effective(written(tmp_path, FULL, KEY="salt-and-pepper"))
    assert "salt" not in printed and "literal" not in printed
    assert yaml.safe_load(printed)["plugins"] == [
        {
            "use": f"{HERE}:Shout", "name": "shout", "fail": "closed", "budget": 2.0, "routes": ["gpt-*"],
            "settings": {
                "word": "hey", "limits": [{"tokens": 5}], "key": "********", "keys": {"a": "********"},
                "wide": ["a", "b", "c"], "either": 0,
            },
        },
        {"use": f"{HERE}:Quiet", "name": "other", "fail": None, "budget": 1.0, "routes": [], "settings": {}},
    ]  # fmt: skip
    unchecked = Config(plugins=(PluginEntry(use="x", settings={"key": "literal"}),))
    assert "literal" not in effective(unchecked)


def test_routes_name_plugins(tmp_path: Path) -> None:
    """By the name that is written, or the one that follows from `use`; null and [] are different."""
    text = FULL + (
        "upstreams: [{name: a, url: 'http://h:1'}]\nroutes:\n"
        "- {models: [x], upstreams: [a], plugins: [shout, other]}\n"
        "- {models: [y], upstreams: [a], plugins: []}\n- {models: [z], upstreams: [a]}\n"
    )
    config = written(tmp_path, text, KEY="k")
    assert [route.plugins for route in config.routes] == [("shout", "other"), (), None]
    (problem,) = wrong(tmp_path, text.replace("[shout, other]", "[shout, quiet]"), KEY="k")
    assert (problem.key, problem.expected) == (
        "routes[0].plugins[1]", "expected the name of a plugin (other, shout)",
    )  # fmt: skip


BAD = """\
clocks: {idle: soon}
plugins:
- use: nowhere
- use: HERE:Shout
  name: Loud
  fail: ajar
  settings:
    limits:
    - tokens: many
      words: 3
    key: "${KEY}"
    either: {a: x}
- use: HERE:Shout
- use: HERE:Older
- {use: HERE:Quiet, settings: {a: secret}}
- use: HERE:Quiet
- {use: HERE:Shout, name: third, settings: 5}
- 7
"""


def test_every_mistake_at_once_with_its_key_and_line(tmp_path: Path) -> None:
    """Those of plugins beside all others, also in an entry that is wrong in other ways, and no value among them."""
    found = wrong(tmp_path, BAD, KEY="k")
    assert [(problem.line, problem.key, problem.expected.partition(":")[0]) for problem in found] == [
        (1, "clocks.idle", "expected a number"),
        (3, "plugins[0].use", "no plugin 'nowhere' is installed (installed"),
        (5, "plugins[1].name", "expected text that matches ^[a-z][a-z0-9_]{0,39}$"),
        (6, "plugins[1].fail", "expected 'open' or 'closed'"),
        (7, "plugins[1].settings.word", "expected this key"),
        (9, "plugins[1].settings.limits[0].tokens", "expected a whole number"),
        (10, "plugins[1].settings.limits[0].words", "expected a known key"),
        (12, "plugins[1].settings.either.a", "expected a whole number"),
        (12, "plugins[1].settings.either", "expected a whole number"),
        (13, "plugins[2].settings.word", "expected this key"),
        (14, "plugins[3].use", f"'{HERE}"),
        (15, "plugins[4].settings", "expected none"),
        (16, "plugins[5].name", "expected another name"),
        (17, "plugins[6].settings", "expected a map"),
        (18, "plugins[7]", "expected a map"),
    ]
    assert not any("secret" in problem.expected or "many" in problem.expected for problem in found)


def test_plugins_may_come_from_the_environment(tmp_path: Path) -> None:
    """As any other key; then the variable is to blame."""
    (problem,) = wrong(tmp_path, "", STREAMGATE_PLUGINS=f"[{{use: '{HERE}:Shout', settings: {{word: 3}}}}]")
    assert (problem.source, problem.key) == ("STREAMGATE_PLUGINS", "plugins[0].settings.word")
    config = load(None, {"STREAMGATE_PLUGINS": f"[{{use: '{HERE}:Quiet'}}]"}, {})
    assert [entry.name for entry in config.plugins] == ["quiet"]


@pytest.mark.parametrize("plugins", ["x", 5, {"use": 1}, [None], [{"use": [1], "name": [2], "settings": [3]}]])
def test_nothing_of_the_wrong_type_gets_through(tmp_path: Path, plugins: Any) -> None:
    """Whatever is written is a mistake with a place, not an exception."""
    routes = "upstreams: [{name: a, url: 'http://h:1'}]\nroutes: [{models: [x], upstreams: [a], plugins: [1, z]}]\n"
    found = wrong(tmp_path, routes + yaml.safe_dump({"plugins": plugins}))
    assert any(problem.key.startswith("plugins") for problem in found)
    assert {"routes[0].plugins[0]", "routes[0].plugins[1]"} <= {problem.key for problem in found}
