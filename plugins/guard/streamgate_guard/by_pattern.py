"""Stops a stream on a pattern, wherever tokens cut it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from streamgate.hooks import Abort, Facade, Kept, Plugin, Stream, Text
from streamgate_guard.settings import GuardSettings, Rule

LOOK: Final = 64  # characters before a match that an expression may look back at

Key = tuple[int, str]


class Sought(NamedTuple):
    """A rule, compiled."""

    name: str
    expression: re.Pattern[str]
    longest: int


class Hit(NamedTuple):
    """A match; one that reaches the end of what is known is not certain: what follows may undo it."""

    name: str
    certain: bool


class Guard(Plugin):
    """Stops a stream on a pattern. See the README for the settings."""

    Settings = GuardSettings
    fail = "closed"  # what could not be looked at does not leave

    def __init__(self, settings: GuardSettings, gateway: Facade) -> None:
        super().__init__(settings, gateway)
        self._sought = [sought(rule) for rule in settings.patterns]
        self._kinds = settings.kinds
        self._message = settings.message
        self._blocks = settings.mode == "block"
        self._stopped = gateway.metrics.counter("stopped_total", "Streams that were stopped.", ["pattern"])
        self._longest = max(rule.longest for rule in settings.patterns)
        self.window = self._longest if self._blocks else 1

    def on_text(self, text: Text, stream: Stream) -> str | Kept:
        if text.kind not in self._kinds:
            return text.pending
        befores: dict[Key, str] | None = stream.state  # what was released last, of each text
        if befores is None:
            befores = stream.state = {}
        key = (text.choice, text.field)
        before = befores.get(key, "")
        view = before + text.pending
        # What was released while it blocked has been looked at; while it watched, a match may have begun in it.
        start = len(before) if self._blocks else max(0, len(before) - self._longest)
        hit = first_hit(self._sought, view, start, final=text.final)
        if hit is not None and hit.certain:
            self._stopped.inc(pattern=hit.name)
            self.gateway.log.info("guard_stopped", pattern=hit.name, request_id=stream.id)
            raise Abort(self._message, code="guard")
        keep = self._keep(len(text.pending), text.final, hit)
        befores[key] = view[: len(view) - keep][-(self._longest + LOOK) :]
        return Kept(text.pending[: len(text.pending) - keep], keep) if keep else text.pending

    def _keep(self, size: int, final: bool, hit: Hit | None) -> int:
        """All that a match could begin in; while it watches, one character where a last word on it is needed."""
        if final:
            return 0
        if self._blocks:
            return min(size, self._longest)
        return 0 if hit is None else 1


def sought(rule: Rule) -> Sought:
    return Sought(rule.name, re.compile(rule.regex), rule.longest)


def first_hit(rules: Sequence[Sought], view: str, start: int, *, final: bool) -> Hit | None:
    """The first certain match of any rule from `start` on; else one that is not certain yet."""
    uncertain: Hit | None = None
    for rule in rules:
        at = start
        while (found := rule.expression.search(view, at)) is not None:
            at = found.start()
            if found.end() - at > rule.longest:
                found = rule.expression.match(view, at, at + rule.longest)
            if found is not None and found.end() > at:
                if final or found.end() < len(view):
                    return Hit(rule.name, True)
                uncertain = Hit(rule.name, False)
            at += 1
    return uncertain
