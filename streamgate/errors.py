"""The one tree of errors, named by who is at fault and mapped to statuses at one seam (`relay.reply`).

    StreamgateError
    +-- Refusal            the request never became a stream; counted by `Reason`
    +-- Fault              an exchange, or the stream itself, went wrong; becomes an outcome

A message is safe for any client. `detail` may hold addresses and other people's text: it goes to the log, never out.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class StreamgateError(Exception):
    """Base of everything streamgate raises on purpose."""


class Reason(StrEnum):
    """Why a request was refused; the `reason` label of `streamgate_requests_rejected_total`."""

    AUTH = "auth"
    FORBIDDEN = "forbidden"
    BAD_REQUEST = "bad_request"
    UNSUPPORTED = "unsupported"
    NOT_FOUND = "not_found"
    METHOD = "method"
    TOO_LARGE = "too_large"
    BODY_TIMEOUT = "body_timeout"
    RATE = "rate"
    CONCURRENCY = "concurrency"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    OVERLOAD = "overload"
    DRAINING = "draining"
    NO_UPSTREAM = "no_upstream"
    PLUGIN = "plugin"
    CLIENT_LEFT = "client_left"


class Refusal(StreamgateError):
    """A request that is answered without a stream: a status, a machine-readable code, and a sentence.

    `retry_after` is in seconds; the reply says at most 60, because one SDK sleeps whatever it is told.
    """

    def __init__(
        self,
        reason: Reason,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.message = message
        self.code = code or reason.value
        self.param = param
        self.retry_after = retry_after
        self.headers = headers


class Fault(StreamgateError):
    """Something went wrong after a stream had its lease.

    `status` answers when nothing was sent yet; `kind` is the attempt's metric label; `retryable` says whether another
    try may be made while nothing semantic has been sent; `ejects` whether it counts against the upstream's health.
    """

    status: ClassVar[int] = 502
    code: ClassVar[str] = "upstream_error"
    kind: ClassVar[str] = "error"
    message: ClassVar[str] = "The upstream failed."
    retryable: ClassVar[bool] = True
    ejects: ClassVar[bool] = True

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.message)
        self.detail = detail


class Unreachable(Fault):
    code, kind, message = "upstream_unreachable", "connect_error", "The upstream could not be reached."


class ConnectTimeout(Unreachable):
    status, code, kind = 504, "upstream_connect_timeout", "connect_timeout"
    message = "The upstream did not accept a connection in time."


class NameNotResolved(Unreachable):
    code, kind = "upstream_unreachable", "dns_error"


class TlsRefused(Unreachable):
    code, kind, message = "upstream_tls", "tls_error", "No trusted connection to the upstream could be made."


class Reset(Fault):
    code, kind, message = "upstream_reset", "reset", "The upstream broke the connection."


class ClosedEarly(Fault):
    """The connection ended before a response head was complete."""

    code, kind, message = "upstream_closed", "eof", "The upstream closed the connection without an answer."


class Stale(ClosedEarly):
    """A pooled connection died before any byte of the response: tried again once on a fresh one, at no cost."""

    kind, ejects = "stale", False


class Garbled(Fault):
    code, kind, message = "upstream_protocol", "protocol", "The upstream's answer was not valid HTTP."


class Encoded(Fault):
    code, kind, message = (
        "upstream_encoding",
        "protocol",
        "The upstream compressed its answer although it was asked not to.",
    )


class Redirected(Fault):
    code, kind, retryable = "upstream_redirect", "3xx", False
    message = "The upstream answered with a redirect, which is never followed."


class WrongContent(Fault):
    code, kind, message = (
        "upstream_content_type",
        "protocol",
        "The upstream's answer is not of a kind that can be relayed.",
    )


class Empty(Fault):
    code, kind, message = "upstream_empty", "empty", "The upstream's answer was empty."


class Truncated(Fault):
    code, kind, message = "upstream_truncated", "eof", "The upstream's answer ended before it was complete."


class EventTooLarge(Fault):
    code, kind, retryable = "event_too_large", "protocol", False
    message = "The upstream sent an event larger than the limit."


class FirstTokenTimeout(Fault):
    status, code, kind = 504, "first_token_timeout", "timeout"
    message = "The upstream did not begin its answer in time."


class IdleTimeout(Fault):
    status, code, kind, retryable = 504, "idle_timeout", "timeout", False
    message = "The upstream stopped in the middle of its answer."


class Deadline(Fault):
    status, code, kind, retryable, ejects = 504, "deadline", "timeout", False, False
    message = "The answer took longer than the time allowed for it."


class ErrorEvent(Fault):
    """The upstream reported an error in words of its own, inside a 200; `said` is its message and may be passed on."""

    kind = "error_event"

    def __init__(self, said: str = "", *, code: str | None = None, frame: bytes | None = None) -> None:
        super().__init__(said)
        self.said = said
        self.said_code = code
        self.frame = frame


class BadStatus(Fault):
    """An answer with a 4xx or 5xx status; the body is kept when it may be passed on as it is."""

    def __init__(
        self, answered: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes, *, retry_after: float | None = None
    ) -> None:
        super().__init__(f"status {answered}")
        self.answered = answered
        self.headers = headers
        self.body = body
        self.retry_after = retry_after

    @property
    def blames_upstream(self) -> bool:
        """Other 4xx are about the request."""
        return self.answered >= 500 or self.answered == 429


class KeyRejected(Fault):
    """401 or 403 for the gateway's own key: the operator's problem, so the client is not told the words."""

    code, kind, retryable = "upstream_auth", "4xx", True
    message = "The upstream did not accept the gateway's credentials."


class Drained(Fault):
    status, code, kind, retryable, ejects = 503, "gateway_draining", "drained", False, False
    message = "The gateway is shutting down; please try again."


class Killed(Fault):
    status, code, kind, retryable, ejects = 503, "killed", "killed", False, False
    message = "The stream was ended by an operator."


class Internal(Fault):
    """A fault of streamgate's own; `detail` says where, the client is only told that it was not their doing."""

    status, code, kind, retryable, ejects = 500, "internal_error", "internal", False, False
    message = "The gateway failed; the request was not at fault."


class Aborted(ErrorEvent):
    """A plugin ended the stream, in its own words. 403 before the first byte: SDKs do not try that again."""

    status, code, kind, retryable, ejects = 403, "plugin_abort", "plugin", False, False
    message = "The stream was ended by a plugin of the gateway."


class PluginFailed(Fault):
    """A plugin failed whose failures are not to be passed over; `detail` names it and its hook."""

    status, code, kind, retryable, ejects = 503, "plugin_failed", "plugin", False, False
    message = "The gateway failed in one of its plugins; the request was not at fault."
