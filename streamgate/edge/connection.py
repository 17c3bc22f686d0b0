"""One client connection: whether it may enter, its phase and its one deadline, how it is lost, how it closes.

What its bytes mean is `guard`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from enum import Enum
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from streamgate.edge.answer import refusal_bytes
from streamgate.edge.census import address_key, past_telling, why_not
from streamgate.edge.outlet import EdgeOutlet, EdgeRequest
from streamgate.edge.policy import Policy
from streamgate.errors import Reason, Refusal
from streamgate.sse.clocks import NEVER, Watch, clocks_of
from streamgate.sse.outlet import HIGH_WATER, Lost

LINGER = 0.5  # s that a refused client has to read why, before its unread bytes turn the close into an RST
UNWELCOME = 1.0  # s that a connection above the limits has to say what it wants, and be refused that
BODY_RATE = 65536.0  # bytes per second that a body must keep up beyond `body_timeout`
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() drops the kernel's buffer too, and sends an RST


class Phase(Enum):
    """What the next bytes of a connection are."""

    HEAD = "head"  # a request head, or the rest of one
    BODY = "body"  # the running request's body
    ANSWER = "answer"  # surplus: the request is whole and its response is not
    LEAVING = "leaving"  # nothing any more: the last answer was given


class Connection(HttpToolsProtocol):
    """One client connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        policy: Policy,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = None  # type: ignore[assignment]  # the bytes have one reader: see `head`
        self.policy = policy
        self.phase = Phase.HEAD
        self.outlet: EdgeOutlet | None = None
        self.edge: EdgeRequest | None = None
        self.unwelcome: Refusal | None = None
        self.pending = b""  # of a head that is not complete
        self.body_size = 0  # bytes: declared, or received so far when it is chunked
        self.surplus = 0  # bytes that were read and dropped
        self._patience = policy.settings.send
        self._address: str | None = None  # as the census knows it, once it let us in
        self._due = NEVER
        self._watch: Watch | None = None

    # Coming and going.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        policy = self.policy
        address = address_key(self.client[0]) if self.client else ""
        descriptor = transport.get_extra_info("socket").fileno()
        self.unwelcome = why_not(policy.census, policy.limits, address, descriptor)
        self._due = time.monotonic() + (UNWELCOME if self.unwelcome else policy.settings.head_timeout)
        self._watch = clocks_of(self.loop).watch(self, self._due)
        if self.unwelcome is None:
            policy.census.enter(address)
            self._address = address
        elif past_telling(policy.limits, descriptor):
            self.count(self.unwelcome.reason)
            self.reset()

    def connection_lost(self, exc: Exception | None) -> None:
        # ETIMEDOUT: the kernel gave up on a peer that acknowledged nothing for the whole TCP_USER_TIMEOUT.
        self.lose(Lost.SLOW if isinstance(exc, TimeoutError) else Lost.CLOSED)
        super().connection_lost(exc)
        if self._address is not None:
            self.policy.census.leave(self._address)
            self._address = None
        if self._watch is not None:
            self._watch.forget()
            self._watch = None
        self.phase = Phase.LEAVING
        self.forget_request()

    def eof_received(self) -> None:
        """A client that stops sending while it waits for its answer is taken for gone, at once, in every phase."""
        if self.cycle is not None and self.phase is not Phase.LEAVING:
            self.lose(Lost.CLOSED)
            self.reset()

    def lose(self, lost: Lost) -> None:
        """Tell the running request that its client is lost; the first reason stands."""
        if self.edge is not None and self.edge.lost is None:
            self.edge.lost = lost
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.outlet is not None:
            self.outlet.gone(lost)

    def reset(self) -> None:
        self._set_option(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.go(Phase.LEAVING, NEVER)
        self.transport.abort()

    def leave(self, send: float) -> None:
        if self.phase is Phase.LEAVING or self.transport.is_closing():
            return
        now = time.monotonic()
        if self.phase is Phase.ANSWER and not self.surplus:
            patience = send or self.policy.settings.send
            self.go(Phase.LEAVING, now + patience if patience else NEVER)  # 0: the send clock is off
            self.transport.close()
            return
        # Bytes that nobody read would turn the close into an RST, and that can overtake the answer.
        self.go(Phase.LEAVING, now + LINGER)
        self.flow.resume_reading()
        with contextlib.suppress(OSError):  # the peer may be gone already
            if self.transport.can_write_eof():
                self.transport.write_eof()

    def refuse(self, refusal: Refusal, path: bytes = b"", *, head_only: bool = False) -> None:
        """Answer in the edge's own words, and leave."""
        body = self.policy.error_body(path, refusal)
        answer = refusal_bytes(refusal, body, self.server_state.default_headers, head_only=head_only)
        self.transport.write(answer)
        self.leave(self.policy.settings.send)

    def count(self, reason: Reason) -> None:
        self.policy.census.refused[reason] += 1
        self.policy.refused(reason)

    def forget_request(self) -> None:
        """Refer to nothing of the last request: an idle connection is as small as a new one."""
        self.cycle = self.scope = self.headers = self.edge = None  # type: ignore[assignment]
        self.surplus = self.body_size = 0

    # The client's side of the flow.
    def pause_writing(self) -> None:
        self.flow.pause_writing()  # also beside an outlet, so that the next request here finds the truth
        if self.outlet is not None:
            self.outlet.full()

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        if self.outlet is not None:
            self.outlet.drained()

    def give_up_after(self, send: float) -> None:
        if send != self._patience:
            self._patience = send
            self._set_option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(send * 1000))

    def _set_option(self, level: int, option: int, value: int | bytes) -> None:
        with contextlib.suppress(OSError):  # the peer may be gone already
            self.transport.get_extra_info("socket").setsockopt(level, option, value)

    # The clock.
    def go(self, phase: Phase, due: float) -> None:
        self.phase = phase
        self._due = due
        if self._watch is not None:
            self._watch.hasten(due)

    def look(self, now: float) -> float:
        """Head, body, keep-alive and linger clocks: see `Watched`."""
        if self.phase is Phase.BODY:
            if self.flow.read_paused:  # it is the application that is slow: the client gets its time anew
                self._due = now + self.policy.settings.body_timeout
            due = self._due + self.body_size / BODY_RATE
            if now < due:
                return due
        if now >= self._due:
            self._overdue(now)
        return self._due

    def _overdue(self, now: float) -> None:
        if self.phase is Phase.BODY:
            self.refuse_late(_timeout("The request body took too long to arrive."))
        elif self.phase is Phase.HEAD and (self.unwelcome is not None or self.pending):
            self.refuse_head(self.unwelcome or _timeout("The request head took too long to arrive."), self.pending)
        elif self.phase is Phase.LEAVING and not self.transport.is_closing():
            patience = self.policy.settings.send
            self._due = now + patience if patience else NEVER
            self.transport.close()
        elif self.transport.get_write_buffer_size():
            self.reset()  # nobody takes what was written
        else:
            self.go(Phase.LEAVING, NEVER)
            self.transport.close()

    def refuse_head(self, refusal: Refusal, received: bytes) -> None:
        raise NotImplementedError

    def refuse_late(self, refusal: Refusal) -> None:
        raise NotImplementedError


def _timeout(message: str) -> Refusal:
    return Refusal(Reason.BODY_TIMEOUT, 408, message, code="request_timeout")
