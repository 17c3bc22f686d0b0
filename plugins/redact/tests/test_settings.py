"""Mistakes in the settings are said where they are."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from streamgate_redact import RedactSettings

ONE = {"name": "one", "regex": "abc", "longest": 3}


@pytest.mark.parametrize(
    ("settings", "where", "said"),
    [
        ({"direction": []}, ("direction",), "at least 1"),
        ({"direction": ["up"]}, ("direction", 0), "'in' or 'out'"),
        ({"patterns": ["mail"]}, ("patterns", 0), "'email'"),
        ({"patterns": []}, (), "at least one of patterns and custom"),
        ({"patterns": ["email", "email"]}, (), "each name once"),
        ({"custom": [ONE, ONE]}, (), "each name once"),
        ({"custom": [ONE | {"name": "email"}], "patterns": ["card"]}, (), "no custom one named as a built-in"),
        ({"custom": [ONE | {"name": "One"}]}, ("custom", 0, "name"), "should match pattern"),
        ({"custom": [{"name": "one", "regex": "abc"}]}, ("custom", 0, "longest"), "Field required"),
        ({"custom": [ONE | {"longest": 5000}]}, ("custom", 0, "longest"), "less than or equal to 4096"),
        ({"custom": [ONE | {"longest": 2}]}, ("custom", 0), "3 characters at least, and longest is 2"),
        ({"custom": [ONE | {"regex": "[a"}]}, ("custom", 0), "unterminated character set"),
        ({"custom": [ONE | {"regex": "abc$"}]}, ("custom", 0), "end of all text"),
        ({"custom": [ONE | {"regex": "a?"}]}, ("custom", 0), "where there is nothing"),
        ({"custom": [ONE | {"regex": "(" * 400 + "a" + ")" * 400}]}, ("custom", 0), "can be followed"),
        ({"labels": {"phone": "[tel]"}}, (), "not for phone"),
        ({"labels": {"email": "MAIL"}}, (), "begin and end with a bracket"),
        ({"labels": {"email": "[a@b.com]"}}, (), "nothing to hide"),
        ({"labels": {"email": ""}}, ("labels", "email"), "at least 1"),
        ({"trusted": ["gpu"], "direction": ["out"]}, (), "direction to have in"),
        ({"replacement": "hash"}, (), "expected hash_key"),
        ({"hash_key": "0123456789abcdef"}, (), "expected hash_key with replacement: hash"),
        ({"replacement": "hash", "hash_key": "short"}, ("hash_key",), "at least 16"),
        ({"replacement": "hash", "hash_key": "${NOT_SET}"}, ("hash_key",), "variable NOT_SET to be set"),
        ({"replacement": "hash", "hash_key": 5}, ("hash_key",), "valid string"),
        ({"replacement": "hash", "hash_key": "0123456789abcdef", "labels": {"email": "<>"}}, (), "labels only with"),
        ({"pattern": ["email"]}, ("pattern",), "Extra inputs"),
    ],
)
def test_a_mistake_is_named_with_its_key(settings: dict[str, Any], where: tuple[str, ...], said: str):
    """Each error has the key's path and says what was expected."""
    with pytest.raises(ValidationError) as raised:
        RedactSettings.model_validate(settings)
    assert raised.value.errors()[0]["loc"] == where
    assert said in raised.value.errors()[0]["msg"]


def test_the_key_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch):
    """`${NAME}`; printed settings hide it."""
    monkeypatch.setenv("REDACT_KEY", "0123456789abcdef")
    settings = RedactSettings.model_validate({"replacement": "hash", "hash_key": "${REDACT_KEY}"})
    assert settings.hash_key is not None
    assert settings.hash_key.get_secret_value() == "0123456789abcdef"
    assert "0123456789" not in repr(settings)


def test_custom_patterns_come_before_the_built_in_ones():
    """Where both match, the operator's own word counts."""
    settings = RedactSettings.model_validate({"custom": [ONE], "patterns": ["card", "email"]})
    assert [rule.name for rule in settings.rules()] == ["one", "card", "email"]
