"""Where a claim's limits are kept in Redis, and how its answers read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamgate.admission.claim import Bound, Claim, Level, Limits
from streamgate.admission.remote import Answer, Verdict


@dataclass(frozen=True, slots=True)
class Place:
    """One bound's keys and limits, ready to send."""

    bound: Bound
    slots: bytes
    rates: bytes

    @property
    def limits(self) -> tuple[int, int, int]:
        limits = self.bound.limits
        return (limits.concurrent, limits.requests_per_minute, limits.tokens_per_minute)


@dataclass(frozen=True, slots=True)
class Plan:
    """A claim's places. `must`: all of them hold; `either`: one of these upstreams (empty: none has a limit)."""

    claim: Claim  # held, so that its identity stays its own
    must: tuple[Place, ...]
    either: dict[str, Place]

    def slots(self, upstreams: Iterable[str]) -> dict[bytes, int]:
        """The keys under which a lease with one of these upstreams has slots, and their limits."""
        places = [*self.must, *(self.either[name] for name in upstreams if name in self.either)]
        return {place.slots: place.bound.limits.concurrent for place in places if place.bound.limits.concurrent}

    def buckets(self, upstream: str) -> dict[bytes, int]:
        """The keys of its token buckets, and their limits. Without a name: the upstream's when there is but one."""
        limited = [bound.name for bound in self.claim.upstreams]
        names = [upstream] if upstream else limited if len(limited) == 1 else []
        places = [*self.must, *(self.either[name] for name in names if name in self.either)]
        return {
            place.rates: place.bound.limits.tokens_per_minute
            for place in places
            if place.bound.limits.tokens_per_minute
        }


class Places:
    """The plans of all claims under one namespace, which is the keys' hash tag."""

    # Claims are few (keys times routes) and kept by who made them; a reload makes new ones.
    REMEMBERED = 4096

    def __init__(self, namespace: str) -> None:
        if not namespace or set(namespace) & set("{}"):
            raise ValueError("expected a namespace, without braces")
        self._tag = f"{{streamgate:{namespace}}}"
        self.gone = f"{self._tag}:gone".encode()
        self.freed = f"{self._tag}:freed".encode()
        self._plans: dict[int, Plan] = {}

    def plan(self, claim: Claim) -> Plan:
        plan = self._plans.get(id(claim))
        if plan is None:
            if len(self._plans) >= self.REMEMBERED:
                self._plans.clear()
            must = tuple(self._place(bound) for bound in (*claim.own, *claim.shared) if bound.limits != Limits())
            either = {bound.name: self._place(bound) for bound in claim.upstreams}
            plan = self._plans[id(claim)] = Plan(claim, must, either)
        return plan

    def candidates(self, plan: Plan, order: Sequence[str]) -> list[Place]:
        """The upstreams to choose from, in order of preference; one that the claim does not name has no limit."""
        if not plan.either:
            return []
        names = order or [bound.name for bound in plan.claim.upstreams]
        for name in names:
            if name not in plan.either:
                plan.either[name] = self._place(Bound(Level.UPSTREAM, name, Limits()))
        return [plan.either[name] for name in names]

    def settled(self, replica: str) -> bytes:
        return f"{self._tag}:settled:{replica}".encode()

    def _place(self, bound: Bound) -> Place:
        where = f"{bound.level}:{bound.name}"
        return Place(bound, f"{self._tag}:slots:{where}".encode(), f"{self._tag}:rates:{where}".encode())


def take_keys(gone: bytes, places: Iterable[Place]) -> list[bytes]:
    return [gone, *(key for place in places for key in (place.slots, place.rates))]


def take_arguments(places: Iterable[Place]) -> list[int]:
    return [limit for place in places for limit in place.limits]


def verdict_of(reply: bytes, places: Sequence[Place]) -> Verdict:
    """What the script said of these places."""
    what, index, wait = reply.split()
    bound = places[int(index)].bound if int(index) >= 0 else None
    match what:
        case b"T":
            return Verdict(Answer.TAKEN, upstream=bound.name if bound is not None else "")
        case b"R":
            return Verdict(Answer.RATE, bound, retry_after=float(wait) / 1000)
        case _:
            return Verdict(Answer.FULL, bound)
