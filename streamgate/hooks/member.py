"""One plugin as it is called: its budget, its breaker, and what its failures mean."""

from __future__ import annotations

import asyncio
import inspect
import re
import traceback
from collections.abc import Awaitable, Callable
from enum import Enum
from fnmatch import translate
from functools import partial
from typing import Any, Final, Literal, Protocol, TypeAlias

import anyio
import anyio.to_thread

from streamgate.clock import monotonic
from streamgate.errors import PluginFailed
from streamgate.hooks.breaker import Breaker, State
from streamgate.hooks.spec import Fail, Plugin, hooks_of
from streamgate.hooks.values import Abort, Refuse
from streamgate.hooks.watchdog import Running, Stepped

STALL: Final = 0.1  # s in which a hook kept the event loop from all other streams
THREADS: Final = 8  # of one plugin: its stuck ones are nobody else's
# What a hook may raise without having failed.
LAWFUL: Final[dict[str, type[Exception]]] = {
    "authenticate": Refuse, "on_request": Refuse, "on_event": Abort, "on_text": Abort,
}  # fmt: skip
CLOSED_BY_DEFAULT: Final = frozenset(("authenticate", "on_request"))

ErrorReason = Literal["error", "timeout", "garbage", "stall"]


class Skip(Enum):
    """What a call gives that failed or was not made, where that is to be passed over."""

    SKIPPED = "skipped"


SKIPPED: Final = Skip.SKIPPED
Skipped: TypeAlias = Literal[Skip.SKIPPED]


class Garbage(Exception):
    """A hook answered with something that was not asked for; the message says what."""


class Journal(Protocol):
    """Who counts and logs; called for each plugin by name. `stuck` comes from a thread."""

    def spent(self, plugin: str, hook: str, seconds: float) -> None:
        """One call; or, of on_event and on_text, all calls of a stream."""
        ...

    def failed(self, plugin: str, hook: str, reason: ErrorReason, detail: str) -> None: ...
    def breaker(self, plugin: str, state: State) -> None: ...
    def stuck(self, plugin: str, hook: str, seconds: float) -> None: ...


