"""The configuration: `load` reads it and reports every mistake at once, `effective` prints it without secrets.

The keys themselves are in `settings`, what holds between them in `checks`, where they are written in `sources`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import yaml
from pydantic import ValidationError

from streamgate.control.admitting import Key, Limits
from streamgate.control.checks import check
from streamgate.control.expected import problems_of
from streamgate.control.keys_file import read_keys
from streamgate.control.observing import Observe
from streamgate.control.plugging import plugged, plugins_of
from streamgate.control.problems import ConfigError, Problem
from streamgate.control.settings import (
    Admin,
    Clocks,
    Config,
    Cors,
    Drain,
    Edge,
    Retry,
    Route,
    RouteClocks,
    Upstream,
    UpstreamKey,
)
from streamgate.control.sources import read_all
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
    "plugins_of",
]


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
        problems += problems_of(error.errors(include_url=False), layer)
    # `listen` has a default that matters to the checks; nothing else they look at has one.
    findings = check({"listen": str(Config().listen), "admin": {"listen": str(Admin().listen)}, **layer.tree})
    problems += [layer.problem(found.path, found.expected, blame=found.blame) for found in findings]
    plugins = plugged(layer.tree, environ)
    problems += [layer.problem(path, expected) for path, expected in plugins.wrong]
    if config is not None and config.keys_file is not None:
        problems += _wrong_in_keys_file(config, environ)
    if problems or config is None:
        raise ConfigError(sorted(problems, key=lambda problem: (problem.source, problem.line or 0)))
    return plugins.into(config)


def _wrong_in_keys_file(config: Config, environ: Mapping[str, str]) -> Sequence[Problem]:
    try:
        read_keys(config, environ)
    except ConfigError as error:
        return error.problems
    return ()


def effective(config: Config) -> str:
    """The whole configuration as YAML, defaults included, secrets hidden."""
    plain = config.model_dump(mode="json", by_alias=True)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
