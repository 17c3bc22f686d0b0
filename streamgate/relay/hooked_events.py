"""One plugin's `on_event` on one stream: events in, events out; what it leaves alone passes byte for byte."""

from __future__ import annotations

from collections.abc import Iterable

from streamgate.hooks.member import SKIPPED, Garbage, Member
from streamgate.hooks.spec import ServerSentEvent, Stream
from streamgate.sse.event import event_bytes
from streamgate.sse.frames import blocks
from streamgate.sse.parser import EventStreamParser


class EventStage:
    """`spent` in seconds, all calls together."""

    __slots__ = ("_block", "_call", "_given", "_view", "_waits", "done", "hook", "member", "over", "spent")

    def __init__(self, member: Member, view: Stream) -> None:
        self.hook = "on_event"
        self.member = member
        self.spent = 0.0
        self.over = False  # it ended the stream: nothing it holds is to leave
        self.done = b""  # of the frame that it is at, what came before the present event
        self._call = member.plugin.on_event
        self._waits = self.hook in member.asynchronous
        self._view = view
        self._block = b""  # the event that is being shown, as it came ...
        self._given: tuple[object, ...] = ()  # ... and its fields

    async def pass_on(self, frame: bytes) -> bytes:
        if frame.startswith(b"data: ") and frame.find(b"\n") == len(frame) - 2 and frame.find(b"\r") < 0:
            self.done = b""
            event = ServerSentEvent(frame[6:-2].decode("utf-8", "replace"), sep="\n")  # nearly every frame there is
            return await self._shown(event, frame)
        self.done = b""
        for start, end in blocks(frame):
            block = frame[start:end]
            parsed = EventStreamParser(len(block)).feed(block)
            self.done += await self._shown(parsed[0], block) if parsed else block
        return self.done

    async def flush(self) -> bytes:
        return b""

    async def _shown(self, event: ServerSentEvent, block: bytes) -> bytes:
        self._block = block
        self._given = (event.data, event.event, event.id, event.retry)
        member = self.member
        try:
            if self._waits:
                shown = await member.call("on_event", self._bytes, event, self._view)
            else:
                shown = member.at_once("on_event", self._call, self._bytes, event, self._view)
        finally:
            self.spent += member.took
        if shown is SKIPPED:
            return block
        written: bytes = shown
        return written

    def _bytes(self, answer: object, event: ServerSentEvent, _: Stream) -> bytes:
        """The bytes of what the hook answered with."""
        if answer is event:
            return self._one(event, event)
        if answer is None:
            return b""
        if isinstance(answer, ServerSentEvent):
            return self._one(answer, event)
        if isinstance(answer, Iterable) and not isinstance(answer, str | bytes | dict):
            return b"".join([self._one(one, event) for one in answer])
        raise Garbage(f"{type(answer).__name__} instead of an event, several, or None")

    def _one(self, one: object, event: ServerSentEvent) -> bytes:
        if one is event:
            data, name, number, retry = self._given
            same = event.data is data and event.event is name and event.id is number and event.retry is retry
            if same and event.comment is None:
                return self._block
        if not isinstance(one, ServerSentEvent):
            raise Garbage(f"{type(one).__name__} instead of an event")
        try:
            # A line end of its own only if the plugin asks for it: what is around it ends its lines with LF.
            return event_bytes(one.sep or "\n", one.data, one.event, one.id, one.retry, one.comment)
        except (TypeError, ValueError) as wrong:
            raise Garbage(f"an event that cannot be written: {wrong}") from None
