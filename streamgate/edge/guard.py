"""The guard: nothing reaches the application that was not judged byte for byte.

`head` and `framing` judge and read a request, httptools is not asked; uvicorn's cycle runs the application on it.
One request at a time: what comes behind a running one is dropped, and the connection closes after its answer.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from streamgate.edge.census import Census, CensusLimits
from streamgate.edge.connection import Connection, Phase
from streamgate.edge.framing import Body, Chunked, Counted, too_large
from streamgate.edge.head import CHUNKED, Head, HeadLimits, judge, judge_partial, path_of
from streamgate.edge.outlet import EXTENSION, EdgeRequest
from streamgate.edge.policy import GuardSettings, Policy
from streamgate.errors import Reason, Refusal
from streamgate.sse.clocks import NEVER
from streamgate.sse.outlet import Lost

__all__ = ["Census", "Guard", "GuardSettings", "guard_factory"]

_NO_BODY = Counted(0)
MAX_SURPLUS = 65536  # bytes read and dropped behind a request, or of a body that nobody wants


def guard_factory(
    settings: GuardSettings,
    census: Census,
    *,
    error_body: Callable[[bytes, Refusal], bytes],
    refused: Callable[[Reason], None],
) -> Callable[..., asyncio.Protocol]:
    """What uvicorn's `Config(http=...)` takes.

    `error_body(path, refusal)` gives the JSON of a refusal in the form of the path's API family (an empty path when
    it is not known); `refused(reason)` counts it.
    """
    limits = CensusLimits(
        connections=settings.max_connections,
        per_address=settings.max_connections_per_address,
        trusted=settings.trusted_proxies,
        descriptors=max(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0]),  # -1 is infinity
        reserve=settings.reserve_descriptors,
    )
    head = HeadLimits(settings.max_line, settings.max_head, settings.max_fields)
    return partial(Guard, policy=Policy(settings, head, limits, census, error_body, refused))


class _Exit:
    """The transport, as uvicorn's response code uses it: closing it may have to linger."""

    __slots__ = ("_guard", "write")

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.write = guard.transport.write

    def is_closing(self) -> bool:
        return self._guard.phase is Phase.LEAVING or self._guard.transport.is_closing()

    def close(self) -> None:
        self._guard.leave(self._guard.policy.settings.send)


