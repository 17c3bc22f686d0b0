"""Reading the ledger's log: was what refused clients were told true?"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import NamedTuple

from streamgate.admission.ticket import Note


class Told(NamedTuple):
    """What a refusal said, and how long an arrival at that moment would have waited, in seconds."""

    note: Note
    said: float
    actual: float

    @property
    def error(self) -> float:
        return abs(self.said - self.actual) / self.actual


def told(log: Iterable[Note], *, since: float = 0.0, until: float = float("inf")) -> list[Told]:
    """For each refusal from a queue between two times.

    A line is first come, first served: one who had joined it at the refusal would have had the slot that the first one
    who came later got. Refusals after which no such one was granted say nothing.
    """
    found: list[Told] = []
    pending: dict[tuple[str, str, str], list[Note]] = {}
    for note in log:
        if note.what == "refuse" and since <= note.at < until:
            pending.setdefault(note.line, []).append(note)
        elif note.what == "grant":
            refused = pending.get(note.line, [])
            # A pushed-out one is refused long after it came, so it is the time of the refusal that counts.
            came = [each for each in refused if each.latest < note.number]
            found += [Told(each, each.said, note.at - each.at) for each in came if note.at > each.at]
            pending[note.line] = [each for each in refused if each.latest >= note.number]
    return found


def median_error(log: Iterable[Note], *, since: float = 0.0, until: float = float("inf")) -> float:
    return statistics.median(each.error for each in told(log, since=since, until=until))
