"""The only reader of `http.disconnect`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamgate.sse.disconnect import listen

pytestmark = pytest.mark.anyio

REQUEST = {"type": "http.request", "body": b"unread", "more_body": False}
GONE = {"type": "http.disconnect"}


async def test_other_messages_are_dropped() -> None:
    """The rest of an unread body says nothing about the client; the disconnect says it once."""
    messages = [REQUEST, REQUEST, GONE, GONE]
    calls: list[int] = []

    async def receive() -> Any:
        return messages.pop(0)

    await listen(receive, lambda: calls.append(len(messages)))
    assert calls == [1], "called once, and nothing was read after it"


async def test_a_server_that_always_answers_does_not_get_the_loop() -> None:
    """Some answer `receive` at once for ever: everything else still gets its turn."""
    others = 0

    async def receive() -> Any:
        return REQUEST if others < 5 else GONE

    def other() -> None:
        nonlocal others
        others += 1
        asyncio.get_running_loop().call_soon(other) if others < 5 else None

    asyncio.get_running_loop().call_soon(other)
    told = asyncio.Event()
    await asyncio.wait_for(listen(receive, told.set), 5)
    assert told.is_set()


async def test_it_waits_as_long_as_the_client_stays() -> None:
    """Nothing is said before the disconnect, and a listener that is let go says nothing at all."""
    told = asyncio.Event()
    listening = asyncio.Event()

    async def receive() -> Any:
        listening.set()
        return await asyncio.get_running_loop().create_future()

    task = asyncio.get_running_loop().create_task(listen(receive, told.set))
    await listening.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not told.is_set()


async def test_what_receive_raises_comes_out() -> None:
    """It is the server's failure, and nobody is told that the client left."""
    told = asyncio.Event()

    async def receive() -> Any:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await listen(receive, told.set)
    assert not told.is_set()
