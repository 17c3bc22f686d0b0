"""What a store of sums is asked. Plain calls, from one thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from streamgate_budget.amounts import Account, Amount


class Batch(NamedTuple):
    """Charges that are written together, once: a batch that is tried again has the same `id`."""

    id: str
    charges: Mapping[Account, Amount]


class Books(Protocol):
    """Sums by account, shared by all workers. Every call but `close` raises `Unavailable`."""

    def open(self) -> None:
        """Before anything else. Raises where it would be a mistake to start."""
        ...

    def write(self, batch: Batch) -> None: ...
    def read(self, accounts: Iterable[Account]) -> dict[Account, Amount]: ...
    def close(self) -> None: ...
