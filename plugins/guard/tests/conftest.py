"""What the tests of these plugins share: a classifier on a real socket, which answers as it is told."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def plain(question: dict[str, Any]) -> tuple[int, Any]:
    """Flags what has "bad" in it."""
    return 200, {"flagged": "bad" in question["text"]}


class Server:
    """`asked` are the questions so far, `heads` their requests' heads; `answer` gives status and JSON."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.answer: Callable[[dict[str, Any]], Awaitable[tuple[int, Any]]] = plain
        self.url = ""
        self.arrived = asyncio.Event()  # a question
        self.left = asyncio.Event()  # a client, before it was answered
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def texts(self) -> list[str]:
        return [question["text"] for question in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
                assert length is not None
                await self._answered(json.loads(await reader.readexactly(int(length[1]))), head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _answered(
        self, question: dict[str, Any], head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.asked.append(question)
        self.heads.append(head)
        self.arrived.set()
        answering = asyncio.ensure_future(self.answer(question))  # noqa: TID251 - awaited in the next lines
        leaving = asyncio.ensure_future(reader.read(1))  # noqa: TID251
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            answering.cancel()
            self.left.set()
            raise ConnectionResetError
        leaving.cancel()
        await asyncio.wait({leaving})
        status, said = answering.result()
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


@pytest.fixture
async def classifier(anyio_backend: str) -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listening:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/check"
        yield server
        await server.close()
