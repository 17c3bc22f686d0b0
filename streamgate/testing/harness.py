"""Runs one plugin against scripted streams: the whole life of a request, less sockets, queue and other tries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from streamgate.clock import monotonic, wall
from streamgate.errors import Refusal
from streamgate.hooks import Fail, Identity, Plugin, Refuse, RequestHead, ServerSentEvent
from streamgate.hooks.breaker import State
from streamgate.hooks.chain import Plugins
from streamgate.hooks.facade import Gateway
from streamgate.hooks.loader import PluginConfig, load
from streamgate.hooks.values import Headers
from streamgate.testing.received import Received
from streamgate.testing.relayed import Relayed
from streamgate.testing.script import Delta, answer, written

Item = str | Delta | ServerSentEvent | bytes


class Failure(NamedTuple):
    """A call that went wrong: `reason` is error, timeout, garbage or stall."""

    hook: str
    reason: str
    detail: str


class Books:
    """The journal: keeps what it is told."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.states: list[State] = []
        self.seconds: dict[str, float] = {}

    def spent(self, plugin: str, hook: str, seconds: float) -> None:
        self.seconds[hook] = self.seconds.get(hook, 0.0) + seconds

    def failed(self, plugin: str, hook: str, reason: str, detail: str) -> None:
        self.failures.append(Failure(hook, reason, detail))

    def breaker(self, plugin: str, state: State) -> None:
        self.states.append(state)

    def stuck(self, plugin: str, hook: str, seconds: float) -> None:
        self.failures.append(Failure(hook, "stuck", f"{seconds:.1f} s"))


class Lines:
    """The log: keeps the lines as (level, event, values)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def debug(self, event: str, **values: object) -> None:
        self.lines.append(("debug", event, values))

    def info(self, event: str, **values: object) -> None:
        self.lines.append(("info", event, values))

    def warning(self, event: str, **values: object) -> None:
        self.lines.append(("warning", event, values))

    def error(self, event: str, **values: object) -> None:
        self.lines.append(("error", event, values))


class _Given:
    """Stands for the entry point of a class that is at hand."""

    dist = None

    def __init__(self, kind: type[Plugin]) -> None:
        self._kind = kind

    def load(self) -> type[Plugin]:
        return self._kind


class PluginHarness:
    """A gateway with one plugin. To be used as `async with PluginHarness(MyPlugin, {...}) as gateway`.

    `settings` are as in the configuration, and validated (`streamgate.hooks.loader.PluginError`). `now` and `wall` of
    the plugin's facade add `ahead` seconds to the clocks: set it to let time pass. Leaving it shuts the plugin down,
    and raises AssertionError when tasks of it are still running.
    """

    def __init__(
        self,
        kind: type[Plugin],
        settings: Mapping[str, Any] | None = None,
        *,
        fail: Fail | None = None,
        budget: float = 1.0,
    ) -> None:
        self.ahead = 0.0
        self.patience = 1.0  # s for tasks that are just ending
        self.books = Books()
        self.log = Lines()
        self._gateway = Gateway(
            "plugin", log=self.log, now=lambda: monotonic() + self.ahead, wall=lambda: wall() + self.ahead
        )
        use = f"{kind.__module__}:{kind.__qualname__}"
        config = PluginConfig(use=use, name="plugin", fail=fail, budget=budget, settings=settings or {})
        self.plugins: Plugins = load([config], lambda _: self._gateway, self.books, lambda: {use: _Given(kind)})
        self.plugin = self.plugins.members[0].plugin
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._tasks = asyncio.all_tasks()
        await self.plugins.startup()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.plugins.shutdown()
        left = asyncio.all_tasks() - self._tasks
        if left:
            _, left = await asyncio.wait(left, timeout=self.patience)
        for task in left:
            task.cancel()
        if kind is None and left:
            raise AssertionError(f"the plugin left tasks behind: {', '.join(map(str, left))}")

    @property
    def failures(self) -> list[Failure]:
        """Calls that went wrong, so far."""
        return self.books.failures

    def metric(self, name: str, **labels: str) -> float:
        """The value of one of the plugin's metrics; of a histogram, the sum of what was observed."""
        figure = self._gateway.metrics.families[name]
        return figure.values.get(tuple(labels[label] for label in figure.labels), 0.0)

    async def authenticate(self, headers: Mapping[str, str], client: str = "127.0.0.1") -> Identity | None:
        """Raises `Refuse`."""
        head = RequestHead(method="POST", path="/v1/chat/completions", headers=Headers(headers), client=client)
        try:
            return await self.plugins.authenticate(head)
        except Refusal as refusal:
            raise Refuse(refusal.status, refusal.code, refusal.message, refusal.retry_after) from None

    async def stream(
        self,
        script: Iterable[Item],
        *,
        json: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        tenant: str = "",
        upstreams: Sequence[str] = ("first", "second"),
        split: int = 0,
        ends: bool = True,
        path: str = "/v1/chat/completions",
    ) -> Received:
        """A request for a stream, and what comes of it. A str of the script is a delta of the first choice, an event or
        bytes are sent as they are; `ends` adds finish reasons and the terminator, else the upstream breaks off.
        `split` cuts the bytes into chunks of this size."""
        body = written(script, ends=ends)
        pieces = [body[at : at + split] for at in range(0, len(body), split)] if split else [body]
        request = {"model": "m", "stream": True, "messages": [], **(json or {})}
        relayed = Relayed(self.plugins, path, request, headers or {}, tenant, upstreams)
        return await relayed.run(pieces, [(b"content-type", b"text/event-stream")], ends=ends)

    async def answer(
        self,
        text: str,
        *,
        json: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        tenant: str = "",
        upstreams: Sequence[str] = ("first", "second"),
        body: bytes | None = None,
    ) -> Received:
        """A request for a whole answer, which is this text, or this `body`."""
        request = {"model": "m", "messages": [], **(json or {})}
        relayed = Relayed(self.plugins, "/v1/chat/completions", request, headers or {}, tenant, upstreams)
        written = answer(text) if body is None else body
        return await relayed.run([written], [(b"content-type", b"application/json")], ends=True)
