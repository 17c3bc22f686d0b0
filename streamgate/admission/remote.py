"""The seam between the gate and limits that several replicas share: what is asked of a store, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from streamgate.admission.claim import Bound, Claim


class Answer(Enum):
    """What the store says."""

    TAKEN = "taken"
    FULL = "full"
    RATE = "rate"
    UNAVAILABLE = "unavailable"  # fail closed, and the store does not answer


@dataclass(frozen=True, slots=True)
class Verdict:
    """`bound`: which level denied. `retry_after`: seconds until a rate has room. `upstream`: the chosen one."""

    answer: Answer
    bound: Bound | None = None
    retry_after: float = 0.0
    upstream: str = ""


class Remote(Protocol):
    """Limits that hold across replicas."""

    async def take(self, lease: str, claim: Claim, tokens: int, order: Sequence[str]) -> Verdict:
        """Bounded in time by itself; safe to cancel: a take that was executed is given back."""

    async def move(self, lease: str, claim: Claim, upstream: str) -> bool:
        """Exchange the upstream's slot for another's; False: that one is full."""

    def give_back(self, lease: str, claim: Claim) -> None:
        """A plain call, queued, never lost while the process lives."""

    def settle(self, claim: Claim, tokens: int, upstream: str = "") -> None:
        """Add a difference (it may be negative) to the tokens used, those of this upstream included; a plain call,
        queued."""

    def on_freed(self, wake: Callable[[], None]) -> None:
        """`wake` is called when another replica freed something."""
