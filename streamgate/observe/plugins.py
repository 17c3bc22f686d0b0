"""What plugins did: counted, and said in the log. The journal that `streamgate.hooks` asks for, by its form alone.

A plugin that fails at each event of each stream would fill the log: of one kind of failure of one hook the first is
said at once, the others every ten seconds by their number. The metrics have them all.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

import structlog

from streamgate.clock import monotonic
from streamgate.observe.families import Key
from streamgate.observe.tally import Tally

CHUNK_HOOKS: Final = frozenset(("on_event", "on_text"))
WRONGS: Final = ("error", "timeout", "garbage", "stall", "stuck")
SAID: Final = 10.0  # s between two lines about failures of one kind


class Repeated:
    """Failures of one kind: `times` since the line of `said_at`, and what the last one said."""

    __slots__ = ("detail", "said_at", "times")

    def __init__(self, now: float) -> None:
        self.said_at = now
        self.times = 0
        self.detail = ""


class PluginJournal:
    """Told by plugins' callers; all on the event loop but `stuck`, which a thread calls while the loop stands still.

    `tick` is to be called a few times a second, so that the last failures of a series are said as well; `close` at the
    end.
    """

    def __init__(self, tally: Tally, *, log: Any = None, now: Callable[[], float] = monotonic) -> None:
        self._tally = tally
        self._log = log if log is not None else structlog.get_logger().bind()
        self._now = now
        self._repeated: dict[Key, Repeated] = {}  # by plugin, hook and reason

    def spent(self, plugin: str, hook: str, seconds: float) -> None:
        """One call took so long; or, of on_event and on_text, all calls of a stream together."""
        if hook in CHUNK_HOOKS:
            self._tally.plugin_chunks.add((plugin, hook), seconds)
        else:
            self._tally.plugin_calls.observe((plugin, hook), seconds)

    def failed(self, plugin: str, hook: str, reason: str, detail: str) -> None:
        """A hook did something wrong: a word of `WRONGS`, and what it was, without anybody's text."""
        key = plugin, hook, reason
        self._tally.plugin_errors.add(key)
        repeated = self._repeated.get(key)
        now = self._now()
        if repeated is None:
            repeated = self._repeated[key] = Repeated(now)
            repeated.times, repeated.detail = 1, detail
            self._say(key, repeated, now)
            return
        repeated.times += 1
        repeated.detail = detail
        if now - repeated.said_at >= SAID:
            self._say(key, repeated, now)

    def breaker(self, plugin: str, state: Enum) -> None:
        """It is called no more (open), once more to see (half_open), or again (closed)."""
        word = state.name.lower()
        say = self._log.warning if word == "open" else self._log.info
        say("plugin_breaker", plugin=plugin, state=word)

    def stuck(self, plugin: str, hook: str, seconds: float) -> None:
        """A hook has kept the event loop for so long, and still does."""
        # Nobody else adds to this cell, and a dictionary takes a new one whole: a thread may.
        self._tally.plugin_errors.add((plugin, hook, "stuck"))
        self._log.error("plugin_stuck", plugin=plugin, hook=hook, seconds=round(seconds, 1))

    def tick(self) -> None:
        """Say what was not said yet and is due; forget what has stopped."""
        if not self._repeated:  # as good as always
            return
        now = self._now()
        for key, repeated in list(self._repeated.items()):
            if now - repeated.said_at >= SAID:
                if repeated.times:
                    self._say(key, repeated, now)
                else:
                    del self._repeated[key]

    def close(self) -> None:
        """Say what was not said yet."""
        for key, repeated in self._repeated.items():
            if repeated.times:
                self._say(key, repeated, self._now())
        self._repeated.clear()

    def _say(self, key: Key, repeated: Repeated, now: float) -> None:
        plugin, hook, reason = key
        self._log.warning(
            "plugin_failed", plugin=plugin, hook=hook, reason=reason, detail=repeated.detail, times=repeated.times
        )
        repeated.said_at, repeated.times = now, 0
