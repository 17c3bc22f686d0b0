"""`python -m streamgate.control.schema [DIRECTORY]` writes the reference of the configuration from its models.

Two files: `config.schema.json` for editors, `configuration.md` for people. Nothing in them is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from streamgate.control.config import Config, effective

PAGE = """\
# Configuration

One YAML file, `streamgate serve --config FILE`; no file is needed. What wins, from the strongest: flags, environment,
file, defaults. `streamgate check --config FILE` reports every mistake at once and prints what is in force.

- **Environment**: `STREAMGATE_A__B` is the key `a.b`, in YAML: `STREAMGATE_CLOCKS__IDLE=30`,
  `STREAMGATE_PATHS='[/v1/extra]'`. Lists are replaced, maps are joined key by key. Variables that Kubernetes makes for
  a service called streamgate (`STREAMGATE_SERVICE_HOST` and the like) are ignored; any other unknown one is an error.
- **Secrets** (`key`, `token`, the password in `limits.store`) are references, in quotes: `"${NAME}"` for an environment
  variable, also inside a longer text, or `"file:/run/secrets/key"`. A secret written out is an error. Secrets are never
  printed.
- **Unknown keys, keys written twice and values of the wrong type** are errors.
- **Settings of plugins** are checked by the plugins, which are imported for that; `streamgate plugins` lists what is
  installed, with hooks and settings, and what of it is configured.
- Times are in seconds, sizes in bytes.
- `--upstream URL` (repeatable) replaces `upstreams`; each is named after its host and port, with `auth: client` unless
  clients need a key (`keys`, `keys_file`, `jwt`).

This page is generated from the code: `python -m streamgate.control.schema`. A JSON schema is beside it.

## Defaults

```yaml
$defaults```
"""
INTRO = {
    "Config": "The file",
    "UpstreamKey": "`upstreams[].auth`",
    "Upstream": "`upstreams[]`",
    "Route": "`routes[]`",
    "RouteClocks": "`routes[].clocks`",
    "Key": "`keys[]`",
    "LevelLimits": "`limits` of `keys[]`, `tenants[]`, `routes[]`, `upstreams[]` and `jwt`",
    "Tenant": "`tenants[]`",
    "PriorityClass": "`priorities[]`",
    "Shed": "`limits.shed`",
    "Claims": "`jwt.claims`",
    "PluginEntry": "`plugins[]`",
    "Tracing": "`observe.tracing`",
    "Slo": "`observe.slo`",
}
WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "object": "map"}


def schema() -> dict[str, Any]:
    """The JSON schema of the file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema(by_alias=True)}


def page() -> str:
    """The reference page, in Markdown."""
    described = schema()
    models = described["$defs"]
    parts = [PAGE.replace("$defaults", effective(Config())), *_section("Config", described, models)]
    for name, model in models.items():
        parts += _section(name, model, models)
    return "\n".join(parts)


def _section(name: str, model: dict[str, Any], models: dict[str, Any]) -> Iterator[str]:
    yield f"## {INTRO.get(name, f'`{name.lower()}`')}\n"
    yield f"{_sentence(model)}\n"
    yield "| key | what | default | meaning |\n| --- | --- | --- | --- |"
    required = model.get("required", ())
    for key, value in model["properties"].items():
        default = "required" if key in required else default_of(value)
        yield f"| `{key}` | {kind_of(value)} | {default} | {meaning_of(value, models)} |"
    yield ""


def meaning_of(value: dict[str, Any], models: dict[str, Any]) -> str:
    """A key's description; a map's own one, when the key has none beside it. `models` are the schema's $defs."""
    return str(
        value.get("description") or models.get(value.get("$ref", "").rpartition("/")[2], {}).get("description", "")
    )


def _sentence(model: dict[str, Any]) -> str:
    """The model's docstring, its lines joined."""
    return " ".join(str(model.get("description", "")).split())


def default_of(value: dict[str, Any]) -> str:
    """A value's default, as YAML in backquotes."""
    default = value.get("default")
    if value.get("uniqueItems") and isinstance(default, list):
        default = sorted(default, key=str)  # a set's, which has no order
    if "$ref" in value and isinstance(default, dict):
        return "as below"
    written = yaml.safe_dump(default, default_flow_style=True, width=1000).strip().removesuffix("...").strip()
    return f"`{written}`"


def kind_of(value: dict[str, Any]) -> str:
    """A value's type and range, in words."""
    if "$ref" in value:
        return "map, see below"
    for union in ("anyOf", "oneOf"):
        if union in value:
            return " or ".join(dict.fromkeys(kind_of(option) for option in value[union]))
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{option}`" for option in value["enum"])
    if value.get("writeOnly"):
        return "reference to a secret"
    if value.get("type") == "array":
        return f"list of {kind_of(value['items'])}" if value.get("items") else "list"
    return _bounded(value) if "type" in value else "anything"


def _bounded(value: dict[str, Any]) -> str:
    text = WORDS.get(value["type"], value["type"])
    low, above, high = (value.get(bound) for bound in ("minimum", "exclusiveMinimum", "maximum"))
    if low is not None and high is not None:
        return f"{text}, {low} to {high}"
    bounds = [(f"more than {above}", above), (f"{low} or more", low), (f"{high} or less", high)]
    return ", ".join([text, *(words for words, bound in bounds if bound is not None)])


def written() -> dict[str, str]:
    """The generated files, by name."""
    return {"config.schema.json": json.dumps(schema(), indent=2) + "\n", "configuration.md": page()}


def main(directory: Path) -> None:
    for name, text in written().items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
