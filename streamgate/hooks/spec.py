"""What plugins are promised: read this to write one.

A plugin is a subclass of `Plugin`; a hook is active when the subclass defines it. What a hook is given and gives back
is in `values.py`, and everything public is in `streamgate.hooks`. Version 1 of the promise; a plugin says by `api`
which one it was written for.

Where a hook may be plain or `async def`, an async one has `budget` seconds for each call, a plain one must not wait at
all: it runs in the event loop of all streams (or, with `threaded`, in a worker thread). Whatever a hook does wrong
(raise, overrun, answer with something that was not asked for) is counted, and then the plugin's `fail` decides: "open"
goes on as if the plugin had not been there, "closed" ends the request with the code plugin_failed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol, TypeAlias

from streamgate.hooks.values import (
    Abort,
    Answer,
    Ended,
    Headers,
    Identity,
    Kept,
    Kind,
    Refuse,
    Request,
    RequestHead,
    ResponseHead,
    Text,
    UpstreamRequest,
)
from streamgate.record import StreamRecord
from streamgate.sse.event import ServerSentEvent

if TYPE_CHECKING:
    from pydantic import BaseModel

API: Final = 1

Fail = Literal["open", "closed"]
Events: TypeAlias = "ServerSentEvent | Iterable[ServerSentEvent] | None"


class Counter(Protocol):
    def inc(self, amount: float = 1.0, /, **labels: str) -> None: ...


class Gauge(Protocol):
    def set(self, value: float, /, **labels: str) -> None: ...
    def inc(self, amount: float = 1.0, /, **labels: str) -> None: ...


class Histogram(Protocol):
    def observe(self, value: float, /, **labels: str) -> None: ...


class Metrics(Protocol):
    """Metrics of a plugin's own: `name` becomes streamgate_plugin_<plugin>_<name>.

    To be made once, in `__init__`, and used from any hook. Label values are bounded: after 100 different sets of them
    the rest are counted under "other". A counter's name ends in `_total`.
    """

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter: ...
    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge: ...
    def histogram(
        self, name: str, text: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = ()
    ) -> Histogram: ...


class Log(Protocol):
    """The gateway's log; the plugin's name is in every line. No text of users and no keys, please."""

    def debug(self, event: str, **values: object) -> object: ...
    def info(self, event: str, **values: object) -> object: ...
    def warning(self, event: str, **values: object) -> object: ...
    def error(self, event: str, **values: object) -> object: ...


class Facade(Protocol):
    """What a plugin may use of the gateway."""

    @property
    def name(self) -> str:
        """The plugin's name in the configuration."""
        ...

    @property
    def metrics(self) -> Metrics: ...
    @property
    def log(self) -> Log: ...

    def now(self) -> float:
        """Monotonic seconds: for durations and deadlines."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch: for timestamps and periods of the calendar."""
        ...


class Stream:
    """One request and its stream, as one plugin sees it. The facts are read-only; `state` is the plugin's own.

    There is one for each request and plugin, from the first hook that knows of the request (`on_request`) to `on_end`.
    """

    __slots__ = ("_record", "request", "state")

    def __init__(self, record: StreamRecord) -> None:
        self._record = record
        self.state: Any = None  # whatever the plugin puts here
        self.request: Request | None = None  # as this plugin's `on_request` was given it; None: refused before

    @property
    def id(self) -> str:
        return self._record.request_id

    @property
    def tenant(self) -> str:
        return self._record.tenant

    @property
    def client(self) -> str:
        """The client's address."""
        return self._record.client

    @property
    def path(self) -> str:
        """The path's template: "/v1/chat/completions"."""
        return self._record.route

    @property
    def model(self) -> str:
        """As the client asked."""
        return self._record.model

    @property
    def upstream(self) -> str:
        """The configured name of the one that is being tried, "" before."""
        return self._record.upstream

    @property
    def attempts(self) -> int:
        return self._record.attempts

    @property
    def events(self) -> int:
        """Events with data that the upstream has sent and that were passed on."""
        return self._record.events


