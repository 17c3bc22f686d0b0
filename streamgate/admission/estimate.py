"""How long would one who comes now have to wait? From how often the line moved lately, or from what is like it.

The said wait is what a client is told in `Retry-After`, and what is compared with `max_wait`. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamgate.admission.counts import Count
    from streamgate.admission.queue import Line, Rank

UNKNOWN = 1.0  # s: said before anything has ended


class Pace:
    """How often something has happened since it began, or over the last times."""

    REMEMBERED = 64  # within 13 % when they come at random, 7 % when evenly; and a change shows after half of them
    LEAST = 4  # before that the pace says little

    __slots__ = ("_since", "_times")

    def __init__(self, now: float) -> None:
        self._since = now
        self._times: deque[float] = deque()

    def note(self, now: float) -> None:
        times = self._times
        times.append(now)
        if len(times) > self.REMEMBERED:
            self._since = times.popleft()

    def rate(self, now: float) -> float:
        """A second; 0.0: not known."""
        span = now - self._since
        return len(self._times) / span if len(self._times) >= self.LEAST and span > 0 else 0.0

    def until(self, turns: int, now: float) -> float:
        """Seconds until it has happened so many more times; 0.0: not known.

        It comes about evenly, so the time since the last one counts; but never is the next one due at once.
        """
        rate = self.rate(now)
        return max(turns / rate - (now - self._times[-1]), (turns - 0.8) / rate) if rate else 0.0


def wait_in_line(line: Line | None, rank: Rank, blockers: Sequence[Count], now: float) -> float:
    """Seconds until one who joins this line (None: one that is not there yet) has a slot of `blockers`; 0.0: not known.

    By the grants of the line; else by those of its class, which its lines share evenly; else by the endings at what
    blocks it, which the classes share by weight and the lines of each evenly.
    """
    turns = 1 + (len(line.tickets) if line is not None else 0)
    said = _by_pace(line, rank, blockers, turns, now)
    if line is None or now + said <= line.newest.deadline:
        return said
    # Some of those before it will have left by then.
    return _by_pace(line, rank, blockers, 1 + _staying(line, said / turns, now), now)


def _by_pace(line: Line | None, rank: Rank, blockers: Sequence[Count], turns: int, now: float) -> float:
    said = line.grants.until(turns, now) if line is not None else 0.0
    if said:
        return said
    turns *= len(rank.lines) + (line is None)
    said = rank.grants.until(turns, now) if rank.lines else 0.0
    return said or turns * _others(rank, blockers) * next_slot(blockers)


def _staying(line: Line, each: float, now: float) -> int:
    """How many of a line will get their turn, one in `each` seconds, before their deadlines."""
    turns = 0
    for ticket in line.tickets:
        turns += now + (turns + 1) * each <= ticket.deadline
    return turns


def next_slot(blockers: Sequence[Count]) -> float:
    """Seconds until one of them has a slot free; 0.0: not known."""
    pace = sum(count.pace() for count in blockers)
    return 1.0 / pace if pace else 0.0


def _others(rank: Rank, blockers: Sequence[Count]) -> float:
    """How many slots come free for one that this class gets."""
    waiting = {rank, *(other for count in blockers for other in count.parked)}
    return sum(each.weight for each in waiting) / rank.weight
