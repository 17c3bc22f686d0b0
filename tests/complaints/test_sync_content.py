"""Synchronous generators: closed in time, and nobody waits for their threads."""

# Each complaint, where it was made, and the tests that hold it.
# a sync generator is not closed (litestar-org/litestar#4394)
#     sync_generators_are_not_closed, blocked_next_holds_the_teardown, blocked_finally_holds

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
import sse_starlette
from complaints.client import PATIENCE, Client, running

from streamgate.sse import EventSourceResponse, StreamGroup

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unwatched")]

OURS, THEIRS = EventSourceResponse, sse_starlette.EventSourceResponse


class Rows:
    """A synchronous generator with a `finally`."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.row = threading.Event()
        self.closed = threading.Event()

    def read(self) -> Iterator[str]:
        try:
            yield "one"
            self.inside.set()
            self.row.wait(PATIENCE)
            yield "two"
        finally:
            self.closed.set()


@pytest.mark.parametrize(("response", "closed"), [(OURS, True), (THEIRS, False)])
async def test_sync_generators_are_not_closed_on_disconnect(response: type[Any], closed: bool) -> None:
    """litestar-org/litestar#4394: the `finally` of a sync generator has run when the response returns."""
    client, rows = Client(), Rows()
    content = rows.read()  # while somebody holds it, collection cannot close it
    async with running(response(content), client) as run:
        await client.until(lambda _: client.started)
        client.hold()
        await client.offers(b"one")
        client.leave()
        await run.over()
    assert rows.closed.is_set() is closed
    content.close()


@pytest.mark.parametrize("why", ["disconnect", "shutdown", "cancellation"])
async def test_blocked_next_holds_the_teardown(why: str) -> None:
    """litestar-org/litestar#4394: nobody waits for a thread in `next()`; it closes the generator on its way out."""
    client, rows, group = Client(), Rows(), StreamGroup()
    async with running(EventSourceResponse(rows.read(), drain=group), client) as run:
        assert await anyio.to_thread.run_sync(rows.inside.wait, PATIENCE)
        {"disconnect": client.leave, "shutdown": group.end, "cancellation": run.scope.cancel}[why]()
        await run.over()
        assert not rows.closed.is_set()
        rows.row.set()
    assert await anyio.to_thread.run_sync(rows.closed.wait, PATIENCE)


async def test_blocked_finally_holds_the_teardown() -> None:
    """litestar-org/litestar#4394: nor for a thread in the generator's `finally`, beyond cleanup_timeout."""
    client, inside, closed = Client(), threading.Event(), threading.Event()

    def rows() -> Iterator[str]:
        try:
            yield "one"
        finally:
            inside.set()
            closed.wait(PATIENCE / 2)

    async with running(EventSourceResponse(rows(), cleanup_timeout=0.02), client) as run:
        await client.until(lambda _: client.started)
        client.hold()
        await client.offers(b"one")
        client.leave()
        await anyio.to_thread.run_sync(inside.wait, PATIENCE)
        with anyio.move_on_after(PATIENCE / 4):
            await run.over()
        over = run.is_over
        closed.set()
    assert over
