"""The file of keys that is read again while the gateway runs: a YAML list of what `keys` holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from streamgate.control.admitting import Key, KeyList
from streamgate.control.checks import check_keys_file
from streamgate.control.expected import problems_of
from streamgate.control.problems import ConfigError, Problem
from streamgate.control.settings import Config
from streamgate.control.sources import Layer
from streamgate.control.yaml_lines import Document, Unreadable

TIMES = 16  # as large as a configuration: for 100,000 keys


def read_keys(config: Config, environ: Mapping[str, str], content: bytes | None = None) -> tuple[Key, ...]:
    """The keys in `config.keys_file`, or in this content of it. Raises ConfigError with every mistake."""
    source = config.keys_file or ""
    try:
        text = (FilePath(source).read_bytes() if content is None else content).decode("utf-8-sig")
        document = Document(text, source, times=TIMES)
    except OSError as error:
        raise _unreadable(source, f"expected a file that can be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise _unreadable(source, "expected UTF-8") from None
    except RecursionError:
        raise _unreadable(source, "expected less deeply nested values") from None
    except Unreadable as error:
        raise _unreadable(source, error.expected, error.line) from None
    if not isinstance(document.value, list):  # nothing at all is a file being written, not a wish that nobody has a key
        raise _unreadable(source, "expected a list of keys; [] for none", 1)
    return _validated(document, source, config, environ)


def _validated(document: Document, source: str, config: Config, environ: Mapping[str, str]) -> tuple[Key, ...]:
    layer = Layer(problems=document.problems)
    tree: dict[str, Any] = {"keys": document.value}
    layer.put(("keys",), document.value, source, {("keys", *path): line for path, line in document.lines.items()})
    keys: tuple[Key, ...] = ()
    try:
        keys = KeyList.model_validate(tree, context={"environ": dict(environ)}).keys
    except ValidationError as error:
        layer.problems += problems_of(error.errors(include_url=False), layer)
    listed = config.keys if isinstance(config.keys, tuple) else ()
    findings = check_keys_file(
        tree,
        priorities={each.name for each in config.priorities},
        names={key.name for key in listed},
    )
    layer.problems += [layer.problem(found.path, found.expected) for found in findings]
    known = {key.digest for key in listed}
    layer.problems += [
        layer.problem(("keys", index), "expected a key that is not in the configuration as well")
        for index, key in enumerate(keys)
        if key.digest in known
    ]
    if layer.problems:
        raise ConfigError(sorted(layer.problems, key=lambda problem: problem.line or 0))
    return keys


def _unreadable(source: str, expected: str, line: int | None = None) -> ConfigError:
    return ConfigError([Problem(source, "", expected, line)])
