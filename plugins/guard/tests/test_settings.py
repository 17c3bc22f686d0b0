"""Mistakes in the settings are said where they are."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from streamgate_guard import ClassifierSettings, GuardSettings

ONE = {"name": "one", "regex": "abc", "longest": 3}
URL = {"url": "http://127.0.0.1:1/"}


@pytest.mark.parametrize(
    ("model", "settings", "where", "said"),
    [
        (GuardSettings, {}, ("patterns",), "Field required"),
        (GuardSettings, {"patterns": []}, ("patterns",), "at least 1"),
        (GuardSettings, {"patterns": [ONE, ONE]}, (), "each name once"),
        (
            GuardSettings,
            {"patterns": [ONE | {"regex": "("}]},
            ("patterns", 0, "regex"),
            "expected a regular expression",
        ),
        (GuardSettings, {"patterns": [ONE | {"regex": "a*"}]}, ("patterns", 0, "regex"), "where there is nothing"),
        (GuardSettings, {"patterns": [ONE | {"longest": 0}]}, ("patterns", 0, "longest"), "greater"),
        (GuardSettings, {"patterns": [ONE], "kinds": []}, ("kinds",), "at least 1"),
        (GuardSettings, {"patterns": [ONE], "mode": "stop"}, ("mode",), "'block' or 'watch'"),
        (GuardSettings, {"patterns": [ONE], "mod": "watch"}, ("mod",), "Extra inputs"),
        (ClassifierSettings, {"url": "localhost:80"}, ("url",), "expected http://host"),
        (ClassifierSettings, {"url": "http://me:key@host/"}, ("url",), "without a user"),
        (ClassifierSettings, URL | {"window": 100, "overlap": 51}, (), "at most half"),
        (ClassifierSettings, URL | {"model": "x"}, (), "only with format: openai"),
        (ClassifierSettings, URL | {"headers": {"a": "${NOT_SET}"}}, ("headers", "a"), "variable NOT_SET"),
        (ClassifierSettings, URL | {"headers": {"a": 1}}, ("headers", "a"), "valid string"),
        (ClassifierSettings, URL | {"deadline": 0}, ("deadline",), "greater than 0"),
    ],
)
def test_a_mistake_is_named_with_its_key(
    model: type[BaseModel], settings: dict[str, Any], where: tuple[str, ...], said: str
):
    """Each error has the key's path and says what was expected."""
    with pytest.raises(ValidationError) as raised:
        model.model_validate(settings)
    assert raised.value.errors()[0]["loc"] == where
    assert said in raised.value.errors()[0]["msg"]
