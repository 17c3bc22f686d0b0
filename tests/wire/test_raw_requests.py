"""The table of raw requests, run against the guard in a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
import uvloop

from tests.wire.edge_server import Recorder, serve
from tests.wire.raw_requests import BODY, LENGTH, ROWS, Row, head, send, yes

NORMAL = yes("normal", head(LENGTH) + BODY)


class Background:
    """A server in a thread with a loop of its own, for all rows: each row then shows that the last one left no mark."""

    def __init__(self) -> None:
        self.app = Recorder()
        self.address = ("", 0)
        self.ready = Event()
        self.stop = asyncio.Event()
        self.loop = uvloop.new_event_loop()

    def run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with serve(self.app) as edge:
            self.address = edge.address
            self.ready.set()
            await self.stop.wait()


@contextmanager
def background() -> Iterator[Background]:
    server = Background()
    thread = Thread(target=server.run)
    thread.start()
    try:
        assert server.ready.wait(5)
        yield server
    finally:
        server.loop.call_soon_threadsafe(server.stop.set)
        thread.join(10)


@pytest.fixture(scope="module")
def server() -> Iterator[Background]:
    with background() as running:
        yield running


def test_the_table_is_large_and_its_names_are_unique() -> None:
    """The table holds at least 170 requests, each under a name of its own."""
    assert len(ROWS) >= 170
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(server: Background, row: Row) -> None:
    """A request is refused and the connection closed, or it arrives once and unchanged; the next is served right."""
    server.app.requests.clear()
    answer, closed = asyncio.run(send(server.address, row))
    seen = [body for _, _, _, body in server.app.requests]
    if row.accepted is None:
        assert answer.status in row.statuses, answer
        assert answer.status == 404 or closed
        assert answer.body.startswith(b"{")
        assert seen == []
    else:
        assert answer.status == 200, answer
        assert seen == [row.accepted]
    after, _ = asyncio.run(send(server.address, NORMAL))
    assert (after.status, after.body) == (200, BODY)
