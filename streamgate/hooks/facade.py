"""What a plugin is given of the gateway: its name, its metrics, the log, the clocks."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from streamgate.clock import monotonic, wall
from streamgate.hooks.figures import Figures
from streamgate.hooks.spec import Log


class Gateway:
    """The `Facade` of one plugin; `metrics` is what `/metrics` shows of it, under streamgate_plugin_<name>_."""

    __slots__ = ("_now", "_wall", "log", "metrics", "name")

    def __init__(
        self,
        name: str,
        *,
        log: Log | None = None,
        now: Callable[[], float] = monotonic,
        wall: Callable[[], float] = wall,
    ) -> None:
        self.name = name
        self.metrics = Figures()
        self.log: Log = structlog.get_logger().bind(plugin=name) if log is None else log
        self._now = now
        self._wall = wall

    def now(self) -> float:
        """Monotonic seconds."""
        return self._now()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._wall()
