"""May a failed try be followed by another? Only asked while nothing semantic has gone to the client. No I/O."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from streamgate.errors import BadStatus, Fault, KeyRejected

# Statuses that say "not now" or "not here". Not 500: it is as likely to be about the request as about the server.
PASSING = frozenset((429, 502, 503, 504))
# Waits on the same upstream, in seconds: full jitter below a doubling ceiling (AWS, "Exponential Backoff And Jitter").
FIRST_WAIT = 0.05
LONGEST_WAIT = 1.0
# A longer Retry-After than this is not waited for: the client's own retry will come at a better time.
LONGEST_ASKED_WAIT = 2.0
WINDOW = 10  # seconds over which the budget is counted, as linkerd does


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """`attempts`: more tries after the first; `deadline`: seconds over all tries.

    Over all streams, further tries may be `budget` times the requests of the last 10 s and `budget_min_per_s` a second,
    so that an upstream in trouble gets 1.2 times its load and not 3 times.
    """

    attempts: int = 2
    deadline: float = 180.0
    budget: float = 0.2
    budget_min_per_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Again:
    """One more try: after `delay` seconds, and on another upstream or on the same."""

    delay: float
    elsewhere: bool


class RetryBudget:
    """How many further tries all streams together may make, over a sliding window of whole seconds."""

    __slots__ = ("_seconds", "_settings")

    def __init__(self, settings: RetrySettings) -> None:
        self._settings = settings
        self._seconds: deque[list[int]] = deque()  # [second, requests, further tries]

    def note(self, now: float) -> None:
        """A request came."""
        self._second(now)[1] += 1

    def take(self, now: float) -> bool:
        """Whether one more further try is within the budget; if so, it is counted."""
        second = self._second(now)
        requests = sum(entry[1] for entry in self._seconds)
        taken = sum(entry[2] for entry in self._seconds)
        if taken + 1 > self._settings.budget * requests + self._settings.budget_min_per_s * WINDOW:
            return False
        second[2] += 1
        return True

    def _second(self, now: float) -> list[int]:
        second = int(now)
        while self._seconds and self._seconds[0][0] <= second - WINDOW:
            self._seconds.popleft()
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0])
        return self._seconds[-1]


def decide(
    fault: Fault,
    *,
    made: int,
    elapsed: float,
    others: bool,
    settings: RetrySettings,
    budget: RetryBudget,
    now: float,
    jitter: float,
) -> Again | None:
    """What follows the fault that ended try number `made` (from 1), `elapsed` seconds after the first began.

    `others`: there is an eligible upstream that this stream has not tried. `jitter` is random in [0, 1). None: give up.
    """
    if made > settings.attempts or not passing(fault):
        return None
    again = _next_try(fault, made=made, others=others, jitter=jitter)
    if again is None or elapsed + again.delay >= settings.deadline:
        return None
    return again if budget.take(now) else None


def passing(fault: Fault) -> bool:
    """Whether another try could end differently."""
    if isinstance(fault, BadStatus):
        return fault.answered in PASSING
    return fault.retryable


def _next_try(fault: Fault, *, made: int, others: bool, jitter: float) -> Again | None:
    if others:
        return Again(0.0, elsewhere=True)
    if isinstance(fault, KeyRejected):
        return None  # the same key is refused again
    asked = fault.retry_after if isinstance(fault, BadStatus) else None
    if asked is not None:
        return Again(asked, elsewhere=False) if asked <= LONGEST_ASKED_WAIT else None
    return Again(jitter * min(LONGEST_WAIT, FIRST_WAIT * 2 ** (made - 1)), elsewhere=False)


def retry_after(headers: Iterable[tuple[bytes, bytes]], now_wall: float) -> float | None:
    """Seconds the upstream asks to wait: `retry-after-ms`, else `retry-after` as seconds or as an HTTP date.

    None when it says nothing, or nothing that can be understood; `now_wall` is the wall clock, for dates.
    """
    said = {name: value.decode("latin-1").strip() for name, value in headers if name.startswith(b"retry-after")}
    milliseconds = _number(said.get(b"retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = said.get(b"retry-after")
    seconds = _number(value)
    return _until(value, now_wall) if seconds is None and value else seconds


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _until(date: str, now_wall: float) -> float | None:
    try:
        then = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    if then.tzinfo is None:  # "-0000"
        then = then.replace(tzinfo=UTC)
    return max(0.0, then.timestamp() - now_wall)
