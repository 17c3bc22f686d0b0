"""The server's side of one ASGI request, by hand: a test says what `receive` answers and when `send` returns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.types import ASGIApp, Message

PATIENCE = 5.0  # s that anything may take before the test fails


class Client:
    """One request and what became of its answer."""

    def __init__(self, **scope: Any) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "headers": [],
        } | scope
        self.offered: list[Message] = []  # sends that were begun
        self.messages: list[Message] = []  # sends that were taken
        self.overlapped = 0  # sends begun while another was in flight
        self.receives = 0
        self.gone = anyio.Event()
        self.broken: Callable[[], Exception] | None = None  # makes what the next send raises
        self._in_flight = 0
        self._flow: anyio.Event | None = None  # None: sends do not wait, and give nobody a turn
        self._news = anyio.Event()

    # ---- what the application is given
    async def receive(self) -> Message:
        self.receives += 1
        if self.receives == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.offered.append(message)
        self.overlapped += self._in_flight > 0
        self._in_flight += 1
        self._tell()
        try:
            if self.broken is not None:
                raise self.broken()
            if self._flow is not None:
                await self._flow.wait()
            self.messages.append(message)
            self._tell()
        finally:
            self._in_flight -= 1

    # ---- what the test says
    def leave(self) -> None:
        self.gone.set()

    def hold(self) -> None:
        """Read nothing from now on: a send waits."""
        self._flow = self._flow or anyio.Event()

    def read(self) -> None:
        """Read on."""
        if self._flow is not None:
            self._flow.set()
        self._flow = None

    async def until(self, told: Callable[[Client], object]) -> None:
        """Wait until a send made it true."""
        with anyio.fail_after(PATIENCE):
            while not told(self):
                await self._news.wait()

    async def offers(self, piece: bytes) -> None:
        """Wait until a send of a body with this in it has begun."""
        await self.until(lambda _: any(piece in message.get("body", b"") for message in self.offered))

    async def offers_the_end(self) -> None:
        """Wait until the send of the final message has begun."""
        await self.until(lambda _: any(message.get("more_body") is False for message in self.offered))

    # ---- what it got
    @property
    def started(self) -> bool:
        return bool(self.messages)

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def whole(self) -> bool:
        """The final message was taken; a body without it is cut, and the client can tell."""
        last = self.messages[-1] if self.messages else {"type": "nothing"}
        return last["type"].endswith(".body") and not last.get("more_body", False)

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()


class Running:
    """A response under way."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.raised: BaseException | None = None
        self._over = anyio.Event()

    async def over(self) -> None:
        with anyio.fail_after(PATIENCE):
            await self._over.wait()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    async def run(self, response: ASGIApp, client: Client) -> None:
        try:
            with self.scope:
                self.raised = await outcome(response, client)
        finally:
            self._over.set()


async def outcome(response: ASGIApp, client: Client) -> BaseException | None:
    """What the response raised. The error's own traceback must not lead back to it: some tests count references."""
    try:
        await response(client.scope, client.receive, client.send)
    except Exception as error:  # noqa: BLE001 - it is what the test looks at
        return error
    return None


@asynccontextmanager
async def running(response: ASGIApp, client: Client) -> AsyncIterator[Running]:
    """Run the response while the block goes on, and until it ends after that."""
    run = Running()
    async with anyio.create_task_group() as group:
        group.start_soon(run.run, response, client)
        try:
            yield run
            await run.over()
        finally:
            group.cancel_scope.cancel()


async def served(response: ASGIApp, client: Client) -> BaseException | None:
    """Run the response to its end; what it raised."""
    with anyio.fail_after(PATIENCE):
        return await outcome(response, client)


async def quiet() -> None:
    """Wait until every task waits for something that only the test will do."""
    await anyio.wait_all_tasks_blocked()
