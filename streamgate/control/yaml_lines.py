"""YAML as plain values, with the line of every key; safe, bounded, and strict about keys written twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from streamgate.control.problems import Path, Problem, dotted

# A configuration is a few hundred values; these only stop aliases that multiply and files that are something else.
MAX_BYTES = 1024 * 1024
MAX_VALUES = 50_000
MAX_DEPTH = 32


class Unreadable(Exception):
    """The text is not YAML, or not of a size that a configuration has; says what and in which line."""

    def __init__(self, expected: str, line: int | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.line = line


class Document:
    """One YAML text: its `value`, the `lines` of its keys, and the `problems` that did not stop the reading."""

    def __init__(self, text: str, source: str, *, times: int = 1) -> None:
        """Raises Unreadable. `times` as large as a configuration it may be."""
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self._source = source
        self._left = MAX_VALUES * times
        if len(text) > MAX_BYTES * times:
            raise Unreadable(f"expected at most {MAX_BYTES * times} characters of YAML")
        self._loader = yaml.SafeLoader(_checked(text))
        try:
            node = self._loader.get_single_node()
            self.value: Any = None if node is None else self._plain(node, ())
        except yaml.MarkedYAMLError as error:
            raise Unreadable(f"expected valid YAML: {_quoteless(error.problem)}", _line(error.problem_mark)) from None
        except (yaml.YAMLError, ValueError) as error:
            raise Unreadable(f"expected valid YAML: {_quoteless(str(error))}") from None
        finally:
            self._loader.dispose()

    def _plain(self, node: yaml.Node, path: Path) -> Any:
        self._left -= 1
        if self._left < 0 or len(path) > MAX_DEPTH:
            raise Unreadable("expected fewer values, or less deeply nested ones", _line(node.start_mark))
        self.lines.setdefault(path, node.start_mark.line + 1)
        match node:
            case yaml.MappingNode():
                return {key: self._plain(value, (*path, key)) for key, value in self._pairs(node, path)}
            case yaml.SequenceNode():
                return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
            case _:
                return self._loader.construct_object(node)

    def _pairs(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, yaml.Node]]:
        """Keys and values; a key that was written twice is a problem, one that `<<` merged in is not."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise Unreadable("expected a plain word as a key", _line(key.start_mark))
            if key.value in seen:
                self._problem((*path, key.value), "expected each key once in its map", key)
            seen.add(key.value)
        self._loader.flatten_mapping(node)
        for key, value in node.value:
            self.lines[(*path, str(key.value))] = key.start_mark.line + 1
            yield str(key.value), value

    def _problem(self, path: Path, expected: str, node: yaml.Node) -> None:
        self.problems.append(Problem(self._source, dotted(path), expected, _line(node.start_mark)))


def _checked(text: str) -> str:
    for sign in text:
        if sign < " " and sign not in "\t\n\r":
            raise Unreadable("expected text without control characters")
    return text


def _line(mark: yaml.Mark | None) -> int | None:
    return None if mark is None else mark.line + 1


def _quoteless(problem: str | None) -> str:
    """Without what the parser quotes from the text: an alias or a tag may be a mistyped secret."""
    return re.sub(r"'[^'<]{3,}'", "'...'", problem or "it cannot be parsed")
