"""Names a hook that does not give the event loop back: by measuring each call, and from a thread while it runs.

A hook that never returns stops the process; only a restart helps, but then somebody must know whom to blame.
"""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any, Protocol

from streamgate.clock import monotonic

STUCK = 1.0  # s a hook has been running when it is named
TICK = 0.25  # s
# A match of a bad pattern holds the interpreter's lock, so that no thread runs: then C's own timer writes the stacks.
LOCKED = 5.0


class Running:
    """The hook that the event loop's thread is inside of, for a thread that looks from outside."""

    __slots__ = ("hook", "plugin", "since")

    def __init__(self) -> None:
        self.plugin = ""  # "": none
        self.hook = ""
        self.since = 0.0

    def longest(self, now: float) -> tuple[str, str, float] | None:
        """Plugin, hook and since when, once it has been too long."""
        plugin, hook, since = self.plugin, self.hook, self.since
        return (plugin, hook, since) if plugin and now - since > STUCK else None


class Stuck(Protocol):
    """Told from the watchdog's thread: plugin, hook, and for how many seconds."""

    def __call__(self, plugin: str, hook: str, seconds: float, /) -> None: ...


class Watchdog:
    """One thread for all plugins."""

    def __init__(self, running: Running, stuck: Stuck, *, now: Callable[[], float] = monotonic) -> None:
        self._running = running
        self._stuck = stuck
        self._now = now
        self._told = 0.0  # `since` of the one that was named
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="streamgate-plugins", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            faulthandler.cancel_dump_traceback_later()

    def look(self) -> None:
        """Name what has been running for too long, once."""
        found = self._running.longest(self._now())
        if found is not None and found[2] != self._told:
            self._told = found[2]
            self._stuck(found[0], found[1], self._now() - found[2])

    def _watch(self) -> None:
        _arm()
        while not self._over.wait(TICK):
            _arm()
            self.look()


def _arm() -> None:
    with contextlib.suppress(AttributeError, ValueError, OSError, RuntimeError):  # no stderr, or one without a file
        faulthandler.dump_traceback_later(LOCKED, file=sys.__stderr__ or sys.stderr)


class Stepped:
    """Awaits what an async hook returned, and measures how long each of its steps kept the event loop."""

    __slots__ = ("_awaited", "_hook", "_plugin", "_running", "longest")

    def __init__(self, awaited: Any, running: Running, plugin: str, hook: str) -> None:
        self._awaited = awaited
        self._running = running
        self._plugin = plugin
        self._hook = hook
        self.longest = 0.0  # s

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaited.__await__()
        thrown: BaseException | None = None
        while True:
            since = self._running.since = monotonic()
            self._running.hook = self._hook
            self._running.plugin = self._plugin
            try:
                step = steps.send(None) if thrown is None else steps.throw(thrown)
            except StopIteration as end:
                return end.value
            finally:
                self._running.plugin = ""
                self.longest = max(self.longest, monotonic() - since)
            thrown = None
            try:
                yield step
            except BaseException as exc:  # noqa: BLE001 - a cancellation among others: the hook's to see
                thrown = exc
