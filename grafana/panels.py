"""How a panel, a variable and a dashboard look as Grafana's JSON. What is on them is in dashboards.py.

Expressions are written with three short words: HERE stands for the selection of replicas, JOB for that of recorded
series (which have no instance), WINDOW for Grafana's own rate interval.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WORDS = {
    "HERE": 'JOB, instance=~"$instance"',
    "JOB": 'cluster=~"$cluster", namespace=~"$namespace", job=~"$job"',
    "WINDOW": "$__rate_interval",
}
COLUMNS = 24  # of Grafana's grid
# kind: (width, height) in the grid's cells; three graphs or six numbers in a row
SIZES = {"stat": (4, 5), "timeseries": (8, 8), "heatmap": (12, 9), "table": (8, 8)}


def expression(short: str) -> str:
    """PromQL as Grafana gets it."""
    for word, meaning in WORDS.items():
        short = short.replace(word, meaning)
    return short


def panel(kind: str, title: str, description: str, unit: str, targets: list[Json], **more: Any) -> Json:
    """A panel without its place; `more` is merged over the top level."""
    defaults: Json = {"unit": unit, "custom": {}} | more.pop("defaults", {})
    if unit == "percentunit":
        defaults |= {"max": 1}
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [each | {"refId": chr(ord("A") + number)} for number, each in enumerate(targets)],
    } | more


def target(short: str, legend: str = "", **more: Any) -> Json:
    """One query."""
    return {"datasource": SOURCE, "expr": expression(short), "legendFormat": legend, "range": True} | more


def number(title: str, description: str, unit: str, short: str, *, good_above: float | None = None) -> Json:
    """One large number, the newest; red below `good_above`."""
    steps: list[Json] = [{"color": "text", "value": None}]
    if good_above is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": good_above}]
    return panel(
        "stat", title, description, unit, [target(short)],
        defaults={"thresholds": {"mode": "absolute", "steps": steps}, "color": {"mode": "thresholds"}},
        options={"colorMode": "value", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}},
    )  # fmt: skip


def graph(title: str, description: str, unit: str, *queries: tuple[str, str], stacked: bool = False) -> Json:
    """Lines over time from (expression, legend) pairs; latency quantiles carry exemplars that lead to traces."""
    drawn: Json = {"lineWidth": 1, "fillOpacity": 60 if stacked else 5, "showPoints": "never"}
    if stacked:
        drawn["stacking"] = {"mode": "normal", "group": "A"}
    targets = [target(short, legend, exemplar="_bucket{" in short) for short, legend in queries]
    return panel(
        "timeseries", title, description, unit, targets,
        defaults={"custom": drawn, "min": 0},
        options={"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
                 "tooltip": {"mode": "multi", "sort": "desc"}},
    )  # fmt: skip


def heatmap(title: str, description: str, histogram: str, where: str = "HERE") -> Json:
    """How a histogram's values are spread over time, in seconds."""
    query = target(f"sum by (le) (increase({histogram}_bucket{{{where}}}[WINDOW]))", "{{le}}", format="heatmap")
    return panel(
        "heatmap", title, description, "s", [query | {"exemplar": True}],
        options={"calculate": False, "cellGap": 1, "yAxis": {"unit": "s"}, "rowsFrame": {"layout": "le"},
                 "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
                 "exemplars": {"color": "rgba(110, 64, 201, 0.8)"}, "tooltip": {"mode": "single"}},
    )  # fmt: skip


def table(title: str, description: str, unit: str, short: str) -> Json:
    """The newest value of each label set."""
    query = target(short, format="table", instant=True) | {"range": False}
    hidden = {"id": "organize", "options": {"excludeByName": {"Time": True}}}
    return panel("table", title, description, unit, [query], transformations=[hidden])


def quantiles(histogram: str, *each: float, by: str = "", where: str = "HERE") -> list[tuple[str, str]]:
    """(expression, legend) of a histogram's quantiles, one line per value of the label `by` (or of several)."""
    labels = f"le, {by}" if by else "le"
    legend = "".join(f" {{{{{label}}}}}" for label in by.split(", ") if by)
    return [
        (
            f"histogram_quantile({q}, sum by ({labels}) (rate({histogram}_bucket{{{where}}}[WINDOW])))",
            f"p{q * 100:g}{legend}",
        )
        for q in each
    ]


def variable(name: str, query: str, label: str) -> Json:
    """A choice of label values; all of them at first, which is also right where no such label exists."""
    return {
        "type": "query", "name": name, "label": label, "datasource": SOURCE,
        "query": {"query": expression(query), "refId": name}, "definition": expression(query),
        "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }  # fmt: skip


VARIABLES: dict[str, Json] = {
    "cluster": variable("cluster", "label_values(streamgate_build_info, cluster)", "cluster"),
    "namespace": variable("namespace", "label_values(streamgate_build_info, namespace)", "namespace"),
    "job": variable("job", "label_values(streamgate_build_info, job)", "job"),
    "instance": variable("instance", "label_values(streamgate_build_info{JOB}, instance)", "replica"),
    "model": variable("model", "label_values(streamgate_streams_total{HERE}, model)", "model"),
    "upstream": variable("upstream", "label_values(streamgate_streams_total{HERE}, upstream)", "upstream"),
}

EVERYWHERE = ("cluster", "namespace", "job", "instance")


def annotation(name: str, color: str, short: str, text: str) -> Json:
    """A mark on every graph for as long as the expression has a value."""
    return {
        "name": name, "datasource": SOURCE, "enable": True, "iconColor": color, "expr": expression(short),
        "titleFormat": name, "textFormat": text, "step": "60s",
    }  # fmt: skip


ANNOTATIONS = [
    annotation(
        "new version", "blue",  # one that was not there five minutes ago
        "max by (version) (streamgate_build_info{HERE})"
        " unless max by (version) (streamgate_build_info{HERE} offset 5m)",
        "{{version}}",
    ),
    annotation("draining", "yellow", "max by (instance) (streamgate_draining{HERE}) == 1", "{{instance}}"),
    annotation(
        "alert", "red",
        'max by (alertname, severity) (ALERTS{alertname=~"Streamgate.+", alertstate="firing"})',
        "{{alertname}} {{severity}}",
    ),
]  # fmt: skip


def dashboard(uid: str, title: str, description: str, panels: list[Json], *choices: str) -> Json:
    """A whole dashboard; `choices` are variables beside those that every dashboard has."""
    datasource = {"type": "datasource", "name": "datasource", "label": "data source", "query": "prometheus"}
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["streamgate"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [datasource, *(VARIABLES[name] for name in EVERYWHERE + choices)]},
        "annotations": {"list": ANNOTATIONS},
        "links": [{"type": "dashboards", "title": "streamgate", "tags": ["streamgate"], "asDropdown": True,
                   "keepTime": True, "includeVars": True}],
        "panels": placed(panels),
    }  # fmt: skip


def placed(panels: list[Json]) -> list[Json]:
    """Give each panel its number and its place: left to right, a new line when the row is full."""
    done: list[Json] = []
    x = y = tallest = 0
    for number_, each in enumerate(panels, start=1):
        width, height = SIZES[each["type"]]
        if x + width > COLUMNS:
            x, y, tallest = 0, y + tallest, 0
        done.append({"id": number_} | each | {"gridPos": {"x": x, "y": y, "w": width, "h": height}})
        x, tallest = x + width, max(tallest, height)
    return done
