"""Mistakes in the settings are said where they are."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from streamgate_budget.settings import BudgetSettings

ONE = [{"tokens": 1}]


@pytest.mark.parametrize(
    ("settings", "where", "said"),
    [
        ({}, ("limits",), "Field required"),
        ({"limits": []}, ("limits",), "at least 1"),
        ({"limits": [{"tokens": 1, "money": 1}]}, ("limits", 0), "expected either tokens or money"),
        ({"limits": [{}]}, ("limits", 0), "expected either tokens or money"),
        ({"limits": [{"money": 1}]}, (), "expected prices"),
        ({"limits": [{"tokens": 1, "period": "week"}]}, ("limits", 0, "period"), "'hour', 'day' or 'month'"),
        ({"limits": ONE, "zone": "Mars/Olympus"}, ("zone",), "expected the name of a time zone"),
        ({"limits": ONE, "zone": "../etc/passwd"}, ("zone",), "expected the name of a time zone"),
        ({"limits": ONE, "redis": "localhost"}, ("redis",), "expected redis://"),
        ({"limits": ONE, "redis": 6379}, ("redis",), "valid string"),
        ({"limits": ONE, "redis": "${NOT_SET}"}, ("redis",), "variable NOT_SET to be set"),
        ({"limits": ONE, "redis": "redis://h", "sqlite": "x"}, (), "either sqlite or redis"),
        ({"limits": ONE, "prices": [{"models": ["a"], "input": -1, "output": 1}]}, ("prices", 0, "input"), "greater"),
        ({"limits": ONE, "wran_at": 1}, ("wran_at",), "Extra inputs"),
    ],
)
def test_a_mistake_is_named_with_its_key(settings: dict[str, Any], where: tuple[str, ...], said: str):
    """Each error has the key's path and says what was expected."""
    with pytest.raises(ValidationError) as raised:
        BudgetSettings.model_validate(settings)
    assert raised.value.errors()[0]["loc"] == where
    assert said in raised.value.errors()[0]["msg"]


def test_an_address_of_redis_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch):
    """`${NAME}`, from the validation's context where there is one."""
    monkeypatch.setenv("BUDGET_REDIS", "redis://:sesame@h")
    settings = BudgetSettings(limits=ONE, redis="${BUDGET_REDIS}")
    assert "sesame" not in repr(settings) + settings.model_dump_json()
    context = {"environ": {"BUDGET_REDIS": "redis://other"}}
    found = BudgetSettings.model_validate({"limits": ONE, "redis": "${BUDGET_REDIS}"}, context=context).redis
    assert found is not None and found.get_secret_value() == "redis://other"


def test_a_zone_is_any_of_the_zone_database():
    """It comes with the plugin, for machines without one."""
    assert BudgetSettings(limits=ONE, zone="Europe/Zurich").zone == "Europe/Zurich"
