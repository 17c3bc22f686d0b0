"""What the chart carries or says twice is the same in both places: `python helm/generate.py` was run."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib

import jsonschema
import pytest
import yaml

import streamgate
from tests.helm.chart import CHART, ROOT, helm, kinds, objects


@pytest.fixture(scope="module")
def generate():
    """helm/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("chart_generate", ROOT / "helm" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def values() -> dict:
    return yaml.safe_load((CHART / "values.yaml").read_text())


def leaves(value, path=()):
    """Dotted paths of everything in values.yaml that is no map, or an empty one."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    else:
        yield path


def test_the_chart_is_up_to_date(generate):
    """Rules and dashboards byte for byte; the README's table; the schema's descriptions and the gateway's models."""
    for path, content in generate.made().items():
        assert path.read_bytes() == content, f"{path.name}: python helm/generate.py"


def test_the_chart_carries_nothing_else(generate):
    """A dashboard that the project no longer has goes from the chart too."""
    carried = set((CHART / "files").iterdir()) - {CHART / "files" / "stream.py"}
    assert carried == set(generate.copies())


def test_every_value_is_explained(generate):
    """By a remark of its own, or of the map it is in."""
    said = {tuple(row.path.split(".")) for row in generate.rows((CHART / "values.yaml").read_text())}
    silent = [path for path in leaves(values()) if not any(path[:length] in said for length in range(1, len(path) + 1))]
    assert silent == []


def differing(properties: dict, shown: dict, path: str = "") -> list[str]:
    """Paths that only one of schema and values.yaml has, or whose map takes unknown keys."""
    found = [f"{path}{key}" for key in set(properties) ^ set(shown)]
    for key in set(properties) & set(shown):
        within = properties[key].get("properties")
        if within is not None:
            found += differing(within, shown[key], f"{path}{key}.")
            found += [] if properties[key]["additionalProperties"] is False else [f"{path}{key} is open"]
    return found


def test_the_schema_knows_every_value_and_no_other():
    """Nothing can be set that values.yaml does not show; two keys that a parent chart may add apart."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["additionalProperties"] is False
    assert sorted(differing(schema["properties"], values())) == ["enabled", "global"]


def test_the_schema_is_of_a_draft_that_every_helm_enforces():
    """Draft 7; Helm 3 ignores newer words in silence; Go's patterns know no look-around."""
    text = (CHART / "values.schema.json").read_text()
    schema = json.loads(text)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(schema)
    assert not re.search(r'"(\$defs|prefixItems|unevaluated\w+|dependent\w+|minContains)"', text)
    assert not re.search(r"\(\?[=!<]", text)
    jsonschema.Draft7Validator(schema).validate(values())


def test_chart_and_package_have_one_version():
    """appVersion is what `streamgate --version` says; the image is tagged with it."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == streamgate.__version__
    images = yaml.safe_load(chart["annotations"]["artifacthub.io/images"])
    assert images == [{"name": "streamgate", "image": f"{values()['image']['repository']}:{chart['appVersion']}"}]
    licence = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    assert chart["annotations"]["artifacthub.io/license"] == licence


def test_the_readmes_example_works(tmp_path):
    """The values that people copy render, and to what the text says."""
    block = re.search(r"```yaml\n(# values\.yaml.*?)```", (CHART / "README.md").read_text(), re.DOTALL)
    assert block
    file = tmp_path / "values.yaml"
    file.write_text(block[1])
    found = objects("helm4", "--values", file)
    assert {"HTTPRoute", "ScaledObject", "PodMonitor", "PrometheusRule"} <= kinds(found)
    assert "terminationGracePeriodSeconds: 315" in helm("helm4", "template", "gw", CHART, "--values", file).stdout


def test_the_package_holds_the_chart(tmp_path):
    """`helm package`: what is installed from it is the same, rules and dashboards included."""
    assert helm("helm4", "package", CHART, "--destination", tmp_path).returncode == 0
    (package,) = tmp_path.glob("streamgate-*.tgz")
    done = helm("helm4", "template", "gw", package, "--set", "dashboards.enabled=true,prometheusRule.enabled=true")
    assert done.returncode == 0, done.stderr
    assert "streamgate-overview.json" in done.stdout
    assert "StreamgateStreamsStalled" in done.stdout
