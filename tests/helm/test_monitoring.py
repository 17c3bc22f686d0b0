"""Rules, dashboards and scrapes are the project's own, and find each other."""

from __future__ import annotations

import json
import subprocess

import promql_parser
import pytest
import yaml

from tests.helm.chart import CHART, one, rendered, with_values


def rules(case: str) -> dict[str, dict]:
    """Every rule by its name."""
    groups = one(rendered(case), "PrometheusRule")["spec"]["groups"]
    return {rule.get("record", rule.get("alert")): rule for group in groups for rule in group["rules"]}


@pytest.mark.parametrize("case", ["everything", "operator"])
def test_promtool_takes_the_rules(case, need, tmp_path):
    """As they are installed, with what the values changed."""
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(one(rendered(case), "PrometheusRule")["spec"]))
    checked = subprocess.run([need("promtool"), "check", "rules", "--lint-fatal", file], check=False)
    assert checked.returncode == 0


def test_the_rules_are_the_projects_own():
    """With default values nothing is changed: both files in one object. That they are the project's: test_generated."""
    files = [yaml.safe_load((CHART / "files" / f"{name}.yml").read_text()) for name in ("recording", "alerts")]
    groups = one(rendered("operator"), "PrometheusRule")["spec"]["groups"]
    assert groups == [group for file in files for group in file["groups"]]


def test_objectives_and_addresses_are_values():
    """Shares, the bucket of the first token's threshold, where runbooks are read."""
    plain, ours = rules("operator"), rules("everything")
    assert plain["streamgate:streams_objective:ratio"]["expr"] == "vector(0.995)"
    assert ours["streamgate:streams_objective:ratio"]["expr"] == "vector(0.999)"
    assert ours["streamgate:ttft_objective:ratio"]["expr"] == "vector(0.9)"
    assert 'le="2.0"' in plain["streamgate:ttft_slow:rate5m"]["expr"]
    assert 'le="1.5"' in ours["streamgate:ttft_slow:rate5m"]["expr"]
    alert = ours["StreamgateStreamsStalled"]["annotations"]["runbook_url"]
    assert alert == "https://git.example.com/streamgate/blob/main/docs/runbooks.md#streamgatestreamsstalled"
    assert "Ours" in ours


@pytest.mark.parametrize("promised, bound", [(3, "3.0"), (0.25, "0.25"), (0, "2.0")])
def test_the_threshold_is_written_as_the_bucket_is(promised, bound):
    """3 is the bucket 3.0: without the point nothing would ever be in time. 0 is no promise, and no bucket."""
    file = json.dumps({"observe": {"slo": {"time_to_first_token": promised}}})
    found = with_values(f"config.file={file}", "prometheusRule.enabled=true")
    assert f'le=\\"{bound}\\"' in json.dumps(one(found, "PrometheusRule"))


def test_dashboards_are_the_projects_own():
    """Byte for byte, with the label that Grafana's sidecar looks for."""
    found = one(rendered("operator"), "ConfigMap", "gw-streamgate-dashboards")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["data"] == {path.name: path.read_text() for path in (CHART / "files").glob("*.json")}


@pytest.mark.parametrize("case", ["everything", "operator"])
def test_a_monitor_finds_the_pods(case):
    """A PodMonitor the pods, a ServiceMonitor the headless Service, which has those that drain too."""
    found = rendered(case)
    kind = "PodMonitor" if case == "everything" else "ServiceMonitor"
    monitor = one(found, kind)["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    if kind == "PodMonitor":
        assert wanted <= one(found, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
        (endpoint,) = monitor["podMetricsEndpoints"]
    else:
        admin = one(found, "Service", "gw-streamgate-admin")
        assert wanted <= admin["metadata"]["labels"].items()
        assert not wanted <= one(found, "Service", "gw-streamgate")["metadata"]["labels"].items()
        assert admin["spec"]["publishNotReadyAddresses"] is True
        (endpoint,) = monitor["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("admin", "/metrics")
    assert endpoint["relabelings"][0] == {"targetLabel": "job", "replacement": "gw-streamgate"}


def test_the_job_always_has_the_word_that_alerts_look_for():
    """StreamgateReplicaDown asks for job=~".*streamgate.*", whatever the release is called; KEDA asks for the same."""
    alerts = (CHART / "files" / "alerts.yml").read_text()
    assert 'job=~".*streamgate.*"' in alerts
    found = with_values("monitor.enabled=true", case="keda")
    job = one(found, "PodMonitor")["spec"]["podMetricsEndpoints"][0]["relabelings"][0]["replacement"]
    query = one(found, "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    assert job == "streamgate-gateway"
    assert f'job="{job}"' in query
    assert 'namespace="llm"' in query
    assert promql_parser.parse(query)


def test_the_container_has_the_name_that_an_alert_looks_for():
    """StreamgateMemoryNearLimit asks for container="streamgate"."""
    assert 'container="streamgate"' in (CHART / "files" / "alerts.yml").read_text()
    spec = one(rendered("defaults"), "Deployment")["spec"]["template"]["spec"]
    assert spec["containers"][0]["name"] == "streamgate"