class Guard(Connection):
    """The protocol class: bytes in, requests to the application."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        policy: Policy,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop, policy=policy)
        self._body: Body = _NO_BODY
        self._stays = False  # the running request leaves the connection open, as far as it has a say in it
        self._fresh = True  # no request was answered yet

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.HEAD:
            self._take_head(data)
        elif self.phase is Phase.BODY:
            self._take_body(data)
        else:
            self._drop(len(data))

    def _take_head(self, segment: bytes) -> None:
        since = len(self.pending)
        received = self.pending + segment
        end = received.find(b"\r\n\r\n", max(0, since - 3)) + 4
        try:
            if self.unwelcome is not None:
                raise self.unwelcome
            if end < 4:
                judge_partial(received, since, self.policy.head)
                self._wait_for_head(received)
            else:
                self.pending = b""
                self._begin(judge(received, end, self.policy.head), received[end:])
        except Refusal as refusal:
            self.refuse_head(refusal, received)

    def _wait_for_head(self, received: bytes) -> None:
        if not self.pending and not self._fresh:
            self.go(Phase.HEAD, time.monotonic() + self.policy.settings.head_timeout)
        self.pending = received

    def _begin(self, head: Head, rest: bytes) -> None:
        """Start the application on a good head, with as much of the body as has come. Raises `Refusal`."""
        limit = self.policy.settings.max_body
        if head.length > limit:
            raise too_large()
        body: Body = _NO_BODY
        content = b""
        if head.length:
            body = Chunked(limit) if head.length == CHUNKED else Counted(head.length)
            content = body.feed(rest)
            rest = body.behind
        whole = body.whole
        self._body = body
        self._stays = head.keep_alive and not self.policy.census.closing
        self._open(head, whole)
        if whole:
            self.go(Phase.ANSWER, NEVER)
        else:
            self.body_size = max(head.length, 0)
            self.go(Phase.BODY, time.monotonic() + self.policy.settings.body_timeout)
        self._deliver(content, whole)
        if whole and rest:
            self._drop(len(rest))
        self._start_asgi_task(self.cycle, self.app)

    def _open(self, head: Head, whole: bool) -> None:
        """Make the request's scope and uvicorn's cycle for it."""
        self.scope = self._scope(head)
        self.cycle = RequestResponseCycle(
            scope=self.scope,
            transport=_Exit(self),  # type: ignore[arg-type]
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects and not whole,
            keep_alive=self._stays and whole,  # an answer to half a request says that the connection ends with it
            on_response=self.on_response_complete,
        )
        self.edge = EdgeRequest(self)
        self.scope["extensions"] = {EXTENSION: self.edge}  # type: ignore[dict-item]

    def _scope(self, head: Head) -> Any:
        path = head.path.decode("ascii")
        return {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": head.version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": head.method,
            "root_path": self.root_path,
            "path": self.root_path + (unquote(path) if "%" in path else path),
            "raw_path": self.root_path.encode("ascii") + head.path,
            "query_string": head.query,
            "headers": head.fields,
            "state": self.app_state.copy(),
        }

    def _take_body(self, segment: bytes) -> None:
        body = self._body
        try:
            content = body.feed(segment)
        except Refusal as refusal:
            self.refuse_late(refusal)
            return
        if isinstance(body, Chunked):
            self.body_size += len(content)
        if body.whole:
            self.cycle.keep_alive = self._stays and not self.cycle.response_started
            self.go(Phase.ANSWER, NEVER)
            if body.behind:
                self._drop(len(body.behind))
        self._deliver(content, body.whole)

    def _deliver(self, content: bytes, whole: bool) -> None:
        cycle = self.cycle
        cycle.body += content
        if whole:
            cycle.more_body = False
        elif len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def _drop(self, count: int) -> None:
        """Take note of bytes that nobody will read: behind a running request, or after the last answer.

        Reading goes on, because a connection that is not read does not show its client's leaving.
        """
        self.surplus += count
        if self.phase is Phase.ANSWER:
            self.cycle.keep_alive = False
        if self.surplus <= MAX_SURPLUS:
            return
        if self.phase is Phase.ANSWER:
            self.lose(Lost.CLOSED)
            self.reset()
        else:
            self.flow.pause_reading()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self.forget_request()
        if self.phase is Phase.LEAVING or self.transport.is_closing():
            return
        self._fresh = False
        self.go(Phase.HEAD, time.monotonic() + self.policy.settings.keep_alive)

    def forget_request(self) -> None:
        super().forget_request()
        self._body = _NO_BODY

    def shutdown(self) -> None:
        """Close when idle, or after the running request's answer."""
        self._stays = False
        super().shutdown()

    def refuse_head(self, refusal: Refusal, received: bytes) -> None:
        """Refuse a request that the application has not seen."""
        self.pending = b""
        self.count(refusal.reason)
        self.refuse(refusal, path_of(received), head_only=received.startswith(b"HEAD "))

    def refuse_late(self, refusal: Refusal) -> None:
        """Refuse a request that the application is already reading: it sees the client leave, and why in `late`."""
        cycle, edge, raw_path = self.cycle, self.edge, self.scope["raw_path"]
        if edge is not None:
            edge.late = refusal
        unanswered = not cycle.response_started
        cycle.disconnected = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        if self.outlet is not None:
            self.outlet.gone(Lost.CLOSED)
        if unanswered:
            self.refuse(refusal, raw_path, head_only=self.scope["method"] == "HEAD")
        else:
            self.reset()  # an answer is on its way; a second one inside it would be worse than none
