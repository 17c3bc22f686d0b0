"""The step of a stream at which plugins see its head, its events and its text: between the passage and the outlet.

Only streams for which a plugin listens have it; the others' passage writes to the outlet itself. `mailbox.py` is the
same step for hooks that wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from streamgate.clock import monotonic
from streamgate.dialects.dialect import Dialect
from streamgate.errors import Aborted, PluginFailed
from streamgate.hooks.chain import StreamHooks
from streamgate.hooks.values import Abort, ResponseHead
from streamgate.record import Ending, Outcome, StreamRecord
from streamgate.relay.answer import Kind
from streamgate.relay.attempt import Attempt, Opening
from streamgate.relay.consulted import raw, words
from streamgate.relay.headers import returned
from streamgate.relay.hooked_events import EventStage
from streamgate.relay.hooked_text import TextStage
from streamgate.relay.valve import TURN, Valve
from streamgate.sse.outlet import Outlet, Source

FAIR: Final = 0.005  # s of hooks in one turn of the event loop, after which the other streams come first
TURN_LASTS: Final = 0.01  # s: two reads closer than this are taken to be of one turn
# A JSON answer longer than this is not held: one of 32,000 tokens has a quarter of it.
WHOLE: Final = 1024 * 1024
# The client is not there to read what is still held.
_UNHEARD: Final = frozenset((Outcome.CLIENT_CLOSED, Outcome.CLIENT_GAVE_UP, Outcome.SLOW_CLIENT))

T = TypeVar("T")


class Opener(Opening, Protocol):
    """The client's response head, as hooks may change it."""

    amended: tuple[int, list[tuple[bytes, bytes]]] | None  # status and headers, to be written instead


class Ends(Source, Protocol):
    """The passage, as its hooks see it."""

    def finish(self, ending: Ending) -> None: ...
    def crash(self, bug: Exception) -> None: ...


