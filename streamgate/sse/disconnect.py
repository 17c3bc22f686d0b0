"""The only reader of `http.disconnect`.

A server's `send` may return in silence after the client is gone (uvicorn's does), so the news can only come from
`receive`, and somebody must be listening from the moment the request is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive


async def listen(receive: Receive, gone: Callable[[], None]) -> None:
    """Call `gone` once the client has disconnected; other messages (an unread body) are dropped.

    Some servers answer `receive` at once for ever after the body; yielding keeps such a listener from owning the loop.
    """
    while (await receive())["type"] != "http.disconnect":  # noqa: ASYNC110 - receive() is what is waited for
        await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop, not a wait for time
    gone()
