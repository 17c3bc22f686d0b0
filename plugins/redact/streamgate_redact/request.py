"""The texts of a request: every string that a model could read, wherever it stands in the messages or the prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

Hide = Callable[[str], str]

READ: Final = ("messages", "prompt", "suffix", "prediction", "input", "instructions", "system", "documents")
# Words of the protocol, addresses, and files as base64: no text, and changed they mean nothing.
KEPT: Final = frozenset(("role", "type", "id", "tool_call_id", "name", "url", "data", "file_data", "file_id", "format"))


class Unreadable(Exception):
    """A prompt of token ids: only the model's tokenizer knows what it says."""


def hidden(body: Mapping[str, Any], hide: Hide) -> Mapping[str, Any]:
    """The same body when there was nothing to hide, else another. Raises `Unreadable`."""
    changed = dict(body)
    for key in READ:
        if key in body:
            changed[key] = _walked(body[key], hide)
    if any(isinstance(item, int) for item in _flat(body.get("prompt"))):
        raise Unreadable
    return body if changed == body else changed


def _walked(value: Any, hide: Hide) -> Any:
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, list):
        return [_walked(item, hide) for item in value]
    if isinstance(value, dict):
        return {key: _member(key, item, hide) for key, item in value.items()}
    return value


def _member(key: str, value: Any, hide: Hide) -> Any:
    if key in KEPT and isinstance(value, str):
        return value
    if key == "arguments" and isinstance(value, str):
        return _arguments(value, hide)
    return _walked(value, hide)


def _arguments(text: str, hide: Hide) -> str:
    """A tool call's arguments: JSON in a string. What is hidden in it must not break its escapes."""
    try:
        read = json.loads(text)
    except ValueError:
        return hide(text)
    changed = _values(read, hide)
    return text if changed == read else json.dumps(changed)


def _values(value: Any, hide: Hide) -> Any:
    """Every string, whatever it is called: these names are the tool's."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, list):
        return [_values(item, hide) for item in value]
    if isinstance(value, dict):
        return {key: _values(item, hide) for key, item in value.items()}
    return value


def _flat(value: Any) -> list[Any]:
    """A prompt's items, and theirs: it may be a list of lists."""
    if not isinstance(value, list):
        return []
    return [item for each in value for item in (each if isinstance(each, list) else [each])]
