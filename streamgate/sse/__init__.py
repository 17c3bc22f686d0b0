"""Server-sent events for Starlette: a response with heartbeats, deadlines and prompt cancellation, and the codec.

Owns: events and their bytes, frames, the client's side of a stream, one timer per loop for all deadlines.
Must not know: the rest of streamgate, models, metrics, uvicorn.
"""

from streamgate.sse.clocks import Clocks
from streamgate.sse.event import JSONServerSentEvent, ServerSentEvent, ensure_bytes
from streamgate.sse.outlet import Farewell, Feed, Lost, Outlet, OutletSettings, Sink, Source
from streamgate.sse.parser import EventStreamParser, aiter_events, iter_events
from streamgate.sse.response import EventSourceResponse

__all__ = [
    "Clocks",
    "EventSourceResponse",
    "EventStreamParser",
    "Farewell",
    "Feed",
    "JSONServerSentEvent",
    "Lost",
    "Outlet",
    "OutletSettings",
    "ServerSentEvent",
    "Sink",
    "Source",
    "aiter_events",
    "ensure_bytes",
    "iter_events",
]