class Member:
    """A plugin with a name, a policy and a breaker. `routes` are globs of models, empty for all."""

    __slots__ = (
        "_limiter", "_pattern", "asynchronous", "breaker", "budget", "fail", "hooks", "journal", "name", "plugin",
        "running", "took",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        plugin: Plugin,
        journal: Journal,
        running: Running,
        *,
        fail: Fail | None = None,
        budget: float = 1.0,
        routes: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.plugin = plugin
        self.journal = journal
        self.running = running
        self.fail = fail or plugin.fail
        self.budget = budget
        self.hooks = frozenset(hooks_of(type(plugin)))
        self.asynchronous = frozenset(h for h in self.hooks if inspect.iscoroutinefunction(getattr(plugin, h)))
        self.breaker = Breaker()
        self.took = 0.0  # seconds of the last call
        self._limiter = anyio.CapacityLimiter(THREADS) if plugin.threaded else None
        self._pattern = re.compile("|".join(translate(glob.replace("[", "[[]")) for glob in routes)) if routes else None

    @property
    def restricted(self) -> bool:
        """Only for some models."""
        return self._pattern is not None

    def serves(self, model: str) -> bool:
        return self._pattern is None or self._pattern.fullmatch(model) is not None

    def closed(self, hook: str) -> bool:
        """A failure of this hook ends the request."""
        return self.fail == "closed" or (self.fail is None and hook in CLOSED_BY_DEFAULT)

    def at_once(self, hook: str, call: Callable[..., Any], check: Callable[..., Any], *given: Any) -> Any | Skipped:
        """A plain call. The checked answer, or SKIPPED; raises what the hook may raise, and `PluginFailed`."""
        started = monotonic()
        if self.breaker.state is not State.CLOSED and not self._allowed(started):
            return self._passed_over(hook)
        running = self.running
        running.since = started
        running.hook = hook
        running.plugin = self.name
        try:
            answer = check(call(*given), *given)
        except LAWFUL.get(hook, ()):
            self.well()
            raise
        except (Exception, SystemExit) as bug:  # noqa: BLE001 - whatever it is, it is the plugin's
            return self.ill(hook, bug)
        finally:
            running.plugin = ""
            self.took = took = monotonic() - started
        if took >= STALL:
            self._slow(hook, took)
        elif self.breaker.failures or self.breaker.state is not State.CLOSED:
            self.well()
        return answer

    async def call(self, hook: str, check: Callable[..., Any], *given: Any) -> Any | Skipped:
        """A call of any hook, awaited where it is to be, within the budget. As `at_once`."""
        call = getattr(self.plugin, hook)
        waits = hook in self.asynchronous
        if not waits and self._limiter is None:
            return self.at_once(hook, call, check, *given)
        started = monotonic()
        if not self._allowed(started):
            return self._passed_over(hook)
        longest = 0.0
        limit = asyncio.timeout(self.budget)
        try:
            async with limit:
                steps = Stepped(call(*given) if waits else self._threaded(call, *given), self.running, self.name, hook)
                try:
                    answer = await steps
                finally:
                    longest = steps.longest
            answer = check(answer, *given)
        except LAWFUL.get(hook, ()):
            self.well()
            raise
        except (Exception, SystemExit) as bug:  # noqa: BLE001 - as in at_once
            return self.ill(hook, bug, late=isinstance(bug, TimeoutError) and limit.expired())
        finally:
            self.took = monotonic() - started
            if longest >= STALL:
                self._stalled(hook, longest)
        if longest < STALL:
            self.well()
        return answer

    def well(self) -> None:
        """The last call was as it should be."""
        if self.breaker.succeeded():
            self.journal.breaker(self.name, State.CLOSED)

    def ill(self, hook: str, bug: BaseException, *, late: bool = False) -> Skipped:
        """A call failed: count it, and pass it over or end the request (`PluginFailed`)."""
        reason: ErrorReason = "timeout" if late else "garbage" if isinstance(bug, Garbage) else "error"
        detail = f"no answer within {self.budget} s" if late else str(bug) if isinstance(bug, Garbage) else where(bug)
        self.journal.failed(self.name, hook, reason, detail)
        if self.breaker.failed(monotonic()):
            self.journal.breaker(self.name, State.OPEN)
        if self.closed(hook):
            raise PluginFailed(f"{self.name}.{hook}: {reason}") from None
        return SKIPPED

    def _threaded(self, call: Callable[..., Any], *given: Any) -> Awaitable[Any]:
        # A thread cannot be ended: when the budget is over its answer is nobody's.
        return anyio.to_thread.run_sync(partial(call, *given), abandon_on_cancel=True, limiter=self._limiter)

    def _allowed(self, now: float) -> bool:
        trial = self.breaker.state is State.OPEN
        allowed = self.breaker.allows(now)
        if trial and allowed:
            self.journal.breaker(self.name, State.HALF_OPEN)
        return allowed

    def _passed_over(self, hook: str) -> Skipped:
        """The breaker is open."""
        self.took = 0.0
        if self.closed(hook):
            raise PluginFailed(f"{self.name}.{hook}: the breaker is open")
        return SKIPPED

    def _slow(self, hook: str, took: float) -> None:
        """A plain call that came back in the end: its answer counts, and so does its time."""
        if took > self.budget:
            self.journal.failed(self.name, hook, "timeout", f"{took:.3f} s without giving the loop back")
        self._stalled(hook, took)

    def _stalled(self, hook: str, took: float) -> None:
        self.journal.failed(self.name, hook, "stall", f"{took:.3f} s without giving the loop back")
        if self.breaker.stalled(monotonic()):
            self.journal.breaker(self.name, State.OPEN)


def where(bug: BaseException) -> str:
    """What was raised and where, without its message: that may hold what users wrote."""
    frames = traceback.extract_tb(bug.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return f"{type(bug).__name__}{place}"
