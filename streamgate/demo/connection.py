"""One client connection of the demo upstream: plays moves, without tasks.

A client's FIN or RST is seen at once, also in silence: the connection always reads, and its next move is a timer.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from itertools import repeat
from typing import NamedTuple, cast

from streamgate.demo.account import Account
from streamgate.demo.request import BadRequest, Cutter, Request
from streamgate.demo.turns import Act, Moves

# Others' turn after so many writes: 64 events of a busy stream are a millisecond.
WRITES_PER_TURN = 64

_LINGER_ZERO = struct.pack("ii", 1, 0)


class Play(NamedTuple):
    """What is done for one request; `rid` None: it does not count as a stream."""

    moves: Moves
    rid: str | None


class Connection(asyncio.Protocol):
    """One client connection: cuts requests, plays their moves one after the other, notices when the client leaves."""

    def __init__(self, account: Account, play: Callable[[Request], Play], loop: asyncio.AbstractEventLoop) -> None:
        self._account = account
        self._play = play
        self._loop = loop
        self._transport: asyncio.Transport
        self._cutter = Cutter()
        self._moves: Moves | None = None
        self._timer: asyncio.Handle | None = None
        self._due = 0.0
        self._blocked = False
        self._stale = False
        self._abrupt = False
        self._rid: str | None = None  # of the stream being played

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._account.opened(self._transport)

    def data_received(self, data: bytes) -> None:
        self._cutter.feed(data)
        if self._moves is None:
            self._next()

    def eof_received(self) -> None:
        self._left()
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()
        self._account.closed(self._transport, bytes(self._cutter.rest))

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        if self._moves is not None and self._timer is None:
            self._timer = self._loop.call_soon(self._step)

    # One request after the other.

    def _next(self) -> None:
        """Begin the next whole request, if there is one."""
        try:
            request = self._cutter.take()
        except BadRequest:
            self._cutter.rest.clear()
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self._transport.close()
            return
        if request is None:
            return
        if self._stale:
            self._transport.close()
            return
        self._moves, self._rid = self._play(request)
        if self._rid is not None:
            self._account.begun(self._rid)
        self._due = self._loop.time()
        self._step()

    def _step(self) -> None:
        """Make moves until one takes time, the client does not drain, or it is others' turn."""
        self._timer = None
        playing = self._moves
        for _ in range(WRITES_PER_TURN):
            if playing is None or self._moves is not playing or self._blocked:
                return
            move = next(playing, None)
            if isinstance(move, bytes):
                self._transport.write(move)
            elif isinstance(move, float):
                self._wait(move)
                return
            elif move is None:
                self._finished()
            elif not self._act(move):
                return
        self._timer = self._loop.call_soon(self._step)

    def _wait(self, seconds: float) -> None:
        """The pace is kept on average: a late timer makes the next wait shorter."""
        if not seconds:
            self._timer = self._loop.call_soon(self._step)
            return
        self._due = max(self._due + seconds, self._loop.time())
        self._timer = self._loop.call_at(self._due, self._step)

    def _act(self, act: Act) -> bool:
        """Whether moves go on."""
        match act:
            case Act.ANSWERED:
                self._end(aborted=False)
            case Act.STALE:
                self._stale = True
            case Act.ABRUPT:
                self._abrupt = True
            case Act.HANG:
                self._moves = repeat(Act.HANG)  # whatever wakes it, it goes on hanging
                return False
            case Act.CLOSE:
                self._close(reset=False)
                return False
            case Act.RESET:
                self._close(reset=True)
                return False
        return True

    def _finished(self) -> None:
        self._moves = None
        self._end(aborted=False)
        self._loop.call_soon(self._next_if_idle)

    def _next_if_idle(self) -> None:
        if self._moves is None and not self._transport.is_closing():
            self._next()

    def _close(self, *, reset: bool) -> None:
        self._moves = None
        self._end(aborted=False)
        if reset:
            found: socket.socket | None = self._transport.get_extra_info("socket")
            if found is not None:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        if reset or self._abrupt:
            self._transport.abort()
        else:
            self._transport.close()

    def _left(self) -> None:
        """The client left: what was being played to it is over."""
        self._moves = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._end(aborted=True)

    def _end(self, *, aborted: bool) -> None:
        """The stream being played has ended; only its first end counts."""
        if self._rid is not None:
            rid, self._rid = self._rid, None
            self._account.ended(rid, aborted=aborted)
