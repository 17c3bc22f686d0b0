"""A plugin's own answer, fed to the passage as an upstream's would be: counted, hooked and ended in the same way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable
from contextlib import aclosing, closing, nullcontext

from streamgate.errors import PluginFailed
from streamgate.hooks.member import where
from streamgate.hooks.values import Answer
from streamgate.record import Ending
from streamgate.relay.hooked import Opener
from streamgate.relay.passage import Passage
from streamgate.sse.event import ServerSentEvent, ensure_bytes, event_bytes
from streamgate.sse.interrupt import Interrupted, interrupted_by

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


class Answered:
    """The source of one answer. `into` ends with the passage: by the answer's end, or by whatever came before.

    Not for a whole body with a status of 400 or more: that is an answer without a stream, to be sent as it is. `broke`
    is told when the plugin's iterable raises.
    """

    def __init__(self, answer: Answer, broke: Callable[[str], None]) -> None:
        self._answer = answer
        self._broke = broke
        self._flowing = asyncio.Event()
        self._flowing.set()

    def pause(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    async def into(self, passage: Passage, head: Opener, own: list[tuple[bytes, bytes]]) -> None:
        """`own` are the gateway's headers. An answer's headers pass as they are: no list says which."""
        answer = self._answer
        given = {**(EVENTS if answer.events is not None else {}), **answer.headers}
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]
        head.amended = answer.status, [*headers, *own]
        passage.begin(own_key=True)
        passage.fed_by(self)
        passage.head(200, headers)
        try:
            with interrupted_by(passage.until):
                await self._fed(passage)
        except Interrupted:
            return
        except Exception as bug:  # noqa: BLE001 - the plugin's iterable may raise anything
            self._broke(where(bug))
            passage.finish(Ending.by(PluginFailed(where(bug))))
        else:
            passage.end(None)
            await self._settled(passage)

    async def _fed(self, passage: Passage) -> None:
        if self._answer.events is None:
            passage.feed(self._answer.body)
            return
        async with aclosing(_awaited(self._answer.events)) as events:
            async for event in events:
                passage.feed(_written(event))
                await self._flowing.wait()

    async def _settled(self, passage: Passage) -> None:
        """What the passage could not take for an answer ends the stream, as it would an upstream's last try."""
        fault = await passage.first
        if fault is not None:
            passage.finish(Ending.by(fault))


async def _awaited(events: Iterable[object] | AsyncIterable[object]) -> AsyncGenerator[object, None]:
    """All of them; a generator is closed at the end, whatever ends it."""
    if isinstance(events, AsyncIterable):
        async with aclosing(events) if isinstance(events, AsyncGenerator) else nullcontext():
            async for event in events:
                yield event
        return
    with closing(events) if isinstance(events, Generator) else nullcontext():
        for event in events:
            yield event
            await asyncio.sleep(0)  # noqa: TID251 - the other streams' turn


def _written(event: object) -> bytes:
    """A line end of its own only if the plugin asks for it: what is around it ends its lines with LF."""
    if isinstance(event, ServerSentEvent):
        return event_bytes(event.sep or "\n", event.data, event.event, event.id, event.retry, event.comment)
    return ensure_bytes(event, "\n")
