"""PostgreSQL's NOTIFY as events: one listening connection per process, however many clients there are.

    pip install asyncpg
    export DSN=postgresql://user:password@127.0.0.1/database
    python examples/postgres_notify.py
    curl -N http://127.0.0.1:8000/events
    curl --data 'hello' http://127.0.0.1:8000/notify     # or in psql: NOTIFY news, 'hello';

What is notified while nobody listens is lost: PostgreSQL keeps nothing. So clients get the event `gap` when a lost
connection is there again, and one that needs every message reads its table then. For the same reason there are no ids.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable

import anyio
import asyncpg
import uvicorn
from anyio.abc import TaskStatus
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streamgate.sse import Broadcast, EventSourceResponse, ServerSentEvent

DSN = os.environ.get("DSN", "postgresql://postgres@127.0.0.1/postgres")
CHANNEL = "news"
LONGEST = 7999  # bytes; PostgreSQL takes no more in one notification
DEADLINE = 10.0  # seconds for whatever the database is asked
RETRY = float(os.environ.get("RETRY", "1"))  # seconds before a lost connection is opened again
CHECK = 30.0  # seconds; a peer that vanished says nothing, so a silent connection is asked this often
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

logger = logging.getLogger("uvicorn.error")
news = Broadcast()


def forward(connection: asyncpg.Connection, pid: int, channel: str, payload: str) -> None:
    news.publish(ServerSentEvent(payload))


def tell_of_gap() -> None:
    news.publish(ServerSentEvent("", event="gap"))


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(DSN, timeout=DEADLINE)
    try:
        await connection.add_listener(CHANNEL, forward)
        yield connection
    finally:
        connection.terminate()


async def watch(connection: asyncpg.Connection) -> None:
    """Raises one of AWAY as soon as the connection is over; returns never."""
    over = anyio.Event()
    connection.add_termination_listener(lambda _: over.set())
    while True:
        with anyio.move_on_after(CHECK):
            await over.wait()
        await connection.execute("SELECT 1", timeout=DEADLINE)


async def keep_listening(*, task_status: TaskStatus[None]) -> None:
    announce: Callable[[], None] = task_status.started
    while True:
        try:
            async with listening() as connection:
                announce()
                announce = tell_of_gap
                await watch(connection)
        except AWAY as error:
            logger.warning("PostgreSQL is away: %s", error)
            await anyio.sleep(RETRY)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, asyncpg.Pool]]:
    """Nobody is served before it listens, so nobody who is served misses anything."""
    pool = asyncpg.create_pool(DSN, min_size=0, timeout=DEADLINE)
    async with pool, anyio.create_task_group() as tasks:
        await tasks.start(keep_listening)
        yield {"pool": pool}
        tasks.cancel_scope.cancel()


async def events(request: Request) -> EventSourceResponse:
    return EventSourceResponse(news.subscribe())


async def notify(request: Request) -> Response:
    payload = await request.body()
    if len(payload) > LONGEST or b"\0" in payload:
        raise HTTPException(422, f"at most {LONGEST} bytes of text")
    try:
        await request.state.pool.execute("SELECT pg_notify($1, $2)", CHANNEL, payload.decode(), timeout=DEADLINE)
    except UnicodeDecodeError as error:
        raise HTTPException(422, "not UTF-8") from error
    except AWAY as error:
        raise HTTPException(503, "the database is away", {"retry-after": "1"}) from error
    return Response(status_code=204)


app = Starlette(routes=[Route("/events", events), Route("/notify", notify, methods=["POST"])], lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
