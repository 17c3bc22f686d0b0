"""When the events of a cassette are played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from streamgate.hooks import ServerSentEvent
from streamgate_record_replay.cassette import Cassette

Wait = Callable[[float], Awaitable[None]]


async def played(
    cassette: Cassette,
    speed: float,
    now: Callable[[], float],
    wait: Wait = asyncio.sleep,  # noqa: TID251 - to keep the recorded pace is what this is for
) -> AsyncIterator[ServerSentEvent]:
    """Each event at its time after now, divided by `speed`; late ones at once, so that delays do not add up."""
    started = now()
    for recorded in cassette.events:
        early = started + recorded.at / speed - now()
        if early > 0:
            await wait(early)
        yield recorded.played()
