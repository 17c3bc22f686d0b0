"""Which plugins are called for a request, in what order, with what. Knows no I/O and nothing of the relay.

`Plugins` is all of them; `StreamHooks` is their side of one request: made at its head, narrowed when its route is
known, told of its end. What a hook refuses or breaks becomes a `Refusal` before there is a stream, a `Fault` after.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from streamgate.clock import monotonic
from streamgate.errors import PluginFailed, Reason, Refusal
from streamgate.hooks import checks
from streamgate.hooks.ended import ended_of
from streamgate.hooks.faults import NotStarted, refusal_of
from streamgate.hooks.member import SKIPPED, Journal, Member
from streamgate.hooks.spec import Stream
from streamgate.hooks.values import Answer, Identity, Refuse, Request, RequestHead, ResponseHead, UpstreamRequest
from streamgate.hooks.watchdog import Running, Watchdog
from streamgate.record import StreamRecord

STARTUP, SHUTDOWN = 30.0, 10.0  # s for each plugin
CHUNKS = ("on_event", "on_text")


class Plugins:
    """All configured plugins, in order. False when there are none: then nothing of this package need be called."""

    def __init__(self, members: Sequence[Member], journal: Journal, running: Running) -> None:
        self.members = tuple(members)
        self.journal = journal
        self._everywhere = tuple(member for member in members if not member.restricted)
        self._authenticators = tuple(member for member in members if "authenticate" in member.hooks)
        self._watchdog = Watchdog(running, journal.stuck)
        self._started: list[Member] = []

    def __bool__(self) -> bool:
        return bool(self.members)

    async def startup(self) -> None:
        """Start each. Raises `NotStarted` when one cannot (those before it are shut down)."""
        if self.members:
            self._watchdog.start()
        try:
            for member in self.members:
                try:
                    await _within(STARTUP, member.plugin.startup)
                except Exception as bug:
                    why = "it took too long" if isinstance(bug, TimeoutError) else str(bug)
                    raise NotStarted(f"plugin {member.name} cannot start: {type(bug).__name__}: {why}") from bug
                self._started.append(member)
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Shut down in reverse order; a failure is counted, and the others go on."""
        while self._started:
            member = self._started.pop()
            try:
                await _within(SHUTDOWN, member.plugin.shutdown)
            except Exception as bug:  # noqa: BLE001 - whatever it is, it is the plugin's
                detail = type(bug).__name__
                self.journal.failed(member.name, "shutdown", "error", detail)
        self._watchdog.stop()

    async def authenticate(self, head: RequestHead) -> Identity | None:
        """Who is asking, by the first plugin that knows. Raises `Refusal`."""
        for member in self._authenticators:
            identity = await _asked(member, "authenticate", checks.identity, head)
            if isinstance(identity, Identity):  # else: not its to judge, or it failed and that is passed over
                return identity
        return None

    def stream(self, record: StreamRecord) -> StreamHooks:
        """The hooks of one request; to be `routed` when its route is known."""
        return StreamHooks(self, record, self._everywhere)


class StreamHooks:
    """The plugins' side of one request."""

    __slots__ = ("_answered", "_plugins", "_record", "_views", "members")

    def __init__(self, plugins: Plugins, record: StreamRecord, members: tuple[Member, ...]) -> None:
        self._plugins = plugins
        self._record = record
        self._views: dict[Member, Stream] = {}
        self._answered = -1  # which of them answered the request itself
        self.members = members

    def routed(self, model: str, names: Sequence[str] | None = None) -> None:
        """The route is known: those that serve this model and, when the route names some, are among them."""
        self.members = tuple(
            member
            for member in self._plugins.members
            if member.serves(model) and (names is None or member.name in names)
        )

    def view(self, member: Member) -> Stream:
        """The stream as this plugin sees it."""
        view = self._views.get(member)
        if view is None:
            view = self._views[member] = Stream(self._record)
        return view

    @property
    def chunked(self) -> list[Member]:
        """Those that see events or text; of an answer of their own, those that come after it."""
        return [member for member in self.members[self._answered + 1 :] if not member.hooks.isdisjoint(CHUNKS)]

    @property
    def opening(self) -> list[Member]:
        """Those that see the response's head."""
        return [member for member in self.members if "on_open" in member.hooks]

    async def request(self, request: Request) -> Request | Answer:
        """The request that is to be relayed, or a plugin's answer. Raises `Refusal`.

        Refused at once, too, where a plugin that must see the stream would only break it.
        """
        now = monotonic()
        for position, member in enumerate(self.members):
            view = self.view(member)
            view.request = request
            if "on_request" in member.hooks:
                answer = await _asked(member, "on_request", checks.request, request, view)
                if isinstance(answer, Answer):
                    self._answered = position
                    return answer
                if isinstance(answer, Request):
                    request = answer
            elif member.breaker.bars(now) and any(member.closed(hook) for hook in CHUNKS if hook in member.hooks):
                raise refusal_of(PluginFailed(f"{member.name}: the breaker is open"))
        return request

    def broke(self, detail: str) -> None:
        """The events of a plugin's own answer ended in an exception."""
        member = self.members[self._answered]
        member.journal.failed(member.name, "on_request", "error", detail)

    async def upstreams(self, names: Sequence[str]) -> Sequence[str]:
        """The upstreams to be tried, best first. Raises `Refusal`: no_upstream when none is left."""
        for member in self.members:
            if "choose_upstream" in member.hooks:
                chosen = await _asked(member, "choose_upstream", checks.upstreams, names, self.view(member))
                names = names if chosen is SKIPPED else chosen
        if not names:
            raise Refusal(Reason.NO_UPSTREAM, 503, "No upstream is left for this request.", retry_after=1.0)
        return names

    async def upstream_request(self, call: UpstreamRequest) -> UpstreamRequest:
        """What is to be sent. Raises `PluginFailed`, a fault."""
        for member in self.members:
            if "on_upstream_request" in member.hooks:
                changed = await member_call(
                    member, "on_upstream_request", checks.upstream_request, call, self.view(member)
                )
                call = call if changed is SKIPPED else changed
        return call

    async def head(self, head: ResponseHead) -> ResponseHead:
        """The head that is to be written. Raises `PluginFailed`, a fault."""
        for member in self.opening:
            changed = await member_call(member, "on_open", checks.response_head, head, self.view(member))
            head = head if changed is SKIPPED else changed
        return head

    async def ended(self) -> None:
        """The request is over, and the record says all there is to say. Raises nothing."""
        for member in self.members:
            if "on_end" in member.hooks:
                try:
                    await member_call(member, "on_end", checks.nothing, ended_of(self._record, self.view(member)))
                except PluginFailed:
                    continue  # counted; there is nothing left to end


async def member_call(member: Member, hook: str, check: Callable[..., Any], *given: Any) -> Any:
    """One call, its time noted. The checked answer or SKIPPED."""
    try:
        return await member.call(hook, check, *given)
    finally:
        if member.took:
            member.journal.spent(member.name, hook, member.took)


async def _asked(member: Member, hook: str, check: Callable[..., Any], *given: Any) -> Any:
    """The same before there is a stream: whatever ends the request is a `Refusal`."""
    try:
        return await member_call(member, hook, check, *given)
    except (Refuse, PluginFailed) as raised:
        raise refusal_of(raised) from None


async def _within(seconds: float, call: Callable[[], Any]) -> None:
    async with asyncio.timeout(seconds):
        returned = call()
        if inspect.isawaitable(returned):
            await returned
