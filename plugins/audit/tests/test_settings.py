"""Mistakes in the settings are said where they are."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from streamgate_audit import AuditSettings


@pytest.mark.parametrize(
    ("settings", "where", "said"),
    [
        ({}, ("file",), "Field required"),
        ({"file": "folder/"}, ("file",), "match"),
        ({"file": "f", "fsync": "often"}, ("fsync",), "'never', 'second' or 'batch'"),
        ({"file": "f", "content": "hash"}, (), "expected a salt"),
        ({"file": "f", "salt": "sesame sesame sesame"}, ("salt",), "expected a reference"),
        ({"file": "f", "salt": "${NOT_SET}"}, ("salt",), "NOT_SET to hold at least 16"),
        ({"file": "f", "salt": "${SHORT}"}, ("salt",), "SHORT to hold at least 16"),
        ({"file": "f", "keep": -1}, ("keep",), "greater"),
        ({"file": "f", "path": "x"}, ("path",), "Extra inputs"),
    ],
)
def test_a_mistake_is_named_with_its_key(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], where: tuple[str, ...], said: str
):
    """Each error has the key's path and says what was expected."""
    monkeypatch.setenv("SHORT", "sesame")
    with pytest.raises(ValidationError) as raised:
        AuditSettings.model_validate(settings)
    assert raised.value.errors()[0]["loc"] == where
    assert said in raised.value.errors()[0]["msg"]


def test_the_salt_is_not_shown():
    """It comes from the environment, here the validation's context."""
    context = {"environ": {"SALT": "0123456789abcdef"}}
    settings = AuditSettings.model_validate({"file": "f", "content": "hash", "salt": "${SALT}"}, context=context)
    assert "0123456789" not in repr(settings) + settings.model_dump_json()
    assert settings.salt is not None and settings.salt.get_secret_value() == "0123456789abcdef"