class Plugin:
    """Base of all plugins. Every hook is optional; its docstring here is its contract.

    Called in the order of the configuration, each with what the one before it gave back.
    """

    api: ClassVar[int] = API
    Settings: ClassVar[type[BaseModel]]  # the settings' model; a plugin without one takes no settings
    waits: ClassVar[bool] = False  # on_event and on_text are `async def`: the stream gets a task and a mailbox for them
    threaded: ClassVar[bool] = False  # plain hooks but on_event and on_text run in a worker thread
    # What a failure means when the configuration does not say it. None: closed for authenticate and on_request, open
    # for the rest. A plugin that keeps something from leaving says "closed".
    fail: ClassVar[Fail | None] = None
    window: int = 0  # the most characters that on_text may keep; a class attribute, or set in __init__

    def __init__(self, settings: Any, gateway: Facade) -> None:
        """`settings` is an instance of `Settings`, or None for a plugin that has none. No I/O here: see `startup`."""
        self.settings = settings
        self.gateway = gateway

    def startup(self) -> Awaitable[None] | None:
        """Before the first request. An exception keeps the gateway from starting; 30 s at most."""

    def shutdown(self) -> Awaitable[None] | None:
        """After the last stream; what was buffered is to be written now. 10 s at most."""

    def authenticate(self, head: RequestHead) -> Identity | Awaitable[Identity | None] | None:
        """Who is asking? None: not mine to judge, ask the next one and then the gateway's own keys. May `Refuse`.

        Asked before the body is read, for every path, whatever routes the plugin is restricted to.
        """

    def on_request(
        self, request: Request, stream: Stream
    ) -> Request | Answer | Awaitable[Request | Answer | None] | None:
        """A checked request: another one (`request.replaced(...)`), an answer, or None to leave it. May `Refuse`.

        Called before the request waits for a place. A changed request is checked again.
        """

    def choose_upstream(
        self, names: Sequence[str], stream: Stream
    ) -> Sequence[str] | Awaitable[Sequence[str] | None] | None:
        """The upstreams to be tried, best first: the same names in another order, or some of them; None: as they are.

        Once for each request, before its first try. None left means a refusal: no_upstream.
        """

    def on_upstream_request(
        self, call: UpstreamRequest, stream: Stream
    ) -> UpstreamRequest | Awaitable[UpstreamRequest | None] | None:
        """About to be sent, once for each try: other headers or another body, or None to leave it."""

    def on_open(self, head: ResponseHead, stream: Stream) -> ResponseHead | Awaitable[ResponseHead | None] | None:
        """The head of the response, before its first byte: another status or other headers, or None to leave it.

        Not called when an early commit has already sent a head.
        """

    def on_event(self, event: ServerSentEvent, stream: Stream) -> Events | Awaitable[Events]:
        """An event of the stream, its `data` a str. The same one; a changed or another one; several; None drops it.

        An event that is given back as it was passes byte for byte. The family's terminator is an event as well
        (`[DONE]`). Plain by contract (see `waits`). May `Abort`.
        """

    def on_text(self, text: Text, stream: Stream) -> str | Kept | Awaitable[str | Kept]:
        """Text of a choice: content or reasoning, reassembled from events, whatever API it came by.

        A str releases all that is pending, replaced by that str. `Kept(out, keep)` releases all but the last `keep`
        characters, which come again with what follows them: so a pattern that is cut by tokens is seen whole. `keep` is
        at most `window`. When `text.final` nothing may be kept. Never called with nothing pending: a text of which
        nothing was kept ends without a word. Answers in one JSON body come as one final text.

        Where the family is unknown (any other SSE) there is no text, and this is not called. Called before the same
        plugin's on_event. Plain by contract (see `waits`). May `Abort`.
        """
        raise NotImplementedError

    def on_end(self, record: Ended) -> Awaitable[None] | None:
        """The request is over and its answer sent, whatever became of it; once for each, refused ones included."""


HOOKS: Final = (
    "startup",
    "authenticate",
    "on_request",
    "choose_upstream",
    "on_upstream_request",
    "on_open",
    "on_event",
    "on_text",
    "on_end",
    "shutdown",
)


def hooks_of(kind: type[Plugin]) -> tuple[str, ...]:
    """The hooks that a plugin defines, in the order of a stream's life."""
    return tuple(name for name in HOOKS if getattr(kind, name) is not getattr(Plugin, name))


__all__ = [
    "API",
    "HOOKS",
    "Abort",
    "Answer",
    "Counter",
    "Ended",
    "Events",
    "Facade",
    "Fail",
    "Gauge",
    "Headers",
    "Histogram",
    "Identity",
    "Kept",
    "Kind",
    "Log",
    "Metrics",
    "Plugin",
    "Refuse",
    "Request",
    "RequestHead",
    "ResponseHead",
    "ServerSentEvent",
    "Stream",
    "Text",
    "UpstreamRequest",
    "hooks_of",
]
