"""What a claim means for the books: its bounds as the counts they refer to, found once for all of its requests. Pure.

Tenants come and go with their tokens: what nobody refers to, and would be the same if it were made again, is forgotten.
"""

from __future__ import annotations

from streamgate.admission.claim import Bound, Claim, Level
from streamgate.admission.counts import Count
from streamgate.admission.queue import Tenant
from streamgate.admission.rates import Rate

OWN = frozenset({Level.TENANT, Level.KEY})


class Terms:
    """A claim's counts. `requests` and `tokens` are its own and shared rates; `metered`: an upstream has some."""

    __slots__ = (
        "awaited",
        "claim",
        "counts",
        "line",
        "live",
        "metered",
        "own",
        "requests",
        "seats",
        "shared",
        "tenant",
        "tokens",
        "upstreams",
        "version",
        "walled",
    )

    def __init__(self, claim: Claim, tenant: Tenant, own: tuple[Count, ...], shared: tuple[Count, ...],
                 seats: tuple[Count, ...]) -> None:  # fmt: skip
        self.claim = claim  # held, so that its identity stays its own
        self.tenant = tenant
        self.own = own
        self.shared = shared
        self.seats = seats
        self.counts = own + shared
        self.awaited = shared + seats
        self.upstreams = {count.name: count for count in seats}
        self.line = (claim.tenant, claim.route)
        self.walled = any(count.level is Level.GLOBAL for count in shared)  # counts against the gateway's own limit
        self.live = 0  # requests, waiting or with a lease
        self.version = -1
        self.requests: tuple[Rate, ...] = ()
        self.tokens: tuple[Rate, ...] = ()
        self.metered = False

    def owner(self, rate: Rate) -> Count:
        """The count that this rate is of."""
        return next(count for count in self.counts if rate is count.requests or rate is count.tokens)

    def refresh(self, version: int) -> None:
        """Some limit has changed."""
        self.version = version
        self.requests = tuple(count.requests for count in self.counts if count.requests.limit)
        self.tokens = tuple(count.tokens for count in self.counts if count.tokens.limit)
        self.metered = any(count.requests.limit or count.tokens.limit for count in self.seats)


class Register:
    """All counts, tenants and terms there are."""

    KEPT = 1024  # terms; above this, and then at each doubling, the unused are forgotten

    def __init__(self) -> None:
        self.counts: dict[tuple[Level, str], Count] = {}
        self.tenants: dict[tuple[str, str], Tenant] = {}
        self.changed: list[Count] = []  # since the ledger looked: other limits hold for them
        self._terms: dict[int, Terms] = {}
        self._version = 0
        self._sweep_at = self.KEPT

    def terms(self, claim: Claim, now: float) -> Terms:
        terms = self._terms.get(id(claim))
        if terms is None:
            if len(self._terms) >= self._sweep_at:
                self.sweep(now)
            terms = self._terms[id(claim)] = self._agreed(claim)
        if terms.version != self._version:
            terms.refresh(self._version)
        return terms

    def _agreed(self, claim: Claim) -> Terms:
        own, shared, seats = (
            tuple(dict.fromkeys(self._count(bound) for bound in bounds))
            for bounds in (claim.own, claim.shared, claim.upstreams)
        )
        key = (claim.priority, claim.tenant)
        tenant = self.tenants.get(key)
        if tenant is None:
            tenant = self.tenants[key] = Tenant(*key)
        tenant.terms += 1
        for count in own + shared + seats:
            count.terms += 1
        return Terms(claim, tenant, own, shared, seats)

    def _count(self, bound: Bound) -> Count:
        """The newest claim's limits hold for all."""
        key = (bound.level, bound.name)
        count = self.counts.get(key)
        if count is None:
            count = self.counts[key] = Count(*key)
        if count.limits != bound.limits:
            count.allow(bound.limits)
            self._version += 1
            self.changed.append(count)
        return count

    def sweep(self, now: float, *, levels: frozenset[Level] = OWN) -> None:
        """Forget what is not in use: claims, tenants, and counts of these levels."""
        for terms in [each for each in self._terms.values() if not each.live]:
            del self._terms[id(terms.claim)]
            terms.tenant.terms -= 1
            for count in terms.counts + terms.seats:
                count.terms -= 1
        for tenant in [each for each in self.tenants.values() if not each.terms]:
            del self.tenants[tenant.priority, tenant.name]
        for key, count in list(self.counts.items()):
            if key[0] in levels and count.idle(now):
                del self.counts[key]
        self._sweep_at = max(self.KEPT, 2 * len(self._terms))
