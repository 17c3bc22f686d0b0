"""`python helm/generate.py` brings the chart up to date with what it is made of.

A chart may not reach outside its folder, so the rules and dashboards it installs are copies. The table of values in its
README and the descriptions in its schema are the comments of values.yaml; the schema of `config.file` is the gateway's
own. The rest of values.schema.json and README.md is written by hand and left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "streamgate"
GATEWAY_SCHEMA = ROOT / "docs" / "config.schema.json"
TABLE = re.compile(r"(?<=<!-- values -->\n).*(?=<!-- /values -->)", re.DOTALL)

KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9]*):")
REMARK = re.compile(r" *# (?P<begins>-- )?(?P<text>.*)")


class Row(NamedTuple):
    """One value: its dotted path, its default, and what values.yaml says of it."""

    path: str
    default: Any
    meaning: str


def copies() -> dict[Path, bytes]:
    """The files that the chart carries, and what must be in them."""
    sources = [*sorted((ROOT / "grafana").glob("*.json")), *(ROOT / "deploy" / "prometheus").glob("[ar]*.yml")]
    return {CHART / "files" / source.name: source.read_bytes() for source in sources}


def rows(text: str) -> Iterator[Row]:
    """The documented values, in the order of the file."""
    values = yaml.safe_load(text)
    above: list[str] = []  # the keys that enclose a line
    said: list[str] = []  # the remark before a line, begun by `# --`
    for line in text.splitlines():
        remark, key = REMARK.fullmatch(line), KEY.match(line)
        if remark and (remark["begins"] or said):
            said = [remark["text"]] if remark["begins"] else [*said, remark["text"]]
            continue
        if key:
            above = [*above[: len(key["indent"]) // 2], key["key"]]
            if said:
                yield Row(".".join(above), at(values, above), " ".join(said))
        said = []


def at(values: Mapping[str, Any], keys: list[str]) -> Any:
    found: Any = values
    for key in keys:
        found = found[key]
    return found


def table(text: str) -> str:
    """The README's table."""
    lines = ["| value | default | meaning |", "| --- | --- | --- |"]
    for row in rows(text):
        default = json.dumps(row.default).replace("|", "\\|")
        lines.append(f"| `{row.path}` | `{default}` | {row.meaning} |")
    return "\n".join(lines) + "\n"


def readme(page: str, values: str) -> str:
    return TABLE.sub(lambda _: table(values), page)


def schema(old: str, values: str, gateway: str) -> str:
    """values.schema.json with the remarks of values.yaml, and the gateway's own schema as its definitions."""
    document = json.loads(old)
    for row in rows(values):
        place = document
        for key in row.path.split("."):
            place = place["properties"][key]
        place["description"] = row.meaning
    own = {name: each for name, each in document["definitions"].items() if name[0].islower()}
    document["definitions"] = own | definitions(json.loads(gateway))
    return json.dumps(document, indent=2) + "\n"


def definitions(gateway: dict[str, Any]) -> dict[str, Any]:
    """The gateway's models by name, the whole file's as Config, in the words of draft 7: Helm 3 knows no newer one."""
    models = gateway.pop("$defs")
    gateway.pop("$schema")
    return {name: draft7(model) for name, model in {"Config": gateway, **models}.items()}


def draft7(part: Any) -> Any:
    """The same with `definitions` for `$defs`; titles and defaults say nothing here."""
    if isinstance(part, list):
        return [draft7(each) for each in part]
    if not isinstance(part, dict):
        return part.replace("#/$defs/", "#/definitions/") if isinstance(part, str) else part
    return {
        key: {name: draft7(each) for name, each in value.items()} if key == "properties" else draft7(value)
        for key, value in part.items()
        if key not in ("title", "default")
    }


def made() -> dict[Path, bytes]:
    """Every file that is written here, and what it must hold."""
    values = (CHART / "values.yaml").read_text()
    page, described = CHART / "README.md", CHART / "values.schema.json"
    written = {
        page: readme(page.read_text(), values),
        described: schema(described.read_text(), values, GATEWAY_SCHEMA.read_text()),
    }
    return copies() | {path: text.encode() for path, text in written.items()}


def main() -> None:
    wanted = made()
    for stale in set((CHART / "files").glob("*.json")) - set(wanted):
        stale.unlink()
    for path, content in wanted.items():
        path.write_bytes(content)


if __name__ == "__main__":
    main()
