"""Event streams as OpenTelemetry spans, by the API alone: the SDK and the exporter are the application's choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never, cast

from opentelemetry import trace
from starlette.types import Scope

from streamgate import __version__
from streamgate.observe.sse_routes import route_template
from streamgate.sse.account import Account, Ending


class TracingObserver:
    """One OpenTelemetry span for each stream, from its start to its end, a child of the span that is current there.

    Named "sse" and the route. Attributes: `http.route`, `sse.events`, `sse.bytes`, `sse.pings`, `sse.ending`, and in
    seconds `sse.time_to_first_event`, `sse.longest_gap`, `sse.slowest_send` where there was one; the first event is the
    span event `sse.first_event`. A stream that failed has the status ERROR, `error.type` and the exception. A client
    that left, a shutdown and a cancelled request are no errors. Without a provider the global one is used; without an
    SDK it does nothing. The span is never the current one: what the content does is its sibling.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        *,
        route: Callable[[Scope], str] = route_template,
    ) -> None:
        self._tracer = trace.get_tracer("streamgate.sse", __version__, tracer_provider)
        self._route = route
        self._spans: dict[Account, trace.Span] = {}

    def opened(self, account: Account) -> None:
        route = self._route(cast(Scope, account.scope))
        self._spans[account] = self._tracer.start_span(f"sse {route}", attributes={"http.route": route})

    def first_event(self, account: Account) -> None:
        if account in self._spans:
            self._spans[account].add_event("sse.first_event")

    def closed(self, account: Account) -> None:
        span = self._spans.pop(account, None)
        if span is None:
            return
        if span.is_recording():
            span.set_attributes(attributes(account))
            if account.ending is not None and failed(account.ending):
                blame(span, account.ending, account.error)
        span.end()


def attributes(account: Account) -> dict[str, str | int | float]:
    """What a span says at its end; times that never happened are left out."""
    first = account.first_event_at - account.opened_at if account.first_event_at else 0.0
    times = {
        "sse.time_to_first_event": first,
        "sse.longest_gap": account.longest_gap,
        "sse.slowest_send": account.slowest_send,
    }
    return {
        "sse.events": account.events,
        "sse.bytes": account.bytes,
        "sse.pings": account.pings,
        "sse.ending": account.ending.value if account.ending is not None else "",
        **{name: seconds for name, seconds in times.items() if seconds},
    }


def blame(span: trace.Span, ending: Ending, error: BaseException | None) -> None:
    span.set_status(trace.Status(trace.StatusCode.ERROR, ending.value))
    if error is None:
        span.set_attribute("error.type", ending.value)
    else:
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        span.set_attribute("error.type", name)
        span.record_exception(error)


def failed(ending: Ending) -> bool:
    """Whether somebody on the server's side should look at it."""
    match ending:
        case Ending.COMPLETE | Ending.CLIENT_DISCONNECT | Ending.SHUTDOWN | Ending.CANCELLED:
            return False
        case (
            Ending.SEND_TIMEOUT | Ending.CONTENT_ERROR | Ending.ENCODE_ERROR | Ending.SEND_ERROR | Ending.CALLBACK_ERROR
        ):
            return True
        case other:
            assert_never(other)
