"""Reads a file back: how much is in it, what is missing, what is not ours."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from streamgate_audit.lines import VERSION

OPENING = b'{"v":'  # how each of our lines begins; a torn one may end within it


@dataclass(slots=True)
class Report:
    """`torn` and `foreign` are numbers of lines, from 1; `dropped` is what the file says of lines that are missing."""

    requests: int = 0
    dropped: int = 0
    first: str = ""
    last: str = ""
    torn: list[int] = field(default_factory=list)
    foreign: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        said = [f"{self.requests} requests"]
        said += [f"{self.first} to {self.last}"] if self.first else []
        said += [f"{self.dropped} dropped"] if self.dropped else []
        said += [f"torn: line {_some(self.torn)}"] if self.torn else []
        said += [f"not of this plugin: line {_some(self.foreign)}"] if self.foreign else []
        return ", ".join(said)


def verified(lines: Iterable[bytes]) -> Report:
    """A line that a dying process left torn is counted, and nothing worse."""
    report = Report()
    for number, line in enumerate(lines, 1):
        found = _parsed(line)
        if found is None:
            torn = line.startswith(OPENING) or OPENING.startswith(line.strip(b"\r\n\0"))
            (report.torn if torn else report.foreign).append(number)
        else:
            _count(report, found)
    return report


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    ours = isinstance(found, dict) and found.get("v") == VERSION and isinstance(found.get("at"), str)
    return found if ours else None


def _count(report: Report, found: dict[str, Any]) -> None:
    report.first = report.first or found["at"]
    report.last = found["at"]
    if found.get("kind") == "dropped":
        report.dropped += int(found.get("count", 0))
    else:
        report.requests += 1


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
