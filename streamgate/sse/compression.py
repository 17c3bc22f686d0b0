"""Events behind a compressing middleware: let through where it does so by itself, refused where it would hold them.

Starlette's GZipMiddleware leaves `text/event-stream` alone (since 0.46), but older releases withhold the head of every
response until the first piece of body: an empty piece at once brings the head out. Under any other content type it
would compress, and a compressor gives nothing out until its window is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.types import Scope

from streamgate.sse.event import SSEError

COMPRESSING = frozenset(("GZipMiddleware", "BrotliMiddleware", "ZstdMiddleware", "CompressMiddleware"))
EVENTS = b"text/event-stream"


class CompressedStreamError(SSEError):
    """A compressing middleware would hold the events back."""


def needs_nudge(scope: Scope, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether an empty piece of body must bring the head out. Raises `CompressedStreamError`."""
    names = compressing(scope.get("app"))
    if not names:
        return False
    fields = dict(headers)
    if fields.get(b"content-type", b"").partition(b";")[0].strip() != EVENTS and b"content-encoding" not in fields:
        raise CompressedStreamError(
            f"{names[0]} would hold this stream's events back: answer with content-type text/event-stream, "
            "or set content-encoding: identity"
        )
    return True


def compressing(app: Any) -> list[str]:
    """The compressing middleware of a Starlette application, by name."""
    names = [getattr(entry.cls, "__name__", "") for entry in getattr(app, "user_middleware", ())]
    return [name for name in names if name in COMPRESSING]
