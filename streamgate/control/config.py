"""The configuration: `load` reads it and reports every mistake at once, `effective` prints it without secrets.

The keys themselves are in `settings`, what holds between them in `checks`, where they are written in `sources`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from streamgate.control.checks import check
from streamgate.control.observing import Observe
from streamgate.control.problems import ConfigError, Path, Problem
from streamgate.control.settings import (
    Admin,
    Clocks,
    Config,
    Cors,
    Drain,
    Edge,
    Key,
    Limits,
    Retry,
    Route,
    RouteClocks,
    Upstream,
    UpstreamKey,
)
from streamgate.control.sources import Layer, read_all
from streamgate.control.values import Address

__all__ = [
    "Address",
    "Admin",
    "Clocks",
    "Config",
    "ConfigError",
    "Cors",
    "Drain",
    "Edge",
    "Key",
    "Limits",
    "Observe",
    "Problem",
    "Retry",
    "Route",
    "RouteClocks",
    "Upstream",
    "UpstreamKey",
    "effective",
    "load",
]

# pydantic's kinds of error in the words of this file's readers; the rest of its messages are fit to be shown.
EXPECTED = {
    "missing": "expected this key: it has no default",
    "extra_forbidden": "expected a known key: this one does not exist",
    "invalid_key": "expected a known key: this one does not exist",
    "model_type": "expected a map",
    "tuple_type": "expected a list",
    "string_type": "expected text (put it in quotes)",
    "string_too_short": "expected text that is not empty",
    "string_too_long": "expected at most {max_length} characters",
    "string_pattern_mismatch": "expected text that matches {pattern}",
    "float_type": "expected a number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "bool_type": "expected true or false",
    "finite_number": "expected a finite number",
    "greater_than_equal": "expected {ge} or more",
    "less_than_equal": "expected {le} or less",
    "literal_error": "expected {expected}",
    "too_short": "expected at least {min_length} of them",
    "value_error": "{error}",
}


def load(file: FilePath | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """Read `file`, then the environment's `STREAMGATE_A__B`, then `flags` (see `sources.FLAGS`); the later win.

    Raises ConfigError with every mistake. References to secrets are resolved against `environ`.
    """
    layer = read_all(file, environ, flags)
    problems = layer.problems
    config = None
    try:
        config = Config.built(layer.tree, dict(environ))
    except ValidationError as error:
        problems += _problems(error.errors(include_url=False), layer)
    # `listen` has a default that matters to the checks; nothing else they look at has one.
    findings = check({"listen": str(Config().listen), "admin": {"listen": str(Admin().listen)}, **layer.tree})
    problems += [layer.problem(found.path, found.expected, blame=found.blame) for found in findings]
    if problems or config is None:
        raise ConfigError(sorted(problems, key=lambda problem: (problem.source, problem.line or 0)))
    return config


def effective(config: Config) -> str:
    """The whole configuration as YAML, defaults included, secrets hidden."""
    plain = config.model_dump(mode="json", by_alias=True)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)


def _problems(details: list[ErrorDetails], layer: Layer) -> Iterator[Problem]:
    paths = [_path(detail) for detail in details]
    for detail, path in zip(details, paths, strict=True):
        # A list whose only item is wrong is also reported as too short.
        inside = any(len(other) > len(path) and other[: len(path)] == path for other in paths)
        if detail["type"] != "too_short" or not inside:
            yield layer.problem(path, _expected(detail))


def _path(detail: ErrorDetails) -> Path:
    """The key's path, without the tags of unions."""
    return tuple(part for part in detail["loc"] if not str(part).startswith("<"))


def _expected(detail: ErrorDetails) -> str:
    context = {name: _short(value) for name, value in detail.get("ctx", {}).items()}
    return EXPECTED.get(detail["type"], detail["msg"]).format(**context)


def _short(value: object) -> object:
    """5.0 as 5: bounds are whole numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
