"""Once a second: a sample into the ring of ten minutes, and a snapshot for those who watch, if anybody does.

One snapshot is made and encoded for all viewers. It is driven by the loop's one timer: no task, nothing to cancel.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable
from itertools import chain, islice

import orjson

from streamgate.clock import monotonic
from streamgate.control.snapshot import Scene, Snapshot, ending_row, first_token_ms, quantile, snapshot
from streamgate.record import Outcome, StreamRecord
from streamgate.sse import Broadcast, ServerSentEvent, Slow, StreamGroup
from streamgate.sse.clocks import Clocks, Watch

INTERVAL = 1.0  # s
KEPT = 600  # samples: ten minutes
BAD_ENDINGS = 50
# First tokens are told over this many seconds, or quiet hours would be all gaps; of each second at most so many.
FIRSTS_OVER = 10
FIRSTS = 256
# Snapshots that wait for one slow viewer: each replaces the one before.
WAITING = 2

# The columns of one sample. Times are Unix seconds, first tokens milliseconds, the rest numbers or rates per second.
COLUMNS = ("at", "active", "starts", "ttft_p50", "ttft_p95", "chunks", "errors")
Sample = tuple[float | None, ...]


class Pulse:
    """The feed of the live page. `start` it on the loop it is to live on; `close` ends it and all its viewers."""

    def __init__(
        self, scene: Scene, clock: Callable[[], float] = monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.scene = scene
        self.born = clock()
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self.bad: deque[Snapshot] = deque(maxlen=BAD_ENDINGS)  # the last ones, oldest first
        self.broadcast = Broadcast(queue=WAITING, slow=Slow.DROP_OLDEST)
        self.viewers = StreamGroup()
        self._clock = clock
        self._wall = wall
        self._errors = 0  # since the last sample, as the next two
        self._ended = 0  # streams whose first token came and went
        self._ended_firsts = array("d", bytes(8 * FIRSTS))  # not a list: a short stream leaves no object behind
        self._firsts: deque[array[float]] = deque(maxlen=FIRSTS_OVER)
        self._sampled_at = self.born
        self._starts = self._chunks = 0
        self._watch: Watch | None = None
        scene.observer.on_ended = self.ended

    def start(self, clocks: Clocks) -> None:
        self._watch = clocks.watch(self, self._clock() + INTERVAL)

    def close(self) -> None:
        self.broadcast.close()
        self.viewers.end()
        if self._watch is not None:
            self._watch.forget()
            self._watch = None
        self.scene.observer.on_ended = None

    def ended(self, record: StreamRecord, outcome: Outcome, error: bool) -> None:
        """A stream has ended; the observer calls, for each: no further calls here, no objects left behind."""
        if record.stream and record.t_first > self._sampled_at and self._ended < FIRSTS:
            self._ended_firsts[self._ended] = (record.t_first - (record.t_read or record.t_received)) * 1000
            self._ended += 1
        self._errors += error
        if error or outcome is Outcome.KILLED:
            self.bad.append(ending_row(record, outcome, self._wall(), self._clock()))

    def look(self, now: float) -> float:
        """A second has passed: see `Watched`."""
        self.beat(now)
        return max(now, self._sampled_at) + INTERVAL

    def beat(self, now: float) -> None:
        self._sample(now)
        if len(self.broadcast):
            self.broadcast.publish(self._event(now))

    async def feed(self) -> AsyncIterator[ServerSentEvent | bytes]:
        """One viewer's events: the ten minutes so far, the state of things now, then a snapshot each second."""
        async with self.broadcast.subscribe() as snapshots:  # first, so that no second is missed
            yield ServerSentEvent(self.history(), event="history")
            yield self._event(self._clock())
            async for each in snapshots:
                yield each

    def history(self) -> str:
        return orjson.dumps({"columns": COLUMNS, "samples": list(self.samples)}).decode()

    def snapshot(self, now: float) -> Snapshot:
        """The state of things, the last sample and the recent bad endings, latest first."""
        seen = snapshot(self.scene, now=now, wall=self._wall(), born=self.born)
        seen["sample"] = self.samples[-1] if self.samples else None
        seen["endings"] = list(reversed(self.bad))
        return seen

    def _event(self, now: float) -> ServerSentEvent:
        return ServerSentEvent(orjson.dumps(self.snapshot(now)).decode(), event="snapshot")

    def _sample(self, now: float) -> None:
        """About a dozen numbers. Rates are over the time since the last sample, which a busy loop makes longer."""
        observer = self.scene.observer
        seconds = max(now - self._sampled_at, 0.001)
        self._firsts.append(self._new_firsts())
        times = sorted(chain.from_iterable(self._firsts))
        starts = sum(observer.tally.started.cells.values())
        chunks = sum(observer.tally.chunks.cells.values())
        chunks += sum(record.events - seen.mark.events for record, seen in observer.live.items())
        self.samples.append(
            (
                round(self._wall(), 1),
                observer.active,
                round((starts - self._starts) / seconds, 1),
                quantile(times, 0.5),
                quantile(times, 0.95),
                round((chunks - self._chunks) / seconds, 1),
                round(self._errors / seconds, 2),
            )
        )
        self._starts, self._chunks, self._sampled_at = starts, chunks, now
        self._errors = self._ended = 0

    def _new_firsts(self) -> array[float]:
        """The first tokens since the last sample, in milliseconds: of those that ended, and of those that run."""
        firsts = self._ended_firsts[: self._ended]
        live = (record for record in self.scene.observer.live if record.stream and record.t_first > self._sampled_at)
        firsts.extend(ms for record in islice(live, FIRSTS) if (ms := first_token_ms(record)) is not None)
        return firsts
