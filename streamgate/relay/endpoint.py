"""The whole life of one stream, from the request's head to its outcome. Read this first.

    observer.stream()    outermost: sees every ending, exactly once
    read_request         authenticate, read, check, find the route, ask plugins; a Refusal is answered and counted
    Tries                the content: lease, tries, passage, all inside `into(outlet)`
    EventSourceResponse  the client's side: outlet, disconnect, heartbeat, send clock, farewell

The response is entered first, so heartbeats and the disconnect watch live from the queue on; its head starts when there
is something to say. Frames are pushed: one plain call per upstream read goes from the exchange through the passage to
the outlet, while this task only waits for the end.
"""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from streamgate.dialects.bodies import Family, family_of
from streamgate.errors import Reason, Refusal
from streamgate.observe.observer import Observer
from streamgate.record import StreamRecord
from streamgate.relay.consulted import is_refusal, refused_by
from streamgate.relay.deadlines import Deadlines
from streamgate.relay.headers import own
from streamgate.relay.models import Models
from streamgate.relay.reply import refuse
from streamgate.relay.request import Policy, Request, known_path, late_refusal, read_request
from streamgate.relay.tries import Means, Tries
from streamgate.sse.outlet import OutletSettings
from streamgate.sse.response import EventSourceResponse


class Relay:
    """The gateway as an ASGI application."""

    def __init__(self, observer: Observer, policy: Policy, means: Means, models: Models) -> None:
        self.observer = observer
        self.policy = policy
        self.means = means
        self.models = models
        self.running: dict[StreamRecord, Tries] = {}  # for the admin port: to look at, and to end one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.observer.stream(scope["headers"]) as record:
            hooks = self.policy.plugins.stream(record) if self.policy.plugins is not None else None
            try:
                path = known_path(scope, record, self.policy)
                request = await read_request(scope, receive, path, record, self.policy, hooks)
                if path.local:
                    await self.models.answer(request, record, scope, receive, send)
                    return
                if request.answer is not None and is_refusal(request.answer):
                    await refused_by(request.answer, record)(scope, receive, send)
                    return
                content = Tries(request, record, self.means, hooks)
                settings = pace(request, record, content.allowance.deadlines)
                self.running[record] = content
                with self.means.drain.inside(content.drained):
                    await EventSourceResponse(content, settings=settings)(scope, receive, send)
            except Refusal as refusal:
                await self._refused(refusal, record, scope, receive, send)
            finally:
                self.running.pop(record, None)
                if hooks is not None:
                    with self.means.drain.inside(_as_it_likes):  # the process stays for what plugins still write
                        await hooks.ended()

    async def _refused(
        self, refusal: Refusal, record: StreamRecord, scope: Scope, receive: Receive, send: Send
    ) -> None:
        response = refuse(refusal, record, family_of(scope["path"]))
        if refusal.reason is not Reason.CLIENT_LEFT and refusal is not late_refusal(scope):
            await response(scope, receive, send)


def pace(request: Request, record: StreamRecord, clocks: Deadlines) -> OutletSettings:
    """The client's side of this stream: heartbeats and an early head only where the answer will be events."""
    if not request.stream or request.path.family is Family.OLLAMA:
        return OutletSettings(heartbeat=0.0, send=clocks.send, early_commit=None)
    return OutletSettings(
        heartbeat=clocks.heartbeat,
        send=clocks.send,
        early_commit=clocks.early_commit,
        ping=request.path.dialect.ping,
        early_headers=(EVENTS, *own(record.request_id)),
    )


def _as_it_likes() -> None:
    """The end of a stream is not cut by a drain: each plugin has its budget for it."""


EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
