"""`streamgate plugins`: what is installed, with hooks and settings, and what of it is configured. Text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import indent, wrap
from typing import Any

import yaml
from pydantic import BaseModel

from streamgate.control.config import Config
from streamgate.control.plugging import PluginEntry
from streamgate.control.schema import default_of, kind_of, meaning_of
from streamgate.hooks.finding import Found, Installed, Setting, found, plugin_class, settings_of
from streamgate.hooks.spec import Plugin, hooks_of

WIDTH = 100
DEPTH = 4  # of maps in maps: a model may hold itself

BY_HOOK = "closed for authenticate and on_request, open for the rest"


def installed_page(plugins: Sequence[Installed], points: Found = found) -> str:
    """All that are installed, those that cannot be used among them."""
    return (
        "\n".join("\n".join(_described(each, points)) for each in plugins) if plugins else "No plugin is installed.\n"
    )


def configured_page(config: Config, points: Found = found) -> str:
    """Those of a configuration that is right, in the order in which they are called."""
    if not config.plugins:
        return ""
    lines = ["Configured, in the order in which they are called:", ""]
    for position, entry in enumerate(config.plugins, 1):
        lines += _configured(position, entry, plugin_class(entry.use, points))
    return "\n".join(lines)


def _described(plugin: Installed, points: Found) -> Iterator[str]:
    yield f"{plugin.use} ({plugin.distribution} {plugin.version})"
    if plugin.problem:
        yield f"  cannot be used: {plugin.problem}\n"
        return
    if plugin.text:
        yield f"  {plugin.text}"
    yield f"  hooks: {', '.join(plugin.hooks)}"
    rows = list(settings_rows(plugin, points))
    yield "  settings:" if rows else "  settings: none"
    for row in rows:
        need = f"default {row.default}" if row.default else "required"
        said = ": ".join(part for part in (f"{row.name} ({row.type}; {need})", row.text) if part)
        yield from wrap(said, WIDTH, initial_indent="    ", subsequent_indent="        ", break_on_hyphens=False)
    yield ""


def _configured(position: int, entry: PluginEntry, kind: type[Plugin]) -> Iterator[str]:
    shown = entry.model_dump(mode="json")
    yield f"{position}. {entry.name} ({entry.use})"
    yield f"  hooks: {', '.join(hooks_of(kind))}"
    yield f"  fail: {entry.fail or kind.fail or BY_HOOK}"
    yield f"  budget: {entry.budget:g} s"
    yield f"  models: {', '.join(entry.routes) or 'all'}"
    if shown["settings"]:
        settings = yaml.safe_dump(shown["settings"], sort_keys=False, allow_unicode=True, width=WIDTH)
        yield f"  settings:\n{indent(settings, '    ').rstrip()}"
    yield ""


def settings_rows(plugin: Installed, points: Found = found) -> Iterator[Setting]:
    """The settings in the words of the configuration's own reference; those of maps below them by dotted keys."""
    model = settings_of(plugin_class(plugin.use, points))
    schema = None if model is None else _schema(model)
    return iter(plugin.settings) if schema is None else _rows(schema, schema.get("$defs", {}), "", DEPTH)


def _schema(model: type[BaseModel]) -> dict[str, Any] | None:
    try:
        return model.model_json_schema()
    except Exception:  # noqa: BLE001 - types that JSON knows nothing of, or a plugin's own way to say what they are
        return None


def _rows(schema: Mapping[str, Any], models: Mapping[str, Any], above: str, depth: int) -> Iterator[Setting]:
    required = schema.get("required", ())
    for key, written in schema.get("properties", {}).items():
        value = _inlined(written, models)
        default = "" if key in required else default_of(value).strip("`") if "default" in value else "of its own"
        yield Setting(f"{above}{key}", kind_of(value).replace("`", ""), default, meaning_of(value, dict(models)))
        for suffix, model in _maps(value, models):
            if depth:
                yield from _rows(model, models, f"{above}{key}{suffix}.", depth - 1)


def _inlined(value: Any, models: Mapping[str, Any]) -> Any:
    """The same with what has no keys of its own, such as an enum, in place of the reference to it."""
    if isinstance(value, list):
        return [_inlined(each, models) for each in value]
    if not isinstance(value, dict):
        return value
    target = models.get(str(value.get("$ref", "")).rpartition("/")[2])
    if target is not None and "properties" not in target:
        return {**target, **{key: each for key, each in value.items() if key != "$ref"}}
    return {key: each if key in ("default", "const", "enum") else _inlined(each, models) for key, each in value.items()}


def _maps(value: Any, models: Mapping[str, Any], suffix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The maps with known keys in a value, and what their keys are below."""
    if not isinstance(value, dict):
        return
    target = models.get(str(value.get("$ref", "")).rpartition("/")[2])
    if target is not None:
        yield suffix, target
    for option in [*value.get("anyOf", ()), *value.get("oneOf", ())]:
        yield from _maps(option, models, suffix)
    yield from _maps(value.get("items"), models, f"{suffix}[]")
    yield from _maps(value.get("additionalProperties"), models, f"{suffix}.*")
