"""promtool's word on the rules: valid, and each alert fires in its fault and is silent beside it."""

from __future__ import annotations

import subprocess

import promql
import pytest


def test_the_rules_are_valid(need):
    """promtool accepts them, with nothing to warn of."""
    files = ["recording.yml", "alerts.yml"]
    checked = subprocess.run(
        [need("promtool"), "check", "rules", "--lint-fatal", *files], cwd=promql.DEPLOY, check=False
    )
    assert checked.returncode == 0


def test_the_example_configuration_is_valid(need):
    """It names rule files that exist."""
    checked = subprocess.run([need("promtool"), "check", "config", "prometheus.yml"], cwd=promql.DEPLOY, check=False)
    assert checked.returncode == 0


@pytest.mark.parametrize("cases", sorted(promql.DEPLOY.glob("tests/*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_in_their_fault_only(cases, need):
    """The cases of promtool's own test format hold."""
    run = subprocess.run(
        [need("promtool"), "test", "rules", cases.name], cwd=cases.parent, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
