"""EventSourceResponse: sse-starlette's response, parameter for parameter, and the client's side of a relayed stream.

Content that is iterated is run by `Stream`: one task sends, one child listens. Content that is a `Feed` pushes itself
into an outlet, and the response is `open an outlet, listen for the disconnect, await the content into it, finish`.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, Protocol, cast

import anyio
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from streamgate.sse.account import Account, Drain, Ending, StreamObserver, tell
from streamgate.sse.asgi import AsgiOutlet
from streamgate.sse.compression import needs_nudge
from streamgate.sse.content import Content, ContentStream, asynchronous
from streamgate.sse.disconnect import told_by_send
from streamgate.sse.event import SEPARATORS, ServerSentEvent
from streamgate.sse.life import late
from streamgate.sse.outlet import Feed, Outlet, OutletSettings
from streamgate.sse.shutdown import streams_here
from streamgate.sse.tasks import kind_of_stream

logger = logging.getLogger("streamgate.sse")

# The server's own outlet, offered in scope["extensions"]: an object with `outlet(settings)`.
EDGE: Final = "streamgate.edge"

OnClose = Callable[[Account], Awaitable[None] | None]
HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"connection", b"keep-alive"),
    (b"x-accel-buffering", b"no"),
    (b"content-type", b"text/event-stream; charset=utf-8"),
)


class OpenOutlet(Outlet, AbstractAsyncContextManager["OpenOutlet"], Protocol):
    """An outlet whose life is an `async with`."""


def open_outlet(scope: Scope, receive: Receive, send: Send, settings: OutletSettings) -> OpenOutlet:
    """The server's own outlet where it offers one, else one over plain ASGI."""
    edge = scope.get("extensions", {}).get(EDGE)
    outlet: OpenOutlet
    if edge is not None:
        outlet = edge.outlet(settings)
    else:
        outlet = AsgiOutlet(settings, receive, send, head_only=scope["method"] == "HEAD")
    return outlet


