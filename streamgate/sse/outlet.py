"""The client's side of a stream: what is written to it, who writes it, and how it is lost.

Frames are pushed: `write` is a plain call that takes everything and never blocks. When the client does not drain, the
outlet pauses whoever feeds it (`Source.pause`), and from that moment the send clock runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from streamgate.sse.clocks import NEVER, Clocks, Watch

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case

# asyncio's own default high-water mark is 64 KiB; half of it leaves the other half to one bounded read (design: at most
# 64 KiB of complete frames per stream).
HIGH_WATER = 32 * 1024


class Lost(Enum):
    """How the client went away."""

    CLOSED = "closed"  # FIN or RST
    SLOW = "slow"  # a write did not drain within the send clock, or the kernel gave the peer up (ETIMEDOUT)


class Source(Protocol):
    """Whoever feeds an outlet, as the outlet sees it; both calls are idempotent and may come from inside `write`."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Sink(Protocol):
    """The next step of a stream: an outlet, event hooks, a resume log, a translation."""

    def write(self, frame: bytes, now: float) -> None:
        """Take whole events only; take all of them; never block."""
        ...


class Outlet(Sink, Protocol):
    """The client's side; the sole writer of head, frames, pings, farewell and final chunk."""

    started: bool  # False: a fault is still a status; True: it is an error event
    lost: Lost | None
    pings: int
    blocked_for: float  # seconds in which the client did not drain, before `blocked_at`
    beats: bool  # False: the body is not events, a heartbeat would be part of it
    blocked_at: float  # since when the client has not been draining, monotonic seconds; 0.0 while it does

    @property
    def buffered(self) -> int:
        """Bytes written here that the client's socket has not taken yet."""
        ...

    def start(self, status: int, headers: Headers) -> None:
        """Write the head. Once; by the content, or by the early commit."""
        ...

    def attach(self, source: Source | None) -> None:
        """Name who is to be paused while the client does not drain; paused at once if it already does not."""
        ...

    def on_lost(self, callback: Callable[[Lost], None] | None) -> None:
        """Call back once, when the client is lost; at once, when it already is."""
        ...

    async def finish(self, farewell: bytes | None, *, whole: bool) -> None:
        """Write the last words and the end; `whole` False leaves the body unterminated, so that any client notices.

        Returns when the client took it all, was lost, or the send clock ran out. Nothing is written after it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Farewell:
    """What the content leaves to be said at the end: last bytes, and whether the body ends cleanly."""

    words: bytes | None = None
    whole: bool = True


class Feed(Protocol):
    """Content that pushes itself into an outlet."""

    async def into(self, outlet: Outlet) -> Farewell: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OutletSettings:
    """Seconds. 0 turns a heartbeat or a send clock off; `early_commit` None never commits, 0 commits at once."""

    heartbeat: float = 15.0
    send: float = 30.0
    early_commit: float | None = None
    ping: bytes = b": ping\n"
    # The head an early commit sends, when content has not started the response by then.
    early_headers: tuple[tuple[bytes, bytes], ...] = ()


class TimedOutlet:
    """What both outlets share: the clocks of the client's side, and the one way in which a client is lost.

    A subclass writes bytes and knows when they do not drain: it sets `blocked_at` and calls `full` and `drained`.
    """

    __slots__ = (
        "_on_lost",
        "_source",
        "_watch",
        "beats",
        "blocked_at",
        "blocked_for",
        "commit_at",
        "ending",
        "lost",
        "pings",
        "settings",
        "started",
        "wrote_at",
    )

    def __init__(self, settings: OutletSettings, clocks: Clocks) -> None:
        now = time.monotonic()
        self.settings = settings
        self.started = False
        self.ending = False  # finish was called: no more pings
        self.lost: Lost | None = None
        self.pings = 0
        self.beats = settings.heartbeat > 0 and bool(settings.ping)
        self.wrote_at = now
        self.blocked_at = 0.0  # 0.0: draining
        self.blocked_for = 0.0  # seconds spent blocked, for the record
        self.commit_at = NEVER if settings.early_commit is None else now + settings.early_commit
        self._source: Source | None = None
        self._on_lost: Callable[[Lost], None] | None = None
        self._watch: Watch | None = clocks.watch(self, self._due())

    # What a subclass writes with.
    @property
    def buffered(self) -> int:
        raise NotImplementedError

    def start(self, status: int, headers: Headers) -> None:
        raise NotImplementedError

    def write(self, frame: bytes, now: float) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        """Let go of the socket and its buffers now."""
        raise NotImplementedError

    def began(self) -> None:
        """To be called by `start`: from here on a fault is an error event, and silence is filled with heartbeats."""
        self.started = True
        self.commit_at = NEVER
        self.wrote_at = time.monotonic()
        self._hasten()

    def attach(self, source: Source | None) -> None:
        self._source = source
        if source is not None and self.blocked_at:
            source.pause()

    def on_lost(self, callback: Callable[[Lost], None] | None) -> None:
        self._on_lost = callback
        if callback is not None and self.lost is not None:
            callback(self.lost)

    def full(self) -> None:
        """The client does not drain: pause the source, start the send clock. Re-entrant: it fires inside write()."""
        if not self.blocked_at:
            self.blocked_at = time.monotonic()
            self._hasten()
            if self._source is not None:
                self._source.pause()

    def drained(self) -> None:
        if self.blocked_at:
            self.blocked_for += time.monotonic() - self.blocked_at
            self.blocked_at = 0.0
            self._hasten()
            if self._source is not None:
                self._source.resume()

    def gone(self, lost: Lost) -> None:
        """The client is lost; the first reason stands."""
        if self.lost is None:
            self.lost = lost
            if self._on_lost is not None:
                self._on_lost(lost)

    def look(self, now: float) -> float:
        """Send clock, early commit and heartbeat: see `Watched`."""
        if self.lost is not None:
            return NEVER
        if self.blocked_at:
            if self.settings.send and now - self.blocked_at >= self.settings.send:
                self.gone(Lost.SLOW)
                self.abort()
                return NEVER
        elif not self.started and now >= self.commit_at:
            self.start(200, self.settings.early_headers)
        elif self._beats() and now - self.wrote_at >= self.settings.heartbeat:
            self.ping(now)
        return self._due()

    def ping(self, now: float) -> None:
        self.pings += 1
        self.write(self.settings.ping, now)

    def _beats(self) -> bool:
        return self.beats and self.started and not self.ending and self.settings.heartbeat > 0

    def _due(self) -> float:
        if self.blocked_at:
            return self.blocked_at + self.settings.send if self.settings.send else NEVER
        if not self.started:
            return self.commit_at
        return self.wrote_at + self.settings.heartbeat if self._beats() else NEVER

    def _hasten(self) -> None:
        if self._watch is not None:
            self._watch.hasten(self._due())

    def close(self) -> None:
        """Forget everything this outlet referred to."""
        if self._watch is not None:
            self._watch.forget()
            self._watch = None
        self._source = self._on_lost = None
