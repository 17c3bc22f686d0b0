"""Server-sent events for Starlette: a response with heartbeats, deadlines and prompt cancellation, and the codec.

Owns: events and their bytes, frames, the client's side of a stream, one timer per loop for all deadlines. Every name of
sse-starlette is here. Must not know: the rest of streamgate, models, metrics, uvicorn.
"""

from streamgate import __version__
from streamgate.sse.account import Account, Drain, Ending, StreamObserver
from streamgate.sse.broadcast import Broadcast, Slow, Subscription
from streamgate.sse.channel import Channel
from streamgate.sse.clocks import Clocks
from streamgate.sse.compression import CompressedStreamError
from streamgate.sse.content import AsyncContentStream, Content, ContentStream, SyncContentStream
from streamgate.sse.event import JSONServerSentEvent, ServerSentEvent, SSEError, ensure_bytes
from streamgate.sse.life import SendTimeoutError
from streamgate.sse.models import event_stream, model_events
from streamgate.sse.outlet import Farewell, Feed, Lost, Outlet, OutletSettings, Sink, Source
from streamgate.sse.parser import EventStreamParser, EventTooLong, aiter_events, iter_events
from streamgate.sse.request import last_event_id
from streamgate.sse.response import EventSourceResponse
from streamgate.sse.shutdown import AppStatus, StreamGroup

__all__ = [
    "Account",
    "AppStatus",
    "AsyncContentStream",
    "Broadcast",
    "Channel",
    "Clocks",
    "CompressedStreamError",
    "Content",
    "ContentStream",
    "Drain",
    "Ending",
    "EventSourceResponse",
    "EventStreamParser",
    "EventTooLong",
    "Farewell",
    "Feed",
    "JSONServerSentEvent",
    "Lost",
    "Outlet",
    "OutletSettings",
    "SSEError",
    "SendTimeoutError",
    "ServerSentEvent",
    "Sink",
    "Slow",
    "Source",
    "StreamGroup",
    "StreamObserver",
    "Subscription",
    "SyncContentStream",
    "__version__",
    "aiter_events",
    "ensure_bytes",
    "event_stream",
    "iter_events",
    "last_event_id",
    "model_events",
]