class EventSourceResponse(Response):
    """A `text/event-stream` response. docs/sse.md describes every parameter; seconds throughout.

    The first fourteen are sse-starlette's. Keyword-only and our own: `ping_mode` "idle" pings only after `ping` seconds
    without a write; `observer` is told of the stream's life; `on_close` is called once in any case, with the account;
    `drain` replaces the automatic detection of a shutdown; `farewell` (an item, or what makes one) is sent when a
    shutdown ends the stream, and the body then ends cleanly; `error_event` makes an item of what the content raised,
    and the body then ends cleanly; `wait_for_first` sends the head with the first item, so that what the content raises
    before it can still be a status; `settings` are those of a Feed.

    Raises ValueError or TypeError for what is out of range; when called, what content, callbacks or `send` raised, and
    `SendTimeoutError`.
    """

    DEFAULT_PING_INTERVAL: float = 15
    DEFAULT_SEPARATOR = "\r\n"
    DEFAULT_CLEANUP_TIMEOUT = 30.0

    media_type = "text/event-stream"

    def __init__(  # noqa: PLR0913, PLR0917 - sse-starlette's parameters, in its order
        self,
        content: Feed | ContentStream | Any,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = "text/event-stream",
        background: BackgroundTask | None = None,
        ping: float | None = None,
        sep: str | None = None,
        ping_message_factory: Callable[[], Content] | None = None,
        data_sender_callable: Callable[[], Awaitable[None]] | None = None,
        send_timeout: float | None = None,
        client_close_handler_callable: Callable[[Message], Awaitable[None]] | None = None,
        shutdown_event: anyio.Event | None = None,
        shutdown_grace_period: float = 0,
        cleanup_timeout: float | None = DEFAULT_CLEANUP_TIMEOUT,
        *,
        ping_mode: Literal["interval", "idle"] = "interval",
        observer: StreamObserver | None = None,
        on_close: OnClose | None = None,
        drain: Drain | None = None,
        farewell: Content | Callable[[], Content] | None = None,
        error_event: Callable[[Exception], Content | None] | None = None,
        wait_for_first: bool = False,
        settings: OutletSettings | None = None,
    ) -> None:
        self.status_code = status_code
        self.background = background
        self.settings: OutletSettings | None = None
        if hasattr(content, "into"):
            self.content = cast(Feed, content)
            self.settings = settings or OutletSettings(
                heartbeat=self.DEFAULT_PING_INTERVAL if ping is None else ping, send=send_timeout or 0.0
            )
            self.raw_headers = list(self.settings.early_headers)  # a Feed composes its own head; these are for HEAD
            return
        if settings is not None:
            raise TypeError("settings are for a Feed; content that is iterated has parameters of its own")
        check(sep, send_timeout, shutdown_grace_period, cleanup_timeout, ping_mode)
        self.body_iterator = asynchronous(content)
        if media_type is not None:
            self.media_type = media_type
        self.sep = sep or self.DEFAULT_SEPARATOR
        self.ping_interval = self.DEFAULT_PING_INTERVAL if ping is None else ping
        self.ping_message_factory = ping_message_factory
        self.data_sender_callable = data_sender_callable
        self.send_timeout = send_timeout or None
        self.client_close_handler_callable = client_close_handler_callable
        self.shutdown_event = shutdown_event
        self.shutdown_grace_period = shutdown_grace_period
        self.cleanup_timeout = cleanup_timeout
        self.ping_mode = ping_mode
        self.observer = observer
        self.on_close = on_close
        self.drain = drain
        self.farewell = farewell
        self.error_event = error_event
        self.wait_for_first = wait_for_first
        self.active = True  # until the end
        self._compose(headers)

    def _compose(self, headers: Mapping[str, str] | None) -> None:
        if headers is None and self.media_type == "text/event-stream" and self.charset == "utf-8":
            self.raw_headers = list(HEADERS)
            return
        given = {name.lower(): value for name, value in (headers or {}).items()}
        given.setdefault("cache-control", "no-store")
        self.init_headers(given | {"connection": "keep-alive", "x-accel-buffering": "no"})

    @property
    def ping_interval(self) -> float:
        """Seconds between pings; 0 sends none."""
        return self._ping_interval

    @ping_interval.setter
    def ping_interval(self, value: float) -> None:
        if not isinstance(value, int | float):
            raise TypeError("ping interval must be int or float")
        if value < 0:
            raise ValueError("ping interval must be >= 0 (0 disables ping)")
        self._ping_interval = value

    def enable_compression(self, force: bool = False) -> None:
        """Not for streams: a compressor holds events back. Raises NotImplementedError."""
        raise NotImplementedError("Compression is not supported for SSE streams.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.settings is None:
            await self._stream(scope, receive, send)
        else:
            async with open_outlet(scope, receive, send, self.settings) as outlet:
                if scope["method"] == "HEAD":
                    outlet.start(self.status_code, self.raw_headers)
                    await outlet.finish(None, whole=True)
                else:
                    farewell = await self.content.into(outlet)
                    await outlet.finish(farewell.words, whole=farewell.whole)
        if self.background is not None:
            await self.background()

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        account = Account(scope)
        try:
            if scope["type"] == "http" and scope["method"].upper() == "HEAD":
                self.observer = None  # there is no stream to observe
                await self._head_only(scope, send, account)
                return
            if scope["type"] == "websocket":
                send = denial(send)
            tell(self.observer, "opened", account)
            stream = kind_of_stream()(self, account, scope, receive, send)
            await stream.run(streams_here() if self.drain is None else self.drain)
        except BaseException as error:
            if account.ending is None:
                account.ending = Ending.SEND_ERROR if isinstance(error, Exception) else Ending.CANCELLED
                account.error = error
            raise
        finally:
            await self._closed(account)
            account.error = None  # its traceback holds this frame, and this frame the account

    async def _head_only(self, scope: Scope, send: Send, account: Account) -> None:
        """HEAD: what GET would say, and no body; the content is not touched."""
        messages: tuple[Message, ...] = (
            {"type": "http.response.start", "status": self.status_code, "headers": self.headers_for(scope)},
            {"type": "http.response.body", "body": b"", "more_body": False},
        )
        for message in messages:
            with anyio.move_on_after(self.send_timeout) as clock:
                try:
                    await send(message)
                except OSError as error:
                    if not told_by_send(error, scope):
                        raise
                    account.ending = Ending.CLIENT_DISCONNECT
                    return
            if clock.cancel_called:
                account.ending, account.error = Ending.SEND_TIMEOUT, late(self.send_timeout)
                raise account.error
        account.ending = Ending.COMPLETE

    async def _closed(self, account: Account) -> None:
        account.ended_at = time.monotonic()
        self.active = False
        tell(self.observer, "closed", account)
        if self.on_close is None:
            return
        with anyio.move_on_after(self.cleanup_timeout, shield=True) as clock:
            try:
                told = self.on_close(account)
                if inspect.isawaitable(told):
                    await told
            except Exception:
                logger.exception("a stream's on_close failed")
        if clock.cancel_called:
            logger.warning("a stream's on_close was cancelled after %s s", self.cleanup_timeout)

    # ---- what the running stream asks for
    def ping_content(self, now: float) -> Content:
        """A ping for this moment (monotonic seconds)."""
        return self.ping_message_factory() if self.ping_message_factory is not None else default_ping(now, self.sep)

    def last_item(self, account: Account) -> Content | None:
        """What is to be said before a clean end, at a shutdown or after the content raised; None: nothing, a cut."""
        if account.ending is Ending.SHUTDOWN:
            return self.farewell() if callable(self.farewell) else self.farewell
        if self.error_event is not None and isinstance(account.error, Exception):
            return self.error_event(account.error)
        return None

    def headers_for(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """`connection` is HTTP/1's; in HTTP/2 and 3 a message with it is malformed (RFC 9113, 8.2.2)."""
        if scope.get("http_version", "1.1")[0] == "1":
            return self.raw_headers
        return [(name, value) for name, value in self.raw_headers if name != b"connection"]

    def needs_nudge(self, scope: Scope) -> bool:
        return needs_nudge(scope, self.raw_headers)


@lru_cache(maxsize=8)
def default_ping(now: float, sep: str) -> bytes:
    """The streams that ping at one moment share their bytes."""
    return ServerSentEvent(comment=f"ping - {datetime.now(UTC)}", sep=sep).encode()


def check(sep: str | None, send: float | None, grace: float, cleanup: float | None, ping_mode: str) -> None:
    """Raises ValueError for the first that is out of range."""
    if sep is not None and sep not in SEPARATORS:
        raise ValueError(f"sep must be one of: \\r\\n, \\r, \\n, got: {sep!r}")
    if send is not None and send < 0:
        raise ValueError("send_timeout must be >= 0")
    if grace < 0:
        raise ValueError("shutdown_grace_period must be >= 0")
    if cleanup is not None and cleanup < 0:
        raise ValueError("cleanup_timeout must be >= 0")
    if ping_mode not in {"interval", "idle"}:
        raise ValueError(f"ping_mode must be interval or idle, got: {ping_mode!r}")


def denial(send: Send) -> Send:
    """On a websocket scope a response is a denial: the same messages under the names of that extension."""

    async def renamed(message: Message) -> None:
        if message["type"] in {"http.response.start", "http.response.body"}:
            message = {**message, "type": "websocket." + message["type"]}
        await send(message)

    return renamed
