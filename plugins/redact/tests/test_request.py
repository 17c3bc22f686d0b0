"""Every string of a request that a model could read is looked at; what is no text stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from streamgate_redact.request import Unreadable, hidden


def hide(text: str) -> str:
    return text.replace("secret", "#")


def messages(*content: Any) -> dict[str, Any]:
    return {"model": "secret", "messages": [{"role": "user", "content": each} for each in content]}


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (messages("a secret", None), messages("a #", None)),
        (messages([{"type": "text", "text": "secret"}]), messages([{"type": "text", "text": "#"}])),
        (messages([{"content": [{"text": "secret"}]}]), messages([{"content": [{"text": "#"}]}])),
        ({"prompt": "secret", "suffix": "secret"}, {"prompt": "#", "suffix": "#"}),
        ({"prompt": ["secret", "b"]}, {"prompt": ["#", "b"]}),
        ({"messages": [{"reasoning": "secret", "refusal": "a"}]}, {"messages": [{"reasoning": "#", "refusal": "a"}]}),
        ({"prediction": {"type": "content", "content": "secret"}}, {"prediction": {"type": "content", "content": "#"}}),
    ],
)  # fmt: skip
def test_text_is_read_wherever_it_stands(body: dict[str, Any], read: dict[str, Any]):
    """Strings, parts and parts of parts; the request that was given stays as it was."""
    before = json.dumps(body)
    assert hidden(body, hide) == read
    assert json.dumps(body) == before


@pytest.mark.parametrize(
    "body",
    [
        messages("nothing"),
        messages([{"type": "image_url", "image_url": {"url": "data:secret"}}, {"input_audio": {"data": "secret"}}]),
        {"messages": [{"role": "secret", "name": "secret", "tool_call_id": "secret"}]},
        {"user": "secret", "metadata": {"a": "secret"}, "prompt": "x"},
        {"messages": None, "prompt": None, "input": 3},
    ],
)  # fmt: skip
def test_what_is_no_text_is_left(body: dict[str, Any]):
    """The same object: the request then goes on byte for byte."""
    assert hidden(body, hide) is body


def call(arguments: str) -> dict[str, Any]:
    return {"messages": [{"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": arguments}}]}]}


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ('{"name": ["a\\nsecret", 1], "x": {"url": "secret"}}', '{"name": ["a\\n#", 1], "x": {"url": "#"}}'),
        ('{"a":  1.50}', '{"a":  1.50}'),
        ("{broken secret", "{broken #"),
    ],
)
def test_arguments_of_tools_are_read_as_what_they_are(arguments: str, read: str):
    """JSON within a string: what is hidden in it leaves good JSON; without anything to hide it stays to the byte."""
    assert hidden(call(arguments), hide) == call(read)


@pytest.mark.parametrize("prompt", [[1, 2], [[1, 2], [3]], ["a", 1]])
def test_token_ids_are_unreadable(prompt: Any):
    """What they say only the model's tokenizer knows."""
    with pytest.raises(Unreadable):
        hidden({"prompt": prompt}, hide)