class Hooked:
    """Sink and opening of one passage; see the module.

    `async with` it, `attach` the passage, and before the farewell ask `finish` how the stream really ended.
    """

    __slots__ = ("_body", "_dialect", "_ends", "_head", "_held", "_hooks", "_kind", "_outlet", "_record",
                 "_spent", "_stages", "_texts", "_turn", "ending", "valve")  # fmt: skip

    def __init__(
        self, hooks: StreamHooks, outlet: Outlet, head: Opener, dialect: Dialect, record: StreamRecord
    ) -> None:
        self._hooks = hooks
        self._outlet = outlet
        self._head = head
        self._dialect = dialect
        self._record = record
        self._stages = _stages(hooks, dialect)
        self._texts = [stage for stage in self._stages if isinstance(stage, TextStage)]
        self._kind = Kind.NOTHING
        self._held: Attempt | None = None  # a JSON answer that is being collected ...
        self._body = bytearray()  # ... and what there is of it
        self._ends: Ends | None = None
        self._turn = self._spent = 0.0
        self.ending: Ending | None = None  # how a plugin ended the stream
        self.valve = Valve()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.valve.attach(None)
        self._ends = None

    def attach(self, passage: Ends) -> None:
        """Name the passage that writes here: to be paused, and to be ended."""
        self._ends = passage
        self.valve.attach(passage)

    # Opening and Sink: what the passage calls.

    @property
    def begun(self) -> bool:
        return self._head.begun

    def open(self, attempt: Attempt, source: Source) -> None:
        try:
            at_once(self._opened(attempt))
        except (Abort, PluginFailed) as fault:
            self._fail(fault)

    def write(self, frame: bytes, now: float) -> None:
        if self.ending is not None:
            return
        try:
            out = at_once(self._carried(frame))
        except (Abort, PluginFailed) as fault:
            self._fail(fault)
            return
        if out:
            self._outlet.write(out, now)
        took = monotonic() - now
        if took > 0.001:  # else it takes a hundred reads in one turn to matter
            self._busy(took, now)

    # The end, as the passage's owner calls it.

    async def finish(self, ending: Ending) -> Ending:
        """Release what is held, when somebody is there to read it; how the stream ended, plugins considered."""
        if self._heard(ending):
            try:
                await self._last(ending)
            except (Abort, PluginFailed) as fault:
                self._fail(fault)
        for stage in self._stages:
            if stage.spent:
                stage.member.journal.spent(stage.member.name, stage.hook, stage.spent)
        return self.ending or ending

    def _heard(self, ending: Ending) -> bool:
        """The client is there to read what is still to come."""
        return self._outlet.lost is None and ending.outcome not in _UNHEARD

    async def _last(self, ending: Ending) -> None:
        if self._held is not None:
            if self.ending is None and ending.fault is None:
                await self._answered(self._held)
        elif self._kind is Kind.EVENTS:
            released = await self._flushed()
            if released:
                self._record.bytes_out += len(released)
                self._outlet.write(released, monotonic())

    # What both drivers do.

    async def _opened(self, attempt: Attempt) -> None:
        self._kind = attempt.kind
        if self._kind is Kind.JSON and self._texts:
            self._held = attempt  # its length is known when all of it is
        else:
            await self._begin(attempt)

    async def _begin(self, attempt: Attempt) -> None:
        if self._hooks.opening and not self._head.begun:
            status, headers = self._head.amended or (attempt.status, self._passing(attempt))
            given = ResponseHead(status=status, headers=words(headers))
            head = await self._hooks.head(given)
            if head is not given:
                self._head.amended = head.status, raw(head.headers)
        self._head.open(attempt, self.valve)

    def _passing(self, attempt: Attempt) -> list[tuple[bytes, bytes]]:
        return returned(attempt.headers, self._record.request_id)[0]

    async def _carried(self, frame: bytes) -> bytes:
        """What becomes of one frame, or of a piece of a body that is not events."""
        if self._kind is Kind.EVENTS:
            size = len(frame)
            frame = await self._passed(frame)
            self._record.bytes_out += len(frame) - size
        elif self._held is not None:
            self._body += frame
            if len(self._body) > WHOLE:
                frame = await self._too_long(self._held)
            else:
                return b""
        return frame

    async def _passed(self, frame: bytes) -> bytes:
        """What the stages make of a frame; when one of them ends the stream, of what came before that event."""
        for stage in self._stages:
            frame = await self._passed_one(stage, frame)
            if not frame:
                break
        return frame

    async def _passed_one(self, stage: EventStage | TextStage, frame: bytes) -> bytes:
        try:
            return await stage.pass_on(frame)
        except (Abort, PluginFailed) as fault:
            stage.over = True
            self._fail(fault)
            return stage.done

    async def _flushed(self) -> bytes:
        """Release what the stages hold, each through those after it; what one holds that ended the stream is lost."""
        released = b""
        first = max((place for place, stage in enumerate(self._stages, 1) if stage.over), default=0)
        for stage in self._stages[first:]:
            if released:
                released = await self._passed_one(stage, released)
            if stage.over:
                continue
            try:
                released += await stage.flush()
            except (Abort, PluginFailed) as fault:
                stage.over = True
                self._fail(fault)
        return released

    async def _answered(self, attempt: Attempt) -> None:
        """A whole JSON answer: change its texts, and only now begin."""
        self._held = None
        body = bytes(self._body)
        for stage in self._texts:
            body = await stage.whole(body)
        attempt.length = len(body)
        self._record.bytes_out += len(body) - len(self._body)
        await self._begin(attempt)
        self._outlet.write(body, monotonic())

    async def _too_long(self, attempt: Attempt) -> bytes:
        """It cannot be held: it passes unseen, unless one of its plugins must not be passed over."""
        for stage in self._texts:
            if stage.member.closed("on_text"):
                raise PluginFailed(f"{stage.member.name}.on_text: an answer of more than {WHOLE} bytes")
        self._held = None
        attempt.length = None
        await self._begin(attempt)
        return bytes(self._body)

    def _fail(self, fault: Abort | PluginFailed) -> None:
        """A plugin ends the stream; the first one's word stands."""
        if self.ending is None:
            told = Aborted(fault.message, code=fault.code) if isinstance(fault, Abort) else fault
            self.ending = Ending.by(told)
            if self._ends is not None:
                self._ends.finish(self.ending)

    def _busy(self, took: float, now: float) -> None:
        """Count what hooks cost in this turn of the loop; above their share the source waits for the next one."""
        if now - self._turn > TURN_LASTS:
            self._turn, self._spent = now, 0.0
        self._spent += took
        if self._spent >= FAIR:
            self._spent = 0.0
            self.valve.shut(TURN)
            asyncio.get_running_loop().call_soon(self.valve.open, TURN)


def at_once(steps: Coroutine[Any, Any, T]) -> T:
    """Run what never waits: hooks that are plain calls."""
    try:
        steps.send(None)
    except StopIteration as end:
        answer: T = end.value
        return answer
    steps.close()
    raise RuntimeError("a hook of this stream waits, but does not say so")


def _stages(hooks: StreamHooks, dialect: Dialect) -> list[EventStage | TextStage]:
    stages: list[EventStage | TextStage] = []
    for member in hooks.chunked:
        if "on_text" in member.hooks and dialect.tells:
            stages.append(TextStage(member, hooks.view(member), dialect))
        if "on_event" in member.hooks:
            stages.append(EventStage(member, hooks.view(member)))
    return stages
