"""The table of raw requests, run against the whole gateway: what reaches the upstream, and what does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from stage import Stage

from streamgate import demo
from tests.wire.raw_requests import BODY, LENGTH, ROWS, Row, head, send, yes

pytestmark = pytest.mark.anyio

BLOCK = 20  # rows to a test: a gateway serves them all, and a failure names its row
BLOCKS = [ROWS[at : at + BLOCK] for at in range(0, len(ROWS), BLOCK)]
NORMAL = yes("normal", head(LENGTH) + BODY)

Address = tuple[str, int]


@pytest.fixture
async def upstream(anyio_backend: Any) -> AsyncIterator[demo.DemoUpstream]:
    async with await demo.start(play="demo-n2-t0") as started:
        yield started


def test_the_table_is_large() -> None:
    """At least 170 requests."""
    assert len(ROWS) >= 170


async def run(row: Row, address: Address, upstream: demo.DemoUpstream) -> None:
    """A request is refused and its connection closed, or exactly its body goes up, once."""
    upstream.received.clear()
    answer, closed = await send(address, row)
    bodies = [request.body for request in upstream.received]
    if row.accepted is None:
        assert answer.status in row.statuses, (row.name, answer)
        assert 400 <= answer.status <= 501 or (answer.status == 0 and 0 in row.statuses), row.name
        assert answer.status == 404 or closed, row.name
        assert answer.status == 0 or answer.body.startswith(b'{"error":{"message":'), (row.name, answer)
        assert bodies == [], row.name
    elif row.path_only:
        assert 200 <= answer.status < 500, (row.name, answer)
        assert bodies in ([], [row.accepted]), row.name
    else:
        assert answer.status == 200, (row.name, answer)
        assert bodies == [row.accepted], row.name
    assert not upstream.unfinished, row.name


@pytest.mark.parametrize("block", range(len(BLOCKS)))
async def test_rows(stage: Stage, upstream: demo.DemoUpstream, block: int, until: Any) -> None:
    """Each row gets what the table says, nothing of it is left on the way, and the next request is served right."""
    server = await stage.gateway(upstream.url, retry={"attempts": 0})
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    for row in BLOCKS[block]:
        await run(row, (host, int(port)), upstream)
        await run(NORMAL, (host, int(port)), upstream)
    await until(lambda: server.observer.statistics()["live"] == server.census.connections == 0)
    counts = server.observer.statistics()
    assert counts["started"] == counts["ended"] == upstream.requests
    books = server.gateway.upstreams.statistics()["up0"]
    assert books.active == 0 and books.opened == books.closed + books.pooled + books.settling
