"""The upstreams as the relay uses them: where, with which credentials, in which order, and how they have been doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from streamgate.routing.balance import order
from streamgate.routing.ejection import Circuit, Ejections
from streamgate.routing.table import Route
from streamgate.upstream.client import Origin

if TYPE_CHECKING:
    from streamgate.relay.request import Request


class Load:
    """How many tries are running against one upstream: a plain `with`."""

    __slots__ = ("active",)

    def __init__(self) -> None:
        self.active = 0

    def __enter__(self) -> None:
        self.active += 1

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.active -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One upstream. `key` is the gateway's own; `client_key` passes the client's on; neither sends none."""

    name: str
    origin: Origin
    key: str | None = None
    client_key: bool = False
    weight: float = 1.0
    connect: float = 5.0
    load: Load = field(default_factory=Load)

    def headers(self, request: Request) -> tuple[tuple[bytes, bytes], ...]:
        if self.client_key:
            return request.headers + request.credentials
        if self.key is not None:
            # Both names: OpenAI-style servers read the first, Anthropic-style ones the second.
            key = self.key.encode()
            return (*request.headers, (b"authorization", b"Bearer " + key), (b"x-api-key", key))
        return request.headers


class Targets:
    """All upstreams by name, and their health."""

    def __init__(self, targets: Mapping[str, Target], ejections: Ejections) -> None:
        self._targets = dict(targets)
        self._ejections = ejections
        self._weights = {name: target.weight for name, target in targets.items()}
        # Of each route: with one count for all, two routes that take turns would each get every other upstream only.
        self._turns: dict[Route, int] = {}

    def __getitem__(self, name: str) -> Target:
        return self._targets[name]

    def order(self, route: Route, now: float) -> list[Target]:
        """The whole order of tries for one stream."""
        names = route.upstreams
        if len(names) == 1:
            return [self._targets[names[0]]]
        turn = self._turns[route] = self._turns.get(route, 0) + 1
        active = {name: self._targets[name].load.active for name in names}
        chosen = order(
            names,
            route.balance,
            active=active,
            weights=self._weights,
            turn=turn,
            ejected=self._ejections.ejected(now),
        )
        return [self._targets[name] for name in chosen]

    def failed(self, name: str, now: float) -> bool:
        """True: it is left out from now on."""
        return self._ejections.failed(name, now)

    def succeeded(self, name: str) -> bool:
        """True: it is trusted again."""
        return self._ejections.succeeded(name)

    def standing(self, now: float) -> dict[str, tuple[int, float]]:
        """By upstream: failures in a row, and for how many more seconds it is ejected; 0.0: it is not."""
        return {name: self._ejections.standing(name, now) for name in self._targets}

    def active(self) -> dict[str, int]:
        """Tries running now, by upstream."""
        return {name: target.load.active for name, target in self._targets.items()}

    def circuits(self, now: float) -> dict[str, Circuit]:
        """How each upstream stands."""
        return {name: self._ejections.circuit(name, now) for name in self._targets}
