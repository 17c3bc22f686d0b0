"""Rows of numbers, their medians and ratios, the targets, and how they are printed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from responses import BASE, KINDS, OURS


@dataclass
class Row:
    """One thing that was measured: a number for each response and round."""

    key: str
    label: str
    unit: str
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, kind: str, number: float) -> None:
        self.rounds.setdefault(kind, []).append(number)

    def median(self, kind: str) -> float | None:
        numbers = self.rounds.get(kind)
        return statistics.median(numbers) if numbers else None

    def ratio(self, kind: str) -> float | None:
        """The median over the rounds of the ratio to sse-starlette's number of the same round."""
        pairs = list(zip(self.rounds.get(kind, ()), self.rounds.get(BASE, ()), strict=False))
        return statistics.median(ours / base for ours, base in pairs if base) if any(b for _, b in pairs) else None

    def facts(self) -> dict[str, Any]:
        medians = {kind: self.median(kind) for kind in self.rounds}
        ratios = {kind: self.ratio(kind) for kind in self.rounds}
        return {
            "key": self.key, "label": self.label, "unit": self.unit, "medians": medians, "ratios": ratios,
            "rounds": self.rounds,
        }  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What our response is held to: at most `limit`, as a ratio to sse-starlette, over another row, or as it is."""

    text: str
    key: str
    limit: float
    measure: str = "ratio"  # "ratio", "number", or the key of the row above which it may be by `limit`

    def reached(self, rows: Mapping[str, Row]) -> float | None:
        """What was measured of it; None: nothing."""
        row = rows.get(self.key)
        if row is None:
            return None
        if self.measure == "ratio":
            return row.ratio(OURS)
        if self.measure == "number":
            return row.median(OURS)
        if self.measure not in rows:
            return None
        pairs = zip(row.rounds[OURS], rows[self.measure].rounds[OURS], strict=True)
        return statistics.median(number - base for number, base in pairs)

    def line(self, rows: Mapping[str, Row]) -> str | None:
        reached = self.reached(rows)
        if reached is None:
            return None
        verdict = "met" if reached <= self.limit else "not met"
        unit = f"x {BASE}" if self.measure == "ratio" else rows[self.key].unit
        return f"{verdict:<8} {reached:5.2f} <= {self.limit:.2f} {unit:<15}  {self.text}"


TARGETS = (
    Target("response alone, event of bytes", "alone.bytes", 0.15),
    Target("response alone, event of a dict", "alone.dict", 0.15),
    Target("response alone, event with send_timeout", "alone.timeout", 0.10),
    Target("response alone, what an observer adds to an event", "alone.observed", 0.15, "alone.bytes"),
    Target("response alone, short response", "alone.short", 0.50),
    Target("uvicorn, event, 1 stream flat out, dict", "uvicorn.flat.1.dict", 0.42),
    Target("uvicorn, event, 200 streams flat out, dict", "uvicorn.flat.200.dict", 0.45),
    Target("uvicorn, short response of 5 events", "uvicorn.short", 0.50),
    Target("uvicorn, memory of an idle stream", "uvicorn.idle.memory", 0.60),
    Target("uvicorn, ping", "uvicorn.ping", 0.50),
    Target("uvicorn, tasks beside the request's own", "uvicorn.idle.tasks", 2.0, "number"),
)


def printed(rows: Iterable[Row]) -> str:
    """The table: absolute numbers, in brackets the ratio to sse-starlette in this run."""
    heads = ["", "unit", *KINDS]
    lines = [f"| {' | '.join(heads)} |", "| --- | --- " + "| ---: " * len(KINDS) + "|"]
    lines += [f"| {' | '.join([row.label, row.unit, *(cell(row, kind) for kind in KINDS)])} |" for row in rows]
    return "\n".join(lines)


def cell(row: Row, kind: str) -> str:
    number, ratio = row.median(kind), row.ratio(kind)
    if number is None:
        return "-"
    return three_digits(number) + (f" [{ratio:.2f}]" if ratio is not None and kind != BASE else "")


def three_digits(number: float) -> str:
    return f"{number:.{2 if abs(number) < 10 else 1 if abs(number) < 100 else 0}f}"


def verdicts(rows: Iterable[Row]) -> list[str]:
    """A line for each target of which something was measured."""
    by_key = {row.key: row for row in rows}
    return [line for target in TARGETS if (line := target.line(by_key))]
