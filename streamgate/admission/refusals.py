"""What the ledger denies, in words for the client: which limit it is, and nothing about anybody else."""

from __future__ import annotations

from streamgate.admission.claim import Level
from streamgate.admission.ticket import Denied
from streamgate.errors import Reason, Refusal

_OWN = {Level.KEY: "this key", Level.TENANT: "this tenant"}
_SHARED = {Level.GLOBAL: "this gateway", Level.MODEL: "this model", Level.UPSTREAM: "the servers of this model"}


def refusal(denied: Denied) -> Refusal:
    """429 where the limit is the asker's own, else 503."""
    status = 429 if denied.own else 503
    return Refusal(denied.reason, status, _words(denied), retry_after=denied.retry_after)


def _words(denied: Denied) -> str:
    whose = _OWN.get(denied.level) or _SHARED[denied.level]
    match denied.reason:
        case Reason.RATE:
            return f"The {denied.unit.value} per minute of {whose} are used up."
        case Reason.QUEUE_FULL:
            return f"All streams of {whose} are in use and the queue is full."
        case Reason.QUEUE_TIMEOUT:
            return f"No stream of {whose} becomes free in time."
        case _:
            return f"All streams of {whose} are in use."


def unavailable(retry_after: float) -> Refusal:
    """The store that replicas share does not answer, and without it nothing may start."""
    message = "The limits cannot be checked at the moment."
    return Refusal(Reason.OVERLOAD, 503, message, code="limits_unavailable", retry_after=retry_after)
