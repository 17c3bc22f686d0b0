"""Live and ready, as a function of start-up and drain; not of the upstreams.

An upstream that is down concerns all replicas alike: taking them out of service one by one would only turn its clients'
errors into refused connections.
"""

from __future__ import annotations

from typing import NamedTuple

from streamgate.drain import Drain, Phase


class Answer(NamedTuple):
    """What a probe is told."""

    status: int
    word: str

    @property
    def ok(self) -> bool:
        return self.status == 200


def live() -> Answer:
    """An event loop that can answer is alive; a drain is no reason to be killed early."""
    return Answer(200, "live")


def ready(phase: Phase, *, started: bool) -> Answer:
    """Whether newcomers should be sent here."""
    if phase is not Phase.SERVING:
        return Answer(503, phase.value)
    return Answer(200, "ready") if started else Answer(503, "starting")


class Health:
    """The two answers for one server; whoever starts it sets `started` once it listens."""

    __slots__ = ("_drain", "started")

    def __init__(self, drain: Drain, *, started: bool = False) -> None:
        self._drain = drain
        self.started = started

    def live(self) -> Answer:
        return live()

    def ready(self) -> Answer:
        return ready(self._drain.phase, started=self.started)
