"""What cannot hold is refused before anything is installed, all of it at once, in words that say what to do."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.helm.chart import CHART, HELMS, container, every_helm, flags, helm, one, pod, refused, with_values

OPEN = 'config.file={"keys": "none", "upstreams": [{"name": "a", "url": "http://a:1"}]}'


@pytest.mark.parametrize("lameduck, timeout, pre_stop, margin", [(5, 120, 0, 10), (0, 0, 0, 6), (15, 480, 5, 30)])
def test_the_grace_period_follows_from_the_drain(lameduck, timeout, pre_stop, margin):
    """Its sum, in one place; the gateway gets the same numbers as flags, which win over file and environment."""
    drain = {"lameduck": lameduck, "timeout": timeout, "preStopSleep": pre_stop, "margin": margin}
    found = with_values(f"drain={json.dumps(drain)}")
    assert pod(found)["terminationGracePeriodSeconds"] == lameduck + timeout + pre_stop + margin
    assert flags(found)["--drain-timeout"] == str(timeout)
    assert flags(found)["--lameduck"] == str(lameduck)
    hooks = {"preStop": {"sleep": {"seconds": pre_stop}}} if pre_stop else None
    assert container(found).get("lifecycle") == hooks


def test_a_grace_period_of_ones_own_may_be_longer():
    """It is taken as it is."""
    assert pod(with_values("terminationGracePeriodSeconds=400"))["terminationGracePeriodSeconds"] == 400


def test_a_grace_period_shorter_than_the_drain_is_refused():
    """By one second; the message has the sum."""
    said = refused("terminationGracePeriodSeconds=134")
    assert "134 s cannot hold a drain of 135 s (preStopSleep 0 + lameduck 5 + timeout 120 + margin 10)" in said


def test_a_grace_period_that_the_cluster_does_not_keep_is_refused():
    """cluster-autoscaler cuts at 600 s; who has raised that says so."""
    assert "would be 601 s, and drain.longestGrace is 600 s" in refused("drain.timeout=586")
    found = with_values("drain.timeout=586", "drain.longestGrace=601")
    assert pod(found)["terminationGracePeriodSeconds"] == 601


def test_a_margin_below_what_the_end_takes_is_refused():
    """Error events 1 s, closing 1 s, telemetry 2 s, logs 2 s."""
    assert "drain" in refused("drain.margin=5")


@pytest.mark.parametrize("flag", ["--drain-timeout=900", "--lameduck", "--config=/other", "--listen=0.0.0.0:1"])
def test_extra_flags_cannot_break_the_arithmetic(flag):
    """What the chart sets is the chart's to set."""
    assert f"extraArgs: {flag} is the chart's to set" in refused(f"extraArgs=[{json.dumps(flag)}]")


@every_helm
def test_everything_that_is_wrong_is_said_at_once(name):
    """One round for one mistake each would be ten rounds."""
    upstreams = [{"name": "a", "url": "http://a:1"}]
    file = {"listen": "x:1", "admin": {"listen": "x:2"}, "drain": {"timeout": 9}, "upstreams": upstreams}
    said = refused(
        f"config.file={json.dumps(file)}",
        'config.existingConfigMap="ours"',
        "terminationGracePeriodSeconds=1",
        "httpRoute.enabled=true",
        "ingress.enabled=true",
        "autoscaling.enabled=true",
        "autoscaling.minReplicas=11",
        'resources={"requests": {"cpu": null}}',
        name=name,
    )
    for path in (
        "terminationGracePeriodSeconds", "config.file.listen", "config.file.admin.listen", "config.file.drain",
        "config.file", "config.file.keys", "httpRoute.parentRefs", "ingress.hosts", "autoscaling.streamsPerReplica",
        "autoscaling.cpu", "autoscaling.minReplicas",
    ):  # fmt: skip
        assert f"\n- {path}: " in said, path


def test_upstreams_need_a_word_on_who_may_use_them():
    """The demo upstream is open; in front of a real one that must have been meant."""
    said = refused('config.file={"upstreams": [{"name": "a", "url": "http://a:1"}]}')
    assert "config.file.keys: with upstreams, say who may use them" in said
    assert with_values(OPEN)


def test_a_shared_limit_says_nothing_of_one_replica():
    """70 % of a limit that all replicas share is no target for each of them."""
    limits = {"concurrent": 100, "store": "redis://redis"}
    assert "autoscaling.streamsPerReplica" in refused(
        f'config.file={{"limits": {json.dumps(limits)}}}', "autoscaling.enabled=true"
    )


WRONG = {  # path in helm's message -> a value that it must not take
    "image": {"image": {"repo": "x"}},
    "image.pullPolicy": {"image": {"pullPolicy": "Sometimes"}},
    "image.digest": {"image": {"digest": "latest"}},
    "replicaCount": {"replicaCount": "three"},
    "nameOverride": {"nameOverride": "Not a name"},
    "config.onChange": {"config": {"onChange": "reboot"}},
    "config.file": {"config": {"file": {"upstream": []}}},
    "config.file.clocks": {"config": {"file": {"clocks": {"frist_token": 1}}}},
    "config.file.clocks.idle": {"config": {"file": {"clocks": {"idle": -1}}}},
    "drain.timeout": {"drain": {"timeout": "2m"}},
    "drain.lameduck": {"drain": {"lameduck": -1}},
    "strategy.maxSurge": {"strategy": {"maxSurge": "a lot"}},
    "bindAddress": {"bindAddress": "localhost"},
    "service.port": {"service": {"port": 70000}},
    "httpRoute.timeouts.request": {"httpRoute": {"timeouts": {"request": "15"}}},
    "autoscaling.kind": {"autoscaling": {"kind": "Vertical"}},
    "autoscaling.minReplicas": {"autoscaling": {"minReplicas": 0}},
    "monitor.interval": {"monitor": {"interval": "often"}},
    "prometheusRule.runbookBase": {"prometheusRule": {"runbookBase": "https://example.com"}},
    "prometheusRule.objectives.streams": {"prometheusRule": {"objectives": {"streams": 99.5}}},
    "podLabels.a": {"podLabels": {"a": 1}},
    "probes.liveness": {"probes": {"liveness": {"every": 1}}},
    "extraEnv.0": {"extraEnv": [{"value": "nameless"}]},
    "extraVolumes": {"extraVolumes": {}},
    "tests.timeout": {"tests": {"timeout": 0}},
}


@pytest.mark.parametrize("name", HELMS)
def test_the_schema_refuses_wrong_values(name, tmp_path):
    """Each helm names every one of them, those inside `config.file` too."""
    merged: dict = {}
    for wrong in WRONG.values():
        merge(merged, wrong)
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(merged))
    done = helm(name, "template", "gw", CHART, "--values", values)
    assert done.returncode != 0
    said = done.stderr.replace("'", "").replace("/", ".")
    for path in WRONG:
        assert f" .{path}:" in said or f"- {path}:" in said, f"{path}\n{done.stderr}"


def merge(into: dict, more: dict) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def test_a_parent_chart_may_add_its_own_keys():
    """`global` and a condition's `enabled` are no mistakes."""
    assert one(with_values('global={"region": "eu"}', "enabled=true"), "Deployment")
