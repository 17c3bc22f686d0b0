"""What the dashboards and the rules ask of Prometheus, read from their files."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import yaml

ROOT = Path(__file__).parents[1]
GRAFANA = ROOT / "grafana"
DEPLOY = ROOT / "deploy" / "prometheus"


class Asked(NamedTuple):
    """One expression and where it is."""

    where: str
    expr: str


def source() -> Any:
    """grafana/dashboards.py as a module; it finds panels.py beside it, as it does when it is run."""
    sys.path.insert(0, str(GRAFANA))
    try:
        return importlib.import_module("dashboards")
    finally:
        sys.path.remove(str(GRAFANA))


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(GRAFANA.glob("*.json"))]


def panels() -> list[Asked]:
    """Every query of every panel, with Grafana's variables replaced by what they are at first."""
    return [
        Asked(f"{dashboard['uid']}: {panel['title']}", plain(target["expr"]))
        for dashboard in dashboards()
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]


def annotations() -> list[Asked]:
    return [Asked(each["name"], plain(each["expr"])) for each in dashboards()[0]["annotations"]["list"]]


def plain(expr: str) -> str:
    return re.sub(r"\$(?:cluster|namespace|job|instance|model|upstream)", ".*", expr.replace("$__rate_interval", "5m"))


def rules(kind: str) -> list[dict[str, Any]]:
    """All rules of a kind: `record` or `alert`."""
    files = [yaml.safe_load((DEPLOY / name).read_text()) for name in ("recording.yml", "alerts.yml")]
    return [rule for file in files for group in file["groups"] for rule in group["rules"] if kind in rule]


def ruled(kind: str) -> list[Asked]:
    return [Asked(rule[kind], rule["expr"]) for rule in rules(kind)]


def nodes(expr: str) -> list[Any]:
    """Every part of an expression."""
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(expr), found.append)
    return found


def selectors(expr: str) -> list[Any]:
    return [node for node in nodes(expr) if isinstance(node, promql_parser.VectorSelector)]


def matchers(selector: Any) -> dict[str, str]:
    return {each.name: each.value for each in selector.matchers.matchers}


def metric_of(series: str, known: set[str]) -> str:
    """The metric that a series belongs to: a histogram has series of three names."""
    base = re.sub(r"_(?:bucket|count|sum)$", "", series)
    return base if base in known else series


def within(expr: str, window: str) -> str:
    """The same expression over a short time."""
    return re.sub(r"\[\d+[smhd]\]", f"[{window}]", expr)
