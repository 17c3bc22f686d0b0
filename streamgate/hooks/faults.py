"""What a plugin refuses or breaks before there is a stream, as the rest of the gateway knows it."""

from __future__ import annotations

from streamgate.errors import PluginFailed, Reason, Refusal, StreamgateError
from streamgate.hooks.values import Refuse


class NotStarted(StreamgateError):
    """A plugin's `startup` failed: the gateway does not start."""


WAIT = 5.0  # s: a breaker tries again after 30, other replicas may be well at once


def refusal_of(raised: Refuse | PluginFailed) -> Refusal:
    """The refusal of this request."""
    if isinstance(raised, PluginFailed):
        return Refusal(Reason.PLUGIN, raised.status, raised.message, code=raised.code, retry_after=WAIT)
    headers = tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in raised.headers.items())
    return Refusal(
        Reason.PLUGIN, raised.status, raised.message, code=raised.code, retry_after=raised.retry_after, headers=headers
    )
