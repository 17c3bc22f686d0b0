"""The connection under a response, where the server lets us see it: ASGI itself cannot drop a socket.

A server closes the transport of a response that failed, and a closed transport with a full buffer lingers for as long
as the peer does not read: socket and buffers are free only when it is aborted. uvicorn's objects are known here by
what they have (`transport`, `scope`), not by their class.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any, Final

from starlette.types import Receive, Scope, Send

RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


def abort(scope: Scope, receive: Receive, send: Send) -> bool:
    """Drop the connection and what is buffered for it; whether it could be reached.

    An HTTP/2 connection is never dropped: it carries other requests.
    """
    cycle = _cycle_of(scope, receive, send) if scope.get("http_version", "1.1").startswith("1") else None
    if cycle is None:
        return False
    peer = cycle.transport.get_extra_info("socket")
    if peer is not None:
        # Reset rather than close: else the kernel keeps what was not read for as long as it retries (minutes).
        with contextlib.suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    cycle.transport.abort()
    return True


def connected(scope: Scope, receive: Receive, send: Send) -> bool:
    """Whether the server's own connection is there in spite of an `http.disconnect`.

    uvicorn 0.43 and the releases up to Kludex/uvicorn#2913 said that to every stream when the server began to shut
    down.
    """
    cycle = _cycle_of(scope, receive, send)
    return cycle is not None and not getattr(cycle, "disconnected", True) and not cycle.transport.is_closing()


def _cycle_of(scope: Scope, receive: Receive, send: Send) -> Any:
    """The server's object for this request and its answer, through whatever middleware wrapped the two callables."""
    for call in (receive, send):
        owner = getattr(call, "__self__", None)
        if _is_cycle(owner):
            return owner
    # Middleware hides it; but the server runs `owner.run_asgi(app)` in a task of this loop.
    return next((owner for owner in _running() if _same(owner.scope, scope)), None)


def _running() -> list[Any]:
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return []  # trio: hypercorn has no such object
    frames = [getattr(task.get_coro(), "cr_frame", None) for task in tasks]
    owners = [frame.f_locals.get("self") for frame in frames if frame is not None]
    return [owner for owner in owners if _is_cycle(owner)]


def _is_cycle(owner: Any) -> bool:
    return hasattr(owner, "transport") and hasattr(owner, "scope") and hasattr(owner.transport, "abort")


def _same(theirs: Scope, ours: Scope) -> bool:
    """Middleware may have copied the scope, hardly its list of headers. The client's address is no key: behind a proxy
    many connections have one."""
    return theirs is ours or (bool(ours.get("headers")) and theirs.get("headers") is ours["headers"])
