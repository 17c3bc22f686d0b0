"""How streams learn of the server's shutdown when nobody hands a drain in.

Every event loop has one `LoopStreams`, the streams that run on it. It is told by `uvicorn.Server.shutdown`, which is
wrapped at class level: uvicorn looks it up at call time and on the server's own loop, so it does not matter when this
package was imported, in which thread the server runs, who asked it to exit, or how many servers there are. No signal is
touched, nothing is polled, and nothing stays set when the server is gone. uvicorn itself is never imported here: when
it is not loaded, it does not serve us.

`AppStatus` is sse-starlette's switch for all streams of the process, for other servers and for code that uses it.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

Soon = Callable[[Callable[[], None]], object]


class StreamGroup:
    """Streams that are to end together; give it to `EventSourceResponse(drain=...)`.

    `end` may be called from any thread, and from a signal handler. What comes after it ends at once, until `reopen`.
    """

    def __init__(self) -> None:
        self._inside: set[Inside] = set()
        self._ended = 0

    def __len__(self) -> int:
        """How many streams are inside."""
        return len(self._inside)

    @property
    def ended(self) -> bool:
        return self._ended > 0

    def inside(self, leave: Callable[[], None]) -> Inside:
        """Be counted while inside; `leave` is called on the stream's own loop when the group is to end."""
        return Inside(self, leave)

    def end(self) -> None:
        self._ended += 1
        self.tell()

    def tell(self) -> None:
        for stream in tuple(self._inside):
            stream.ask_to_leave()

    def reopen(self) -> None:
        """Take one `end` back: newcomers may stay again."""
        self._ended = max(0, self._ended - 1)


class Inside:
    """One stream's stay in a group."""

    __slots__ = ("_group", "_leave", "_soon")

    def __init__(self, group: StreamGroup, leave: Callable[[], None]) -> None:
        self._group = group
        self._leave: Callable[[], None] | None = leave
        self._soon = soon()

    def __enter__(self) -> None:
        self._group._inside.add(self)
        if self._group.ended:
            self.ask_to_leave()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group._inside.discard(self)
        self._leave = None

    def ask_to_leave(self) -> None:
        try:
            self._soon(self._left)
        except RuntimeError:
            return  # its loop is closed, and the stream with it

    def _left(self) -> None:
        if self._leave is not None:
            self._leave()


def soon() -> Soon:
    """How any thread has a call made on the loop that runs now."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        trio_soon: Soon = sys.modules["trio"].lowlevel.current_trio_token().run_sync_soon
        return trio_soon


class LoopStreams(StreamGroup):
    """The streams of one event loop that were given no drain of their own."""

    @property
    def ended(self) -> bool:
        return self._ended > 0 or AppStatus._exiting


_all: weakref.WeakSet[LoopStreams] = weakref.WeakSet()
_lock = threading.RLock()  # reentrant: a signal handler may set `should_exit` in the middle of it


def streams_here() -> LoopStreams:
    """The group of the running loop, made on first use; the loop (trio: the run) keeps it."""
    found = _known_here()
    if found is None:
        found = LoopStreams()
        with _lock:
            _all.add(found)
        _keep(found)
    if not _wrapped:
        wrap_uvicorn()
    return found


def _known_here() -> LoopStreams | None:
    try:
        return getattr(asyncio.get_running_loop(), "_streamgate_streams", None)
    except RuntimeError:
        return _of_trio.get(_trio_token()) if "trio" in sys.modules else None


def _keep(group: LoopStreams) -> None:
    try:
        asyncio.get_running_loop()._streamgate_streams = group  # type: ignore[attr-defined]
    except RuntimeError:
        _of_trio[_trio_token()] = group


_of_trio: weakref.WeakKeyDictionary[Any, LoopStreams] = weakref.WeakKeyDictionary()


def _trio_token() -> Any:
    return sys.modules["trio"].lowlevel.current_trio_token()


def _groups() -> tuple[LoopStreams, ...]:
    with _lock:
        return tuple(_all)


class _Switch(type):
    """Makes `AppStatus.should_exit` tell the streams when it is set, and tell the truth when it is read."""

    _exiting = False

    @property
    def should_exit(cls) -> bool:
        """Whether streams are to end: all of the process, or those of the running loop, whose server shuts down."""
        if cls._exiting:
            return True
        try:
            here = _known_here()
        except RuntimeError:  # a worker thread, that of synchronous content say: any loop's word is news to it
            return any(group.ended for group in _groups())
        return here is not None and here.ended

    @should_exit.setter
    def should_exit(cls, value: bool) -> None:
        cls._exiting = bool(value)
        if value:
            for group in _groups():
                group.tell()

    @should_exit.deleter
    def should_exit(cls) -> None:
        """What `monkeypatch` and `mock.patch` do to put things back."""
        cls._exiting = False


class AppStatus(metaclass=_Switch):
    """sse-starlette's switch. `AppStatus.should_exit = True`, from any thread, ends all streams of the process.

    Reading it on a loop whose server is shutting down gives True as well. Other attributes may be set, to no effect.
    """

    enable_automatic_graceful_drain = True
    original_handler: Callable[..., Any] | None = None  # uvicorn's Server.handle_exit, once uvicorn is known

    def __getattr__(self, name: str) -> Any:
        if name == "should_exit":
            return type(self).should_exit
        raise AttributeError(name)

    @staticmethod
    def disable_automatic_graceful_drain() -> None:
        """Leave streams alone when the server shuts down; somebody must then set `should_exit`, or it never ends."""
        AppStatus.enable_automatic_graceful_drain = False

    @staticmethod
    def enable_automatic_graceful_drain_mode() -> None:
        """End streams when the server shuts down: the default."""
        AppStatus.enable_automatic_graceful_drain = True

    @staticmethod
    def handle_exit(*args: Any, **kwargs: Any) -> None:
        """For signal handlers of one's own: end the streams if the drain is automatic, then call uvicorn's handler."""
        if AppStatus.enable_automatic_graceful_drain:
            AppStatus.should_exit = True
        if AppStatus.original_handler is not None:
            AppStatus.original_handler(*args, **kwargs)


_wrapped = False


def wrap_uvicorn() -> None:
    """Wrap `uvicorn.Server.shutdown`, once, as soon as uvicorn is loaded."""
    global _wrapped  # noqa: PLW0603 - the class that is wrapped is as global
    module = sys.modules.get("uvicorn.server")
    server = getattr(module, "Server", None)
    if server is None or _wrapped:
        return
    _wrapped = True
    shutdown = server.shutdown

    @functools.wraps(shutdown)
    async def ending_streams(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not AppStatus.enable_automatic_graceful_drain:
            return await shutdown(self, *args, **kwargs)
        streams = streams_here()
        streams.end()
        try:
            return await shutdown(self, *args, **kwargs)
        finally:
            streams.reopen()

    server.shutdown = ending_streams
    if AppStatus.original_handler is None:
        AppStatus.original_handler = server.handle_exit


wrap_uvicorn()
