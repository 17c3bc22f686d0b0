"""Finds what is to be hidden in a text that comes in pieces, with the same result for all pieces that make it up.

From left to right: at each place the first rule that matches there, and then its tail; what follows is looked at as if
the text began there. Where a rule would have to read on to know, the rest is held.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from streamgate_redact.patterns import Rule

SLICE: Final = 16 * 1024  # characters of a long text, 2 ms: a search holds the interpreter's lock to its end


class Seal(Protocol):
    """What stands for a match when that depends on all of it: fed piece by piece."""

    def feed(self, text: str) -> None: ...
    def text(self) -> str: ...


Label = Callable[[Rule], str | Seal]


class Place:
    """Where one text has got to. `label` gives what stands for a match of a rule, or what will give it."""

    __slots__ = ("before", "label", "rule", "seal")

    def __init__(self, label: Label) -> None:
        self.label = label
        self.before = ""  # what was released last, as far as a rule looks back
        self.rule: Rule | None = None  # within its tail
        self.seal: Seal | None = None

    def enter(self, rule: Rule, head: str) -> str:
        """A match; what can be said of it at once."""
        self.before = ""
        self.rule = rule
        label = self.label(rule)
        if isinstance(label, str):
            return label
        self.seal = label
        label.feed(head)
        return ""

    def leave(self) -> str:
        """The tail is over; what was still to be said."""
        seal = self.seal
        self.rule = self.seal = None
        return "" if seal is None else seal.text()


class Scanner:
    """The rules, the first ones first.

    `sealed`: labels are seals. Then something is held until a tail is over: a text of which nothing is held may end
    without a last word.
    """

    def __init__(self, rules: Sequence[Rule], *, sealed: bool = False) -> None:
        self._rules = tuple(rules)
        self._sealed = sealed
        self._behind = max((rule.behind for rule in rules), default=0)
        self._hot = re.compile("|".join(rule.hot for rule in rules) or "(?!)").search
        self.window = max((max(rule.window, rule.piece) for rule in rules), default=0)

    def whole(self, text: str, label: Label) -> str:
        """All of a text."""
        place, kept, out = Place(label), "", []
        for start in range(0, len(text), SLICE):
            pending = kept + text[start : start + SLICE]
            released, keep = self.feed(place, pending, final=start + SLICE >= len(text))
            out.append(released)
            kept = pending[len(pending) - keep :]
        return "".join(out)

    def feed(self, place: Place, pending: str, *, final: bool) -> tuple[str, int]:
        """What stands for `pending` without its last characters, and how many those are: they are to come again."""
        view = place.before + pending
        at = len(place.before)
        out: list[str] = []
        while True:
            if place.rule is not None:
                at, over = _tail(place.rule, place.seal, view, at, final)
                if not over:
                    return "".join(out), len(view) - at
                out.append(place.leave())
                view, at = view[at:], 0
            start, end, rule = self._next(view, at, final)
            out.append(view[at:start])
            if rule is None:
                place.before = view[max(0, start - self._behind) : start]
                return "".join(out), len(view) - start
            out.append(place.enter(rule, view[start:end]))
            at = end

    def _next(self, view: str, at: int, final: bool) -> tuple[int, int, Rule | None]:
        """The next match; without a rule: where what must be held begins, or the text's end."""
        size = len(view)
        while at < size and (found := self._hot(view, at)) is not None:
            at = found.start()
            for rule in self._rules:
                if not final and size - at <= rule.window and rule.reading.match(view, at):
                    return at, at, None
                end = rule.end(view, at)
                if end == size and self._sealed and rule.piece and not final:
                    return at, at, None
                if end:
                    return at, end, rule
            at += 1
        return size, size, None


def _tail(rule: Rule, seal: Seal | None, view: str, at: int, final: bool) -> tuple[int, bool]:
    """How far the tail goes, and whether it ends there."""
    while final or rule.tail_reading.match(view, at) is None:
        found = rule.tail.match(view, at)
        if found is None:
            return at, True
        if seal is not None:
            if found.end() == len(view) and not final:
                break
            seal.feed(found[0])
        at = found.end()
    return at, False
