"""The one Redis connection: a small pool, a deadline for every call, scripts, one subscription per channel.

A connection whose call was cancelled, timed out or failed is never used again: its reply would be the next caller's
(CVE-2023-28858). After a failure nobody is kept waiting: calls fail at once until a probe has succeeded.

redis (the extra `redis`) is imported when a store is made. No error, repr or `trouble` holds the address or password.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha1
from types import TracebackType
from typing import Any, Protocol, Self

from streamgate.errors import StreamgateError

CONNECTIONS = 16  # each carries one call at a time; a script takes some 50 us, so more would only wait inside Redis
PROBE_EVERY = 0.5  # seconds between two probes of a store that is away
PROBE_TIMEOUT = 1.0  # seconds for one, the connect included: nobody waits for it
QUIET = 10.0  # seconds without a message after which a subscription asks whether anybody is there


class Unanswered(StreamgateError):
    """The store is away, too slow, or would not: what was asked may have happened, or may yet."""

    def __init__(self, why: str, *, late: bool = False) -> None:
        super().__init__(why)
        self.late = late  # it did not answer in time


class Connection(Protocol):
    """What is used of redis-py's: one socket, one call at a time."""

    async def connect(self) -> None: ...
    async def send_command(self, *command: Any) -> None: ...
    async def read_response(self, **how: Any) -> Any: ...
    async def disconnect(self, nowait: bool = ...) -> None: ...


