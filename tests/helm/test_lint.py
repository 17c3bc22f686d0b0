"""What helm and Kubernetes themselves say of the chart, for every set of values."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.conftest import require
from tests.helm.chart import CHART, HELMS, VALUES, Object, every_case, every_helm, helm, rendered
from tests.helm.tools import PLACE

# From the chart's kubeVersion to the newest that there are schemas of.
VERSIONS = [f"1.{minor}" for minor in range(30, 38)]
CUSTOM = {
    "HTTPRoute": "gateway-api/gateway.networking.k8s.io/v1",
    "PodMonitor": "prometheus-operator/monitoring.coreos.com/v1",
    "ServiceMonitor": "prometheus-operator/monitoring.coreos.com/v1",
    "PrometheusRule": "prometheus-operator/monitoring.coreos.com/v1",
    "ScaledObject": "keda/keda.sh/v1alpha1",
}


@every_helm
@every_case
def test_helm_lints_without_a_word(case, name):
    """No error and no warning, with any values."""
    done = helm(name, "lint", "--strict", "--quiet", CHART, "--values", VALUES[case])
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "", "")


@every_case
def test_both_helms_render_the_same(case):
    """Whoever still has Helm 3 gets the same objects."""
    assert rendered(case, HELMS[0]) == rendered(case, HELMS[1])


@every_case
def test_every_object_says_whose_it_is(case):
    """Namespace, and the labels by which people and the chart's own selectors find things."""
    for each in rendered(case):
        if each["kind"] == "ConfigMap" and "labels" not in each["metadata"]:  # an extra object
            continue
        labels = each["metadata"]["labels"]
        assert each["metadata"]["namespace"]
        assert labels["app.kubernetes.io/instance"] == "gw"
        assert {f"app.kubernetes.io/{key}" for key in ("name", "version", "component", "managed-by")} <= set(labels)


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(version, monkeypatch):
    """Each supported version's own schema takes each object, unknown fields refused."""
    read = functools.cache(kubernetes_validate.utils.schema_contents)
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", read)
    for each in of_kubernetes():
        kubernetes_validate.validate(each, version, strict=True)


def of_kubernetes() -> list[Object]:
    """Every different object of a built-in kind, over all cases."""
    return [each for each in distinct() if each["kind"] not in CUSTOM]


@functools.cache
def distinct() -> tuple[Object, ...]:
    found = {json.dumps(each, sort_keys=True): each for case in VALUES for each in rendered(case)}
    return tuple(found.values())


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder in which node finds the schemas."""
    folder = tmp_path_factory.mktemp("schemas")
    (folder / "node_modules").symlink_to(Path(require(str(PLACE / "node_modules/.bin/tsc"))).parents[1])
    return folder


def written(folder: Path, name: str, custom: list[Object], ending: str) -> Path:
    """A program that makes each object by its model."""
    lines = [f'import {{ {kind} }} from "@kubernetes-models/{place}/{kind}";' for kind, place in CUSTOM.items()]
    for each in custom:
        body = json.dumps({key: value for key, value in each.items() if key not in ("apiVersion", "kind")})
        lines.append(f"new {each['kind']}({body}){ending};")
    path = folder / name
    path.write_text("\n".join(lines))
    return path


def node(folder: Path, program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([require("node"), program], cwd=folder, capture_output=True, text=True, check=False)


def compiled(folder: Path, program: Path) -> subprocess.CompletedProcess[str]:
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "--types", ""]
    tsc = folder / "node_modules" / ".bin" / "tsc"
    return subprocess.run([tsc, *options, program.name], cwd=folder, capture_output=True, text=True, check=False)


def test_custom_resources_are_valid(workshop):
    """Gateway API, KEDA and the Prometheus Operator take what is rendered for them: values and names of fields."""
    custom = [each for each in distinct() if each["kind"] in CUSTOM]
    assert {each["kind"] for each in custom} == set(CUSTOM)
    for each in custom:
        assert each["apiVersion"] == CUSTOM[each["kind"]].split("/", 1)[1]
    run = node(workshop, written(workshop, "values.mjs", custom, ".validate()"))
    assert run.returncode == 0, run.stderr
    checked = compiled(workshop, written(workshop, "names.mts", custom, ""))
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    "field, value", [("timeouts", {"request": "never"}), ("timeout", {"request": "0s"})], ids=["value", "name"]
)
def test_those_schemas_do_refuse(field, value, workshop):
    """A wrong duration and a misspelt field: the test above is not content with anything."""
    route = {"kind": "HTTPRoute", "metadata": {"name": "a"}, "spec": {"rules": [{field: value}]}}
    by_value = node(workshop, written(workshop, f"{field}.mjs", [route], ".validate()"))
    by_name = compiled(workshop, written(workshop, f"{field}.mts", [route], ""))
    assert by_value.returncode + by_name.returncode != 0


def test_the_chart_says_which_kubernetes_it_needs():
    """The oldest version that is validated is the one that Chart.yaml asks for; an older one is refused."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={VERSIONS[0]}.0-0"
    refusal = helm("helm4", "template", "gw", CHART, "--kube-version", "1.29")
    assert "incompatible with Kubernetes v1.29" in refusal.stderr
