"""The keys about plugins, and from what is written there to plugins that were found, with settings that are right.

What the settings of a plugin are is the plugin's own to say: so its code is imported when a configuration is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, Field, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import to_jsonable_python

from streamgate.control.base import Settings
from streamgate.control.expected import ABSENT, spoken
from streamgate.control.problems import Path
from streamgate.control.values import HIDDEN, Glob
from streamgate.hooks.finding import Found, found
from streamgate.hooks.loader import NAME, Chosen, PluginConfig, PluginError, check

if TYPE_CHECKING:
    from streamgate.control.settings import Config


def _map(written: Any) -> Mapping[str, Any] | BaseModel:
    if not isinstance(written, dict | BaseModel):
        raise ValueError("expected a map")  # noqa: TRY004 - pydantic's contract
    return written


def _shown(settings: Mapping[str, Any] | BaseModel) -> Any:
    """As they are printed: validated ones with their secrets hidden; of others nobody knows what is one."""
    if isinstance(settings, BaseModel):
        return _hidden(to_jsonable_python(settings, fallback=str), settings.model_dump(by_alias=True))
    return dict.fromkeys(settings, HIDDEN)


def _hidden(shown: Any, value: Any) -> Any:
    """`shown` is `value` for JSON: the same without secrets, and with sets in an order that replicas agree on."""
    if hasattr(value, "get_secret_value"):
        return HIDDEN
    if isinstance(shown, dict) and isinstance(value, dict) and len(shown) == len(value):
        pairs = zip(shown.items(), value.values(), strict=True)
        return {key: _hidden(item, inner) for (key, item), inner in pairs}
    if isinstance(shown, list) and isinstance(value, list | tuple) and len(shown) == len(value):
        return [_hidden(item, inner) for item, inner in zip(shown, value, strict=True)]
    return sorted(shown, key=str) if isinstance(shown, list) and isinstance(value, set | frozenset) else shown


PluginName = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
PluginSettings: TypeAlias = Annotated[
    Mapping[str, Any] | BaseModel,  # as written; what `load` returns holds the plugin's own model
    PlainValidator(_map),
    PlainSerializer(_shown, when_used="json"),
    WithJsonSchema({"type": "object"}),
]


class PluginEntry(Settings):
    """One plugin. They are called in the order in which they are listed; `streamgate plugins` shows what is there."""

    use: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        description="An installed plugin, or module:Class."
    )
    name: PluginName | None = Field(
        default=None, description="In metrics, logs and `routes[].plugins`; null: from `use`. Each its own."
    )
    fail: Literal["open", "closed"] | None = Field(
        default=None,
        description="When it fails: go on without it (open), or end the request (closed). null: as the plugin says, "
        "else closed for authenticate and on_request, open for the rest.",
    )
    budget: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = Field(
        default=1.0, description="For each call of a hook that waits."
    )
    routes: Annotated[tuple[Glob, ...], Field(strict=False)] = Field(
        default=(), description="Names or patterns of the models whose requests it sees; empty: all."
    )
    settings: PluginSettings = Field(default={}, description="The plugin's own; secrets as it takes them.")


def plugins_of(config: Config) -> list[PluginConfig]:
    """The plugins to load, in order."""
    return [
        PluginConfig(
            use=entry.use,
            name=entry.name or "",
            fail=entry.fail,
            budget=entry.budget,
            routes=entry.routes,
            settings=entry.settings,
        )
        for entry in config.plugins
    ]


class Plugged(NamedTuple):
    """What `plugins` amounts to: what was found of it, and each mistake with its path."""

    chosen: list[Chosen]
    wrong: list[tuple[Path, str]]

    def into(self, config: Config) -> Config:
        """The same configuration with names, and with settings that are validated and have their secrets."""
        entries = [
            entry.model_copy(update={"name": each.name, "settings": each.settings or {}})
            for entry, each in zip(config.plugins, self.chosen, strict=True)
        ]
        return config.model_copy(update={"plugins": tuple(entries)})


def plugged(tree: Mapping[str, Any], environ: Mapping[str, str], points: Found = found) -> Plugged:
    """Find the plugins that are written in `tree` and check their settings, references resolved against `environ`.

    What the models say of the other keys of an entry is theirs to say; an entry is looked at whatever is wrong there.
    """
    listed = tree.get("plugins")
    entries = [(i, each) for i, each in enumerate(listed if isinstance(listed, list) else []) if _usable(each)]
    configs = [_as_written(position, entry) for position, entry in entries]
    try:
        return Plugged(check(configs, points, context={"environ": dict(environ)}, reading=spoken), [])
    except PluginError as error:
        return Plugged([], list(dict.fromkeys(_placed(entries, error))))


def _usable(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("use"), str) and 0 < len(entry["use"]) <= 256


def _as_written(position: int, entry: Mapping[str, Any]) -> PluginConfig:
    """An entry with nothing in it that the models refuse."""
    name, settings = entry.get("name") or "", entry.get("settings", {})
    if not isinstance(name, str) or (name and not NAME.fullmatch(name)):
        name = f"plugin_{position}"  # nobody else's
    return PluginConfig(use=entry["use"], name=name, settings=settings if isinstance(settings, dict) else {})


def _placed(entries: Sequence[tuple[int, Any]], error: PluginError) -> Iterator[tuple[Path, str]]:
    for (nth, *path), expected in error.problems:
        position, entry = entries[int(nth)]
        given = entry.get("settings", {})
        if path[:1] != ["settings"]:
            yield ("plugins", position, *path), expected
        elif isinstance(given, dict):
            yield ("plugins", position, "settings", *_followed(path[1:], given, absent=expected == ABSENT)), expected


def _followed(path: Sequence[str | int], written: Any, *, absent: bool) -> Iterator[str | int]:
    """The keys of a path; pydantic puts the members of a union and other words of its own between them."""
    for nth, part in enumerate(path, 1):
        keys = range(len(written)) if isinstance(written, list) else written if isinstance(written, dict) else ()
        if part in keys:
            yield part
            written = written[part]
        elif absent and nth == len(path):
            yield part
