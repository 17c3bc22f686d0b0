"""What an ending says: to the next try, to the upstream's health, to the limits of tokens. Plain functions."""

from __future__ import annotations

from streamgate.errors import BadStatus, Fault, Reason, Refusal
from streamgate.record import Ending, Outcome, StreamRecord
from streamgate.relay.passage import Passage


def spent(record: StreamRecord, estimate: int, *, answered: bool) -> int:
    """The tokens that a stream used: as its upstream counted them, else about one per event; none when nothing came."""
    if record.usage is not None:
        return record.usage.input + record.usage.output
    return estimate + record.events if answered or record.events else 0


def answered_whole(passage: Passage) -> bool:
    """Whether the upstream's answer was whole; a relayed 4xx is none of the passage's."""
    until = passage.until
    return until.done() and not until.cancelled() and until.result().outcome is Outcome.COMPLETED


def left_the_queue(ending: Ending) -> Refusal:
    """Interrupted while waiting for a lease: this never became a stream."""
    if ending.outcome is Outcome.DRAINED:
        message = "The gateway is shutting down."
        return Refusal(Reason.DRAINING, 503, message, code="gateway_draining", retry_after=1.0)
    return Refusal(Reason.CLIENT_LEFT, 499, "The client left.")


def given_up(fault: Fault) -> Ending:
    """The last try's fault is the stream's; a relayed 4xx is an answer like any other."""
    if isinstance(fault, BadStatus) and fault.answered < 500:
        return Ending(Outcome.COMPLETED, fault)
    return Ending.by(fault)


def blames_upstream(fault: Fault) -> bool:
    return fault.ejects and (not isinstance(fault, BadStatus) or fault.blames_upstream)


def code_of(ending: Ending) -> str:
    """The `code` label of one attempt; `cancelled` when neither an answer nor a fault of the upstream's ended it."""
    fault = ending.fault
    if isinstance(fault, BadStatus):
        return "429" if fault.answered == 429 else f"{fault.answered // 100}xx"
    if fault is not None:
        return fault.kind
    return "2xx" if ending.outcome is Outcome.COMPLETED else "cancelled"
