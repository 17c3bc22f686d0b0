"""Dashboards, rules, metrics and runbooks speak of the same things."""

from __future__ import annotations

import re

import promql
import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from streamgate.control.settings import Config
from streamgate.observe.metrics import METRICS
from streamgate.record import Outcome

KNOWN = {metric.name: metric for metric in METRICS}
RECORDED = {rule["record"] for rule in promql.rules("record")}
ASKED = [*promql.panels(), *promql.annotations(), *promql.ruled("record"), *promql.ruled("alert")]

# Prometheus' own, the stock metrics of a process, and kube-state-metrics.
FOREIGN = re.compile(r"(?:up|ALERTS|scrape_.*|prometheus_.*|process_.*|kube_.*)")

# Labels that Prometheus adds to every series of a target.
TARGET = {"cluster", "namespace", "job", "instance"}

# metric: why it is on no dashboard and in no rule
NOT_SHOWN: dict[str, str] = {}


def test_the_json_is_what_the_source_writes():
    """`make docs` was run after the last change of a dashboard, and nothing else lies there."""
    source = promql.source()
    assert {path.name for path in promql.GRAFANA.glob("*.json")} == {
        source.path(each).name for each in source.DASHBOARDS
    }
    for each in source.DASHBOARDS:
        assert source.path(each).read_text() == source.written(each), each["uid"]


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.where)
def test_every_metric_that_is_asked_for_exists(asked):
    """Its name, and the labels that it is selected by, are in docs/metrics.md; a recorded series is recorded."""
    for selector in promql.selectors(asked.expr):
        name = promql.metric_of(selector.name, set(KNOWN))
        assert name in KNOWN or name in RECORDED or FOREIGN.fullmatch(name), name
        if name in KNOWN:
            bucket = {"le"} if KNOWN[name].bounds else set()
            assert set(promql.matchers(selector)) <= {*KNOWN[name].labels} | TARGET | bucket, selector.prettify()


def test_every_metric_is_asked_for():
    """On a panel or in a rule, or listed here with the reason."""
    asked = {promql.metric_of(each.name, set(KNOWN)) for query in ASKED for each in promql.selectors(query.expr)}
    assert {name for name in KNOWN if name not in asked} == set(NOT_SHOWN)


def test_every_recorded_series_is_asked_for():
    """A rule that nobody reads costs and says nothing."""
    assert {each.name for query in ASKED for each in promql.selectors(query.expr)} >= RECORDED


def test_the_outcomes_in_expressions_are_the_classes_of_the_code():
    """Wherever outcomes are left out or picked by their names, the names are those of record.Outcome."""
    client = {outcome.value for outcome in Outcome if outcome.klass == "client"}
    words = {outcome.value for outcome in Outcome}
    for asked in ASKED:
        for named in re.findall(r'outcome([!=~]+)"([a-z_|]+)"', asked.expr):
            operator, values = named[0], set(named[1].split("|"))
            assert values <= words, asked
            assert operator != "!~" or values in (client, client | {"completed"}), asked


def test_a_threshold_is_a_bucket_of_the_default_configuration():
    """Between two bounds a histogram knows nothing: a rule with another threshold would never see a token in time."""
    slo = Config().observe.slo
    found = [
        (selector.name, promql.matchers(selector)["le"])
        for rule in promql.ruled("record")
        for selector in promql.selectors(rule.expr)
        if "le" in promql.matchers(selector)
    ]
    assert found == [("streamgate_time_to_first_token_seconds_bucket", str(float(slo.time_to_first_token)))]


UNITS = {"short", "percentunit", "s", "reqps", "cps", "bytes", "Bps"}


@pytest.mark.parametrize("dashboard", promql.dashboards(), ids=lambda each: each["uid"])
def test_a_dashboard_is_made_well(dashboard):
    """Grafana's dashboard-linter's rules: one data source variable, all described, rates over Grafana's interval."""
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert [name for name, each in variables.items() if each["type"] == "datasource"] == ["datasource"]
    assert dashboard["editable"] is False
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        assert panel["title"] and panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert set(re.findall(r"\$(?!__)(\w+)", target["expr"])) <= set(variables)
            assert not re.search(r"\[\d", target["expr"]), target["expr"]
    Dashboard.from_json(dashboard)


@pytest.mark.parametrize("asked", promql.panels(), ids=lambda asked: asked.where)
def test_a_counter_is_shown_as_a_rate(asked):
    """Never as the bare number, which falls at every restart."""
    bare = promql.nodes(re.sub(r"(?:rate|increase)\([^()]*\[\d+m\]\)", "one", asked.expr))
    for node in bare:
        assert not getattr(node, "name", "").endswith(("_total", "_bucket")), asked.expr


def test_titles_and_uids_are_unique():
    """Two dashboards of one uid overwrite each other."""
    uids = [each["uid"] for each in promql.dashboards()]
    assert len(set(uids)) == len(uids) == 6
    assert all(re.fullmatch(r"streamgate-[a-z]+", uid) for uid in uids)


@pytest.mark.parametrize("rule", promql.rules("alert"), ids=lambda rule: rule["alert"])
def test_every_alert_has_its_runbook_and_its_tests(rule):
    """A section in docs/runbooks.md, and with promtool a case in which it fires and one in which it does not."""
    page, anchor = rule["annotations"]["runbook_url"].split("#")
    sections = re.findall(r"^## (\w+)$", (promql.ROOT / page).read_text(), re.MULTILINE)
    assert anchor == rule["alert"].lower() and rule["alert"] in sections
    assert rule["labels"]["severity"] in ("page", "ticket") and rule["annotations"]["summary"]
    cases = [yaml.safe_load(path.read_text()) for path in promql.DEPLOY.glob("tests/*.yml")]
    checks = [check for case in cases for test in case["tests"] for check in test["alert_rule_test"]]
    expected = [bool(check["exp_alerts"]) for check in checks if check["alertname"] == rule["alert"]]
    assert set(expected) == {True, False}


def test_every_runbook_has_its_alert():
    """No section outlives what it is about, and its severity is the alert's."""
    page = (promql.ROOT / "docs" / "runbooks.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n\n\*(\w+)\.\*", page, re.MULTILINE))
    severities = {rule["alert"]: rule["labels"]["severity"].capitalize() for rule in promql.rules("alert")}
    assert sections == severities
    assert set(re.findall(r"\]\(#(\w+)\)", page)) <= {name.lower() for name in severities}
