"""The only reader of `http.disconnect`.

A server's `send` may return in silence after the client is gone (uvicorn's does), so the news can only come from
`receive`, and somebody must be listening from the moment the request is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
from starlette.types import Message, Receive, Scope

# Messages that are taken at once: the rest of a body comes in pieces. After these each waits, or a `receive` that
# answers `http.request` for ever would own the loop (seen in test clients and in third-party middleware).
AT_ONCE: Final = 8
PAUSE: Final = 0.1  # s; so late may a disconnect be seen behind such a `receive`


async def disconnect(receive: Receive) -> Message:
    """Wait until the client has disconnected and give the message; others (an unread body) are dropped."""
    seen = 0
    while True:
        message = await receive()
        if message["type"] in {"http.disconnect", "websocket.disconnect"}:
            return message
        seen += 1
        await anyio.sleep(0 if seen <= AT_ONCE else PAUSE)


def told_by_send(error: Exception, scope: Scope) -> bool:
    """Whether this is how the server says that the client is gone: an OSError out of `send`, from ASGI 2.4 on."""
    version = str(scope.get("asgi", {}).get("spec_version", "2.0"))
    return isinstance(error, OSError) and tuple(int(part) for part in version.split(".")) >= (2, 4)


async def listen(receive: Receive, gone: Callable[[], None]) -> None:
    """Call `gone` once the client has disconnected."""
    await disconnect(receive)
    gone()
