"""The example sqlalchemy_rows: a real SQLite file, and what becomes of its connections."""

from __future__ import annotations

import json
from contextlib import aclosing, asynccontextmanager

import httpx
import pytest
from httpx_sse import aconnect_sse, connect_sse

PAUSE = "20"  # seconds between two rows: more than a test takes, so that a stream waits with its session open


@pytest.fixture
def anyio_backend():
    return "asyncio"  # the event loop that matters is the example's


@pytest.fixture
def database(tmp_path):
    return f"sqlite+aiosqlite:///{tmp_path}/readings.db"


def in_use(url):
    return httpx.get(f"{url}/pool").json()["in_use"]


@asynccontextmanager
async def stream_of(client, url):
    async with aconnect_sse(client, "GET", f"{url}/rows") as source, aclosing(source.aiter_sse()) as events:
        yield events


def test_all_rows_come_in_order(running, database):
    """Each row is one event with its primary key as id; `end` is the last, and the connection is back by then."""
    with running("sqlalchemy_rows", DATABASE_URL=database, INTERVAL="0") as url:
        with httpx.Client() as client, connect_sse(client, "GET", f"{url}/rows") as source:
            *rows, end = list(source.iter_sse())
        assert [int(row.id) for row in rows] == list(range(1, 1001))
        assert json.loads(rows[3].data) == {"celsius": 20.3}
        assert {row.event for row in rows} == {"reading"}
        assert end.event == "end"
        assert in_use(url) == 0


@pytest.mark.anyio
async def test_a_client_that_hangs_up_gives_its_connection_back(running, database, until):
    """Streams hold one connection each; nobody who left does."""
    with running("sqlalchemy_rows", DATABASE_URL=database, INTERVAL=PAUSE) as url:
        for _ in range(3):
            async with httpx.AsyncClient() as client, stream_of(client, url) as one:
                assert (await anext(one)).id == "1"
                async with stream_of(client, url) as other:
                    assert (await anext(other)).id == "1"
                    assert in_use(url) == 2
                await until(lambda: in_use(url) == 1)
            await until(lambda: in_use(url) == 0)


def test_the_rows_are_still_there_after_a_restart(running, database):
    """The table is filled once, and a stream that runs does not keep the server from ending."""
    for _ in range(2):
        with running("sqlalchemy_rows", DATABASE_URL=database, INTERVAL=PAUSE) as url, httpx.Client() as client:
            response = client.send(client.build_request("GET", f"{url}/rows"), stream=True)
            assert next(response.iter_lines()) == "id: 1"
    assert response.status_code == 200
