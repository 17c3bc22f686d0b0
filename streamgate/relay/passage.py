"""One stream's frames between an exchange and a sink: cut, scan, count, hold or write. No I/O.

HOLDING -> FLOWING -> ENDED. Until the first semantic event frames are held, so that another try can replace them;
from then on they are written as they come. All calls are plain and come from the socket's callback: they never wait,
and a fault inside them is the stream's own, not the upstream's.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from streamgate import errors
from streamgate.clock import monotonic
from streamgate.dialects.dialect import Dialect, Sight
from streamgate.errors import ErrorEvent, Fault
from streamgate.record import COMPLETED, Ending, Phase, StreamRecord
from streamgate.relay.answer import Headers, Kind, valid_utf8
from streamgate.relay.attempt import Attempt, Opening
from streamgate.relay.deadlines import Deadlines
from streamgate.sse.clocks import NEVER, clocks_of
from streamgate.sse.frames import FrameTooLarge, without_comments
from streamgate.sse.outlet import Lost, Sink, Source


class State(Enum):
    HOLDING = "holding"
    FLOWING = "flowing"
    ENDED = "ended"


class Passage:
    """See the module. Its owner drives tries (`begin`, `fed_by`, `first`) and waits for the end (`until`)."""

    __slots__ = (
        "_deadlines", "_idle_from", "_max_event", "_paused", "_source", "_watch", "attempt", "first", "heard",
        "opening", "record", "settled", "sink", "state", "told", "until",
    )  # fmt: skip

    def __init__(
        self, sink: Sink, opening: Opening, heard: Dialect, record: StreamRecord, deadlines: Deadlines, max_event: int
    ) -> None:
        loop = asyncio.get_running_loop()
        self.sink = sink
        self.opening = opening
        self.heard = heard
        self.record = record
        self.state = State.HOLDING
        self.attempt = Attempt(0.0, max_event, own_key=True)
        self.until: asyncio.Future[Ending] = loop.create_future()
        self.first: asyncio.Future[Fault | None] = loop.create_future()
        self.settled = False  # the logical end came, the HTTP body's end may still be under way
        self.told = False  # the client has already read of the fault, in the upstream's words
        self._deadlines = deadlines
        self._max_event = max_event
        self._source: Source | None = None
        self._paused = False
        self._idle_from = 0.0
        self._watch = clocks_of(loop).watch(self, self._due())

    @property
    def kind(self) -> Kind:
        return self.attempt.kind

    # A try, as the owner drives it.

    def begin(self, *, own_key: bool) -> None:
        """A new try: what the last one said is forgotten."""
        self.record.t_chunk = 0.0
        self.attempt = Attempt(monotonic(), self._max_event, own_key=own_key)
        if self.first.done():
            self.first = asyncio.get_running_loop().create_future()
        self._source = None
        self._watch.hasten(self._due())

    def fed_by(self, source: Source) -> None:
        self._source = source
        if self._paused:
            source.pause()

    def close(self) -> None:
        """The stream is over and its owner leaves: what the events said of themselves goes into the record."""
        self._watch.forget()
        self._source = None
        self.record.usage = self.heard.usage(self.attempt.seen)
        self.record.finish_reason = ",".join(dict.fromkeys(self.attempt.seen.finished.values()))

    # Receiver: what the exchange calls.

    def head(self, status: int, headers: Headers) -> None:
        if self.attempt.kind is not Kind.NOTHING or self.state is not State.HOLDING:
            return
        self.record.t_head = monotonic()
        fault = self.attempt.head(status, headers, events_only=self.opening.begun)
        if fault is not None:
            self._fail(fault)

    def feed(self, chunk: bytes) -> None:
        if self.state is State.ENDED:
            return
        try:
            now = monotonic()
            self.record.bytes_in += len(chunk)
            if self.attempt.kind is Kind.EVENTS:
                frame = self.attempt.cutter.cut(chunk)
                if frame:
                    self._frame(frame, now)
            else:
                self._piece(chunk, now)
        except FrameTooLarge:
            self._over(errors.EventTooLarge())
        except Exception as bug:  # noqa: BLE001 - a bug here must not be taken for the upstream's fault
            self.crash(bug)

    def end(self, fault: Fault | None) -> None:
        if self.state is State.ENDED or self.attempt.kind is Kind.FAILED:
            return
        try:
            self._over(self._whole() if fault is None else fault)
        except Exception as bug:  # noqa: BLE001 - as in feed
            self.crash(bug)

    # Source: what the outlet calls; time in which the client does not drain is not the upstream's silence.

    def pause(self) -> None:
        self._paused = True
        if self._source is not None:
            self._source.pause()

    def resume(self) -> None:
        self._paused = False
        self._idle_from = monotonic()
        self._watch.hasten(self._due())
        if self._source is not None:
            self._source.resume()

    # Ends that come from elsewhere; the first one wins.

    def finish(self, ending: Ending) -> None:
        """The stream has ended, by whomever; later calls change nothing."""
        if self.state is State.ENDED:
            return
        self.state = State.ENDED
        self.record.phase = Phase.ENDED
        if not self.until.done():
            self.until.set_result(ending)
        if not self.first.done():
            self.first.set_result(None)

    def client_lost(self, lost: Lost) -> None:
        now, last = monotonic(), self.record.t_last
        if last:  # else it never had anything to read
            last = now if self._paused else max(last, self._idle_from)
        self.finish(Ending(self._deadlines.departure(lost, last, now)))

    def drained(self) -> None:
        self.finish(Ending.by(errors.Drained()))

    def crash(self, bug: Exception) -> None:
        self.finish(Ending.by(errors.Internal(f"{type(bug).__name__}: {bug}")))

    def look(self, now: float) -> float:
        """First token, idle, total and answer clocks: see `Watched`."""
        if self.state is State.ENDED:
            return NEVER
        if now >= self._whole_due():
            self.finish(Ending.by(errors.Deadline()))
        elif now >= self._token_due():
            if self.state is State.FLOWING:
                self.finish(Ending.by(errors.IdleTimeout()))
            else:
                self._fail(errors.FirstTokenTimeout())
        return self._due()

    def _due(self) -> float:
        return min(self._whole_due(), self._token_due()) if self.state is not State.ENDED else NEVER

    def _whole_due(self) -> float:
        return self._deadlines.answer_due(self.record.t_leased, stream=self.record.stream)

    def _token_due(self) -> float:
        tried = self.attempt.since
        if not self.record.stream or self._paused or not tried or self.attempt.kind is Kind.FAILED:
            return NEVER
        if self.state is State.FLOWING:
            return self._deadlines.idle_due(max(self.record.t_last, self._idle_from))
        return self._deadlines.first_token_due(tried)

    def _frame(self, frame: bytes, now: float) -> None:
        """Whole events: the hot path."""
        record = self.record
        if not frame.isascii():
            frame = valid_utf8(frame)
        sight = self.heard.scan(frame, self.attempt.seen)
        if not sight & Sight.ORDINARY:
            if sight & (Sight.ERROR | Sight.END):
                self._stop(frame, sight, now)
                return
            frame = without_comments(frame)
            if not frame:
                return
        if self.state is State.HOLDING:
            record.t_chunk = record.t_chunk or now
            if not sight & Sight.SEMANTIC and self.attempt.hold(frame):
                return
            frame = self._flow(frame)
        if sight & Sight.SEMANTIC:
            record.semantic(now)
        record.events = self.attempt.seen.events  # _write, without its call
        record.bytes_out += len(frame)
        self.sink.write(frame, now)
        if not record.events & 15:  # 1 event in 16: less than 10 ns for each
            record.costs.append(monotonic() - now)

    def _write(self, frame: bytes, now: float) -> None:
        record = self.record
        record.events = self.attempt.seen.events
        record.bytes_out += len(frame)
        self.sink.write(frame, now)

    def _flow(self, piece: bytes) -> bytes:
        """Commit: from here on this try is the stream. Returns what was held, with `piece` after it."""
        now = monotonic()
        self.state = State.FLOWING
        self.record.phase = Phase.STREAMING
        self._idle_from = now
        self._watch.hasten(self._due())
        piece = self.attempt.released(piece, begun=self.opening.begun)
        self.opening.open(self.attempt, self)
        if not self.first.done():  # it is, when the task that waits for it is being cancelled
            self.first.set_result(None)
        return piece

    def _stop(self, frame: bytes, sight: int, now: float) -> None:
        """The frame holds the event that ends the stream: the terminator, or an error."""
        fault, written = self.attempt.stopped(frame, sight, self.heard)
        if self.state is State.HOLDING:
            self.record.t_chunk = self.record.t_chunk or now
            if fault is not None:
                self._fail(fault)
                return
            written = self._flow(written)
        if sight & Sight.SEMANTIC:
            self.record.semantic(now)
        if written:
            self._write(written, now)
        self.settled = True
        self._over(fault)

    def _whole(self) -> Fault | None:
        """The HTTP body is whole: is the answer?"""
        last = self.attempt.rest()
        if last:
            self._frame(last, monotonic())
        if self.state is State.ENDED:
            return None
        fault = self.attempt.verdict(self.heard, flowing=self.state is State.FLOWING)
        if fault is None and self.state is State.HOLDING:
            self._write_whole()
        return fault

    def _write_whole(self) -> None:
        """A JSON answer that was held to its end: its length is known."""
        body = self.attempt.released(b"", begun=False)
        self.attempt.length = len(body)
        self.attempt.seen.usage_frame = b"data: " + b" ".join(body.splitlines()) + b"\n\n"
        self._flow(b"")
        now = monotonic()
        self.record.semantic(now)
        self._write(body, now)

    def _piece(self, chunk: bytes, now: float) -> None:
        """Bytes of a body that is not events."""
        kind = self.attempt.kind
        if kind is Kind.FAILED:
            return
        if kind is Kind.ERROR:
            self.attempt.hold(chunk)  # what is longer cannot be passed on, and is not kept
            return
        if self.state is State.HOLDING:
            if kind is Kind.JSON and self.attempt.hold(chunk):
                return
            chunk = self._flow(chunk)
        self.record.semantic(now)
        self._write(chunk, now)

    def _over(self, fault: Fault | None) -> None:
        """This try said its last: nothing of it was written, or it is the stream's end."""
        if self.state is State.HOLDING and fault is not None:
            self._fail(fault)
        elif self.state is not State.ENDED:
            # An upstream's own error event, or its own finish reason, was relayed: nothing is to be added.
            self.told = isinstance(fault, ErrorEvent)
            self.finish(COMPLETED if fault is None else Ending.by(fault))

    def _fail(self, fault: Fault) -> None:
        """This try is over and nothing of it was written."""
        self.attempt.kind = Kind.FAILED
        if not self.first.done():
            self.first.set_result(fault)
