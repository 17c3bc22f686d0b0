"""JSON as strict as the request policy asks: what two parsers could read differently is refused.

The standard library's parser with a pairs hook, because orjson accepts duplicate keys and rewrites large numbers.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

MAX_DEPTH = 64


class BadJson(ValueError):
    """What is wrong, in words for the client."""


def parse(body: bytes) -> dict[str, Any]:
    """An object from UTF-8 JSON: no duplicate keys, no NaN, Infinity or 1e999, at most 64 deep. Raises `BadJson`."""
    try:
        parsed = _DECODER.decode(body.decode("utf-8"))
    except BadJson:
        raise
    except UnicodeDecodeError:
        raise BadJson("The body is not valid UTF-8.") from None
    except json.JSONDecodeError as exc:
        raise BadJson(f"The body is not valid JSON: {exc.msg} at character {exc.pos}.") from None
    except RecursionError:
        raise BadJson(_TOO_DEEP) from None
    except ValueError:  # CPython refuses integers of more than 4,300 digits
        raise BadJson("The body holds a number with too many digits.") from None
    if not isinstance(parsed, dict):
        raise BadJson("The body must be a JSON object.")
    # Depth costs a walk, so it is only measured where there are brackets enough for it.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth_exceeds(parsed, MAX_DEPTH):
        raise BadJson(_TOO_DEEP)
    return parsed


_TOO_DEEP = f"The body is nested more than {MAX_DEPTH} levels deep."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadJson(f"The key {json.dumps(twice[:64])} appears twice in one object.")
    return made


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise BadJson("The body holds a number that is out of range.")
    return number


def _constant(name: str) -> NoReturn:
    raise BadJson(f"{name} is not JSON.")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_constant)


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
