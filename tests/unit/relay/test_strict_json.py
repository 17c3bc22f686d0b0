"""Strict JSON, case by case: what passes, and the words for what does not."""

from __future__ import annotations

import pytest

from streamgate.relay.strict_json import BadJson, parse


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (b' \r\n\t{"a" : 1}\n', {"a": 1}),
        (b'{"a":{"b":1},"c":{"b":1}}', {"a": {"b": 1}, "c": {"b": 1}}),
        (b'{"a":1e308,"b":-0.0,"c":1E+2}', {"a": 1e308, "b": 0.0, "c": 100.0}),
        (b'{"a":' + b"9" * 4300 + b"}", {"a": int("9" * 4300)}),
        (b'{"a":1e-999}', {"a": 0.0}),
        ('{"ż":"🚲"}'.encode(), {"ż": "🚲"}),
        (b'{"a":"\\ud83d\\udeb2"}', {"a": "🚲"}),
        (b'{"a":"\\ud800"}', {"a": "\ud800"}),
        (b'{"NaN":"Infinity"}', {"NaN": "Infinity"}),
        (b'{"a":"' + b"[{" * 100 + b'"}', {"a": "[{" * 100}),
        (b'{"a":[' + b"[]," * 100 + b"[]]}", {"a": [[]] * 101}),
    ],
)
def test_good(body: bytes, value: object) -> None:
    """Plain JSON of any layout, with many brackets as long as they are not deep."""
    assert parse(body) == value


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "The body is not valid JSON: Expecting value at character 0."),
        (b'{"a":1', "The body is not valid JSON: Expecting ',' delimiter at character 6."),
        (b"{} {}", "The body is not valid JSON: Extra data at character 3."),
        (b"\xff", "The body is not valid UTF-8."),
        (b"[]", "The body must be a JSON object."),
        (b"null", "The body must be a JSON object."),
        (b'{"a":1,"a":2}', 'The key "a" appears twice in one object.'),
        (b'{"\\n\\"":1,"\\n\\"":2}', 'The key "\\n\\"" appears twice in one object.'),
        (b'{"' + b"k" * 100 + b'":1,"' + b"k" * 100 + b'":2}', f'The key "{"k" * 64}" appears twice in one object.'),
        (b'{"a":1e999}', "The body holds a number that is out of range."),
        (b'{"a":-1e999}', "The body holds a number that is out of range."),
        (b'{"a":NaN}', "NaN is not JSON."),
        (b'{"a":[-Infinity]}', "-Infinity is not JSON."),
        (b'{"a":' + b"9" * 4301 + b"}", "The body holds a number with too many digits."),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "The body is nested more than 64 levels deep."),
        (b"[" * 100_000 + b"]" * 100_000, "The body is nested more than 64 levels deep."),
    ],
)
def test_bad(body: bytes, words: str) -> None:
    """The sentence a client reads."""
    with pytest.raises(BadJson) as raised:
        parse(body)
    assert str(raised.value) == words
