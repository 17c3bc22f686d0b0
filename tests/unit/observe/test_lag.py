"""The ticker that knows how late the event loop is."""

from __future__ import annotations

import asyncio
import time

import pytest

from streamgate.observe import lag
from streamgate.observe.lag import LagTicker


@pytest.mark.anyio
async def test_a_loop_that_was_held_is_late_by_so_long():
    """The tick that should have come meanwhile says by how much it was missed."""
    heard: asyncio.Queue[float] = asyncio.Queue()
    ticker = LagTicker(heard.put_nowait, period=0.01)
    ticker.start()
    ticker.start()
    held = time.monotonic() + 0.06
    while time.monotonic() < held:  # the loop can do nothing else
        pass
    assert 0.045 < await heard.get() < 1.0
    assert await heard.get() >= 0.0
    ticker.stop()
    ticker.stop()


@pytest.mark.anyio
async def test_it_ends_when_it_is_stopped():
    """No timer is left behind, and it can be started again."""
    heard: asyncio.Queue[float] = asyncio.Queue()
    ticker = LagTicker(heard.put_nowait, period=0.001)
    ticker.start()
    await heard.get()
    ticker.stop()
    while not heard.empty():
        heard.get_nowait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await heard.get()
    assert lag.PERIOD == 0.25
