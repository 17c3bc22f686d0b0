"""What pydantic finds wrong, as problems with a place and in the words of a configuration's readers."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic_core import ErrorDetails

from streamgate.control.problems import Path, Problem
from streamgate.control.sources import Layer

ABSENT = "expected this key: it has no default"

# pydantic's kinds of error in the words of this file's readers; the rest of its messages are fit to be shown.
EXPECTED = {
    "missing": ABSENT,
    "extra_forbidden": "expected a known key: this one does not exist",
    "invalid_key": "expected a known key: this one does not exist",
    "model_type": "expected a map",
    "tuple_type": "expected a list",
    "string_type": "expected text (put it in quotes)",
    "string_too_short": "expected text that is not empty",
    "string_too_long": "expected at most {max_length} characters",
    "string_pattern_mismatch": "expected text that matches {pattern}",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "decimal_parsing": "expected a number",
    "decimal_type": "expected a number",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "dict_type": "expected a map",
    "list_type": "expected a list",
    "set_type": "expected a list",
    "frozen_set_type": "expected a list",
    "finite_number": "expected a finite number",
    "greater_than": "expected more than {gt}",
    "less_than": "expected less than {lt}",
    "greater_than_equal": "expected {ge} or more",
    "less_than_equal": "expected {le} or less",
    "literal_error": "expected {expected}",
    "too_short": "expected at least {min_length} of them",
    "value_error": "{error}",
}


def problems_of(details: list[ErrorDetails], layer: Layer) -> Iterator[Problem]:
    return (layer.problem(path, expected) for path, expected in spoken(details))


def spoken(details: list[ErrorDetails]) -> Iterator[tuple[Path, str]]:
    """Each mistake's path, and what was expected there."""
    paths = [_path(detail) for detail in details]
    for detail, path in zip(details, paths, strict=True):
        # A list whose only item is wrong is also reported as too short.
        inside = any(len(other) > len(path) and other[: len(path)] == path for other in paths)
        if detail["type"] != "too_short" or not inside:
            yield path, _expected(detail)


def _path(detail: ErrorDetails) -> Path:
    """The key's path, without the tags of unions."""
    return tuple(part for part in detail["loc"] if not str(part).startswith("<"))


def _expected(detail: ErrorDetails) -> str:
    context = {name: _short(value) for name, value in detail.get("ctx", {}).items()}
    words = EXPECTED.get(detail["type"])
    return detail["msg"] if words is None else words.format(**context)


def _short(value: object) -> object:
    """5.0 as 5: bounds are whole numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
