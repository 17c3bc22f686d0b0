"""The rows of a database as events, read with SQLAlchemy's async session while they are sent.

    pip install 'sqlalchemy[asyncio]' aiosqlite
    python examples/sqlalchemy_rows.py      # makes readings.db here, with 1000 rows
    curl -N http://127.0.0.1:8000/rows      # leave with Ctrl-C whenever you like ...
    curl http://127.0.0.1:8000/pool         # ... and no connection is in use

The generator opens the session itself. One that comes from a dependency lives as long as the request's function, not as
long as the stream: FastAPI 0.106 to 0.117 closed it before the first row was sent. Opened in here it is closed when the
stream ends, whatever ends it, and its connection goes back to the pool. Until then the stream holds that connection:
`pool_size + max_overflow` is also how many streams can run at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator

import anyio
import uvicorn
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from streamgate.sse import EventSourceResponse, JSONServerSentEvent, ServerSentEvent

INTERVAL = float(os.environ.get("INTERVAL", "0.5"))  # seconds between two rows
BATCH = 100  # rows in memory per stream; the rest waits in the database

engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///readings.db"))
open_session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Reading(Base):
    __tablename__ = "readings"

    id: Mapped[int] = mapped_column(primary_key=True)
    celsius: Mapped[float]


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with open_session.begin() as session:
        if not await session.scalar(select(func.count()).select_from(Reading)):
            session.add_all(Reading(celsius=20 + number % 10 / 10) for number in range(1000))
    yield
    await engine.dispose()


async def readings() -> AsyncIterator[ServerSentEvent]:
    query = select(Reading).order_by(Reading.id).execution_options(yield_per=BATCH)
    async with open_session() as session:
        async for reading in await session.stream_scalars(query):
            yield JSONServerSentEvent({"celsius": reading.celsius}, event="reading", id=reading.id)
            await anyio.sleep(INTERVAL)
    yield ServerSentEvent("", event="end")  # a browser shall close its EventSource here, or it would begin anew


async def rows(request: Request) -> EventSourceResponse:
    return EventSourceResponse(readings())


async def pool(request: Request) -> JSONResponse:
    return JSONResponse({"in_use": engine.pool.checkedout()})


app = Starlette(routes=[Route("/rows", rows), Route("/pool", pool)], lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
