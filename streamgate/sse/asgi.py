"""The outlet for any ASGI server: two small tasks, one that sends and one that listens for the disconnect.

ASGI's `send` waits while the client does not drain, so what is pushed meanwhile is kept here, and the source is paused
above `HIGH_WATER`. The sending task is the only caller of `send`, from the head to the final message.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from starlette.types import Message, Receive, Send

from streamgate.sse.clocks import NEVER, clocks_of
from streamgate.sse.disconnect import listen
from streamgate.sse.outlet import HIGH_WATER, Headers, Lost, OutletSettings, TimedOutlet


class AsgiOutlet(TimedOutlet):
    """See `Outlet`. Entered with `async with`; both tasks end with it."""

    __slots__ = (
        "_done",
        "_head_only",
        "_last",
        "_messages",
        "_receive",
        "_send",
        "_sending_at",
        "_size",
        "_tasks",
        "_wake",
    )

    def __init__(self, settings: OutletSettings, receive: Receive, send: Send, *, head_only: bool = False) -> None:
        self._receive = receive
        self._send = send
        self._head_only = head_only
        self._messages: list[Message] = []  # head and, at the end, the last body; frames wait in between as bodies
        self._size = 0  # bytes waiting
        self._last = False  # the final message is among them
        self._sending_at = 0.0  # since when one `send` has been waiting
        self._wake: asyncio.Future[None] | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        super().__init__(settings, clocks_of(asyncio.get_running_loop()))

    async def __aenter__(self) -> Self:
        self._own(self._pump())
        self._own(listen(self._receive, lambda: self.gone(Lost.CLOSED)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        for task in self._tasks:
            task.cancel()
        failures = await asyncio.gather(*self._tasks, return_exceptions=True)
        for failure in failures:
            if isinstance(failure, Exception) and kind is None:
                raise failure

    @property
    def buffered(self) -> int:
        return self._size  # what the server behind `send` holds cannot be seen from here

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    def start(self, status: int, headers: Headers) -> None:
        if self.started:
            return
        self.began()
        self._put({"type": "http.response.start", "status": status, "headers": list(headers)})

    def write(self, frame: bytes, now: float) -> None:
        self.wrote_at = now
        if self._head_only or self.ending or not self.started or self.lost is not None:
            return
        self._size += len(frame)
        self._put({"type": "http.response.body", "body": frame, "more_body": True})
        if self._size > HIGH_WATER:
            self.full()

    def abort(self) -> None:
        # Plain ASGI has no way to the socket: letting the sending task go makes the server close it.
        self._size, self._messages = 0, []
        if self._tasks:
            self._tasks[0].cancel()

    async def finish(self, farewell: bytes | None, *, whole: bool) -> None:
        if self.ending or not self.started:
            return
        if farewell:
            self.write(farewell, time.monotonic())
        self.ending = True
        if whole:
            self._put({"type": "http.response.body", "body": b"", "more_body": False})
        self._last = True
        self._rouse()
        if self.lost is None:
            await self._done

    def gone(self, lost: Lost) -> None:
        if not self._done.done():  # else all was sent: servers say http.disconnect after that, too
            super().gone(lost)
            self._done.set_result(None)

    def look(self, now: float) -> float:
        if self._sending_at and self.settings.send and now - self._sending_at >= self.settings.send:
            self.gone(Lost.SLOW)
            self.abort()
            return NEVER
        return super().look(now)

    def _due(self) -> float:
        due = super()._due()
        if self._sending_at and self.settings.send:
            return min(due, self._sending_at + self.settings.send)
        # A `send` may start to wait at any time without telling: looking each second at the most is cheaper than a
        # deadline per send, and makes the send clock at most one second late.
        return min(due, time.monotonic() + min(self.settings.send / 8, 1.0)) if self.settings.send else due

    def _put(self, message: Message) -> None:
        self._messages.append(message)
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _pump(self) -> None:
        try:
            while not (self._last and not self._messages):
                if not self._messages:
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
                    continue
                batch, self._messages, self._size = self._messages, [], 0
                for message in _joined(batch):
                    self._sending_at = time.monotonic()
                    await self._send(message)
                    self._sending_at = 0.0
                if self._size <= HIGH_WATER // 2:
                    self.drained()
        except OSError:
            self.gone(Lost.CLOSED)  # an ASGI 2.4 server says so when the client is gone
        except Exception:
            self.gone(Lost.CLOSED)  # a server that refused a message takes no more; `__aexit__` says why
            raise
        finally:
            if not self._done.done():
                self._done.set_result(None)


def _joined(messages: list[Message]) -> list[Message]:
    """Bodies that waited together leave together: one message, one chunk, one system call."""
    bodies = [message["body"] for message in messages if message["type"] == "http.response.body"]
    if len(bodies) < 2:
        return messages
    # Only a head can stand before them, and only the last one can be the last of all.
    return [*messages[: -len(bodies)], {**messages[-1], "body": b"".join(bodies)}]
