"""What is wrong with a configuration: a list of problems, never one at a time, never with a value in it.

Values stay out of the texts because a secret written at the wrong place must not reach a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamgate.errors import StreamgateError

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it came from (a file, a variable, a flag), its key, and what was expected there."""

    source: str
    key: str
    expected: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.expected) if part)


class ConfigError(StreamgateError):
    """A configuration that cannot be used; `problems` holds every mistake that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def dotted(path: Path) -> str:
    """`("upstreams", 0, "url")` as an operator writes it: `upstreams[0].url`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text