class Script:
    """A Lua script, known to Redis by its digest."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


class Tasks:
    """The owner of a few tasks that run as long as it does."""

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_report)
        self._running.append(task)

    async def close(self) -> None:
        """Cancel them and wait until they have ended."""
        running, self._running = self._running, []
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


def _report(task: asyncio.Task[None]) -> None:
    """Such a task ends only when it is told to: anything else is a bug, and must not stay unseen."""
    if not task.cancelled() and (bug := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": "a task ended by itself", "exception": bug, "task": task})


class Store:
    """One Redis server, or one Redis Cluster whose keys all share a hash tag.

    `url` is redis:// or rediss://, as redis-py reads it; ValueError when it is not. `timeout` in seconds bounds every
    call, the connect and the wait for a free connection included. Used as `async with`, or by `start` and `close`.
    """

    def __init__(self, url: str, *, timeout: float = 0.25, connections: int = CONNECTIONS) -> None:
        self.timeout = timeout
        self.reconnects = 0  # times it came back
        self.trouble = "not started"  # why it is away, in words that are safe to log; "" when it is not
        self._open, self._errors = _opened(url)
        self._moved_to: dict[str, Any] = {}
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(connections)
        self._up = asyncio.Event()
        self._doubt = asyncio.Event()
        self._never = asyncio.Event()
        self._back: list[Callable[[], None]] = []
        self._tasks = Tasks()

    @property
    def up(self) -> bool:
        """False: every call fails at once, until a probe succeeds."""
        return self._up.is_set()

    def on_back(self, call: Callable[[], None]) -> None:
        """`call` is called whenever the store is there again."""
        self._back.append(call)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Look once whether it is there, and go on in either case: a gateway must start without its store."""
        if await self._answers():
            self._enter()
        else:
            self._doubt.set()
        self._tasks.start(self._watch())

    async def close(self) -> None:
        self._up.clear()
        self.trouble = "closed"
        await self._tasks.close()
        await self._drop()

    async def run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[str | bytes | int]) -> Any:
        """What the script answers, as redis-py gives it (bytes, int, list, None). Raises `Unanswered`."""
        if not self.up:
            raise Unanswered(self.trouble)
        try:
            async with asyncio.timeout(self.timeout):
                return await self._evaluated(script, keys, arguments)
        except TimeoutError:
            self._lost("it did not answer in time")
            raise Unanswered(self.trouble, late=True) from None
        except (self._errors.ReadOnlyError, self._errors.ClusterDownError, self._errors.MasterDownError) as elsewhere:
            self._lost(_kind_of(elsewhere))  # a new connection may lead to the new master
            raise Unanswered(self.trouble) from None
        except self._errors.ResponseError as refused:  # it is there, and quick: no reason to stop asking
            raise Unanswered(_kind_of(refused)) from None
        except (self._errors.RedisError, OSError) as gone:
            self._lost(_kind_of(gone))
            raise Unanswered(self.trouble) from None

    def subscribe(self, channel: bytes, heard: Callable[[bytes], None]) -> None:
        """Call `heard` with every message of a channel, and with b"" whenever some may have been missed."""
        self._tasks.start(self._listen(channel, heard))

    async def _evaluated(self, script: Script, keys: Sequence[bytes], arguments: Sequence[str | bytes | int]) -> Any:
        rest = (len(keys), *keys, *arguments)
        async with self._free:
            try:
                return await self._asked("EVALSHA", script.sha, *rest)
            except self._errors.NoScriptError:  # a new server, or SCRIPT FLUSH; EVAL makes it known
                return await self._asked("EVAL", script.text, *rest)
            except self._errors.MovedError as moved:  # the cluster node that has our hash tag's slot now
                await self._drop()
                self._moved_to = {"port": int(moved.port)} | ({"host": moved.host} if moved.host else {})
                return await self._asked("EVAL", script.text, *rest)

    async def _asked(self, *command: Any) -> Any:
        while self._idle:
            try:
                return await self._exchange(self._idle.pop(), command)
            except self._errors.ConnectionError:
                pass  # closed by the server while it was idle: that says nothing of the server
        return await self._exchange(self._connection(), command)

    async def _exchange(self, connection: Connection, command: Sequence[Any]) -> Any:
        try:
            await connection.connect()  # nothing, when it is
            await connection.send_command(*command)
            reply = await connection.read_response()
        except self._errors.ResponseError:
            self._idle.append(connection)  # an error, but a whole reply
            raise
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._idle.append(connection)
        return reply

    def _connection(self) -> Connection:
        return self._open(**self._moved_to)

    async def _drop(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    def _lost(self, why: str) -> None:
        self.trouble = why
        self._moved_to = {}
        self._up.clear()
        self._doubt.set()

    def _enter(self) -> None:
        self.trouble = ""
        self._doubt.clear()
        self._up.set()
        for call in self._back:
            call()

    async def _watch(self) -> None:
        """After a failure: probe at once, then every `PROBE_EVERY` seconds."""
        while True:
            await self._doubt.wait()
            await self._drop()
            if await self._answers():
                self.reconnects += 1
                self._enter()
            else:
                await self._pause()

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._asked("PING")
        except TimeoutError:
            self.trouble = "it did not answer in time"
        except (self._errors.RedisError, OSError) as exc:
            self.trouble = _kind_of(exc)
        else:
            return True
        return False

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PROBE_EVERY):
                await self._never.wait()

    async def _listen(self, channel: bytes, heard: Callable[[bytes], None]) -> None:
        while True:
            await self._up.wait()
            with suppress(self._errors.RedisError, OSError, TimeoutError):
                await self._subscribed(channel, heard)
            await self._pause()

    async def _subscribed(self, channel: bytes, heard: Callable[[bytes], None]) -> None:
        connection = self._connection()
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await connection.connect()
                await connection.send_command("SUBSCRIBE", channel)
                await connection.read_response()
            heard(b"")
            while True:
                kind, *_, message = await self._message(connection)
                if kind == b"message":
                    heard(message)
        finally:
            await connection.disconnect(nowait=True)

    async def _message(self, connection: Connection) -> Any:
        """The next one; asks after `QUIET` seconds of silence, and gives up after as much again."""
        message = await connection.read_response(timeout=QUIET, disconnect_on_error=False)
        if message is None:
            await connection.send_command("PING")
            message = await connection.read_response(timeout=QUIET, disconnect_on_error=False)
        if message is None:
            raise TimeoutError
        return message


def _opened(url: str) -> tuple[Callable[..., Connection], Any]:
    """What makes a connection, and the module of redis-py's errors."""
    try:
        from redis import exceptions  # noqa: PLC0415 - the extra, wanted only by who has a store
        from redis.asyncio import connection  # noqa: PLC0415
    except ImportError as absent:
        raise RuntimeError("A shared store needs the extra `redis`: pip install 'streamgate[redis]'") from absent
    kinds = {"redis": connection.Connection, "rediss": connection.SSLConnection}
    try:
        kind = kinds[url.partition("://")[0]]
        options: dict[str, Any] = dict(connection.parse_url(url))
        options.pop("connection_class", None)
        # Deadlines are the store's; RESP2, so that a message can come only to who subscribed.
        options |= {"socket_timeout": None, "socket_connect_timeout": None, "protocol": 2, "client_name": "streamgate"}
        made: Callable[..., Any] = partial(kind, **options)
        made()
    except (LookupError, ValueError, TypeError, exceptions.RedisError):  # its text may hold a part of the password
        raise ValueError("expected redis://[user:password@]host[:port][/database], or rediss:// for TLS") from None
    return made, exceptions


def _kind_of(exc: BaseException) -> str:
    """What went wrong, in a word: the text of an error may hold addresses, keys or more."""
    return type(exc).__name__
