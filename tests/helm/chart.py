"""The chart, rendered by real helms. Each set of values is rendered once per helm and test process."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import require
from tests.helm.tools import PLACE

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "streamgate"
VALUES = {path.stem: path for path in sorted(Path(__file__).with_name("values").glob("*.yaml"))}
HELMS = ("helm3", "helm4")
NAMESPACE = "llm"

Object = dict[str, Any]


def helm(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = require(str(PLACE / name))
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=30)


@functools.cache
def template(name: str, *arguments: object) -> str:
    """The manifests as helm prints them; what it refuses fails the test."""
    done = helm(name, "template", "gw", CHART, "--namespace", NAMESPACE, "--kube-version", "1.34", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(name: str, *arguments: object) -> list[Object]:
    return [each for each in yaml.load_all(template(name, *arguments), yaml.CSafeLoader) if each]


def rendered(case: str, name: str = "helm4") -> list[Object]:
    """Every object of one of the sets of values."""
    return objects(name, "--values", VALUES[case])


def with_values(*settings: str, case: str = "defaults") -> list[Object]:
    """The same with more values: `a.b=c`, c in JSON."""
    return objects("helm4", "--values", VALUES[case], *(part for each in settings for part in ("--set-json", each)))


def refused(*settings: str, name: str = "helm4", case: str = "defaults") -> str:
    """What helm says when it refuses the values."""
    given = [part for each in settings for part in ("--set-json", each)]
    done = helm(name, "template", "gw", CHART, "--values", VALUES[case], *given)
    assert done.returncode != 0, "it was taken"
    return done.stderr


def one(found: Iterable[Object], kind: str, name: str | None = None) -> Object:
    """The only object of a kind, or of a kind and a name."""
    matching = [each for each in found if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    assert len(matching) == 1, f"{len(matching)} of kind {kind}"
    return matching[0]


def kinds(found: Iterable[Object]) -> set[str]:
    return {each["kind"] for each in found}


def pod(found: Iterable[Object]) -> Object:
    """The spec of the gateway's pods."""
    spec: Object = one(found, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(found: Iterable[Object]) -> Object:
    first: Object = pod(found)["containers"][0]
    return first


def flags(found: Iterable[Object]) -> dict[str, str]:
    """The gateway's command line: flag -> value."""
    serve, *rest = container(found)["args"]
    assert serve == "serve"
    return dict(each.split("=", 1) for each in rest)


def streamgate_yaml(found: Iterable[Object]) -> str:
    """The file as the ConfigMap that is mounted has it."""
    name = pod(found)["volumes"][0]["configMap"]["name"]
    text: str = one(found, "ConfigMap", name)["data"]["streamgate.yaml"]
    return text


every_case = pytest.mark.parametrize("case", VALUES)
every_helm = pytest.mark.parametrize("name", HELMS)
