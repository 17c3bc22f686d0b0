"""Limits that hold across replicas: `Remote` on Redis.

A lease has slots with a time to live there. They are renewed while it lives, so a replica that was killed gives its
slots back by expiry, and a Redis that lost its memory learns them again. Taking and moving are awaited by who asks,
each one script; the rest is carried out by `shared_rounds`.

A call that was cancelled, or not answered in time, may still be executed at any moment. When such a lease is given
back, Redis notes that it is gone, and what comes late takes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from types import TracebackType
from typing import Literal, Self
from uuid import uuid4

from streamgate.admission.claim import Claim
from streamgate.admission.remote import Answer, Verdict
from streamgate.admission.shared_places import Place, Places, take_arguments, take_keys, verdict_of
from streamgate.admission.shared_rounds import Held, Rounds
from streamgate.admission.shared_scripts import TAKE
from streamgate.store import Store, Unanswered


class SharedLimits:
    """`Remote` on a started `store`; used as `async with`, or by `start` and `close`.

    `ttl` in seconds: after it the slots of a killed replica are free. `down`: while the store is away, only this
    process' own books count (open), or nothing may start (closed). Replicas of one `namespace` share their limits.
    """

    def __init__(
        self, store: Store, *, namespace: str = "default", ttl: float = 30.0, down: Literal["open", "closed"] = "open"
    ) -> None:
        self.store = store
        self.ttl = ttl
        self.down = down
        self.takes = 0  # wanted, whether the store was there or not
        self.denials = 0  # full, or no room in a rate
        self.timeouts = 0  # takes and moves without an answer in time
        self.failed_open = 0  # takes and moves
        self.failed_closed = 0
        self._me = uuid4().hex[:12]
        self._members = count()
        self._places = Places(namespace)
        self._rounds = Rounds(store, self._places, self._me, ttl)
        self._wakes: list[Callable[[], None]] = []
        self._waking = False

    @property
    def connected(self) -> bool:
        return self.store.up

    @property
    def reconnects(self) -> int:
        """Times the store came back."""
        return self.store.reconnects

    @property
    def renewals(self) -> int:
        """Of leases, not of calls; so are `renew_failures`."""
        return self._rounds.renewals

    @property
    def renew_failures(self) -> int:
        return self._rounds.renew_failures

    @property
    def held(self) -> int:
        """Leases of this process, those that began without the store included."""
        return len(self._rounds.held)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def start(self) -> None:
        self._rounds.start()
        self.store.subscribe(self._places.freed, self._heard)

    async def close(self, deadline: float = 1.0) -> None:
        """Give back what is left, for at most `deadline` seconds; the rest goes by expiry. The store stays open."""
        self._wakes.clear()
        await self._rounds.close(deadline)

    async def take(self, lease: str, claim: Claim, tokens: int, order: Sequence[str]) -> Verdict:
        """Slots at all levels, or none. While the store is away: TAKEN with the first of `order`, or UNAVAILABLE."""
        plan = self._places.plan(claim)
        if not plan.must and not plan.either:
            return Verdict(Answer.TAKEN)
        self.takes += 1
        held = Held(f"{self._me}.{next(self._members)}", plan, tokens)
        try:
            verdict = await self._asked(held, plan.must, self._places.candidates(plan, order))
        except BaseException:
            self._rounds.let_go(held)
            raise
        if verdict.answer is Answer.TAKEN:
            held.upstream = verdict.upstream
            self._rounds.held[lease] = held
        elif verdict.answer is Answer.UNAVAILABLE:
            self._rounds.let_go(held)
        else:
            self.denials += 1
        return verdict

    async def move(self, lease: str, claim: Claim, upstream: str) -> bool:
        """Another upstream's slot and rate in place of the slot it has; False: no room there, and nothing changed."""
        held = self._rounds.held.get(lease)
        if held is None or not held.plan.either or upstream == held.upstream:
            return True
        places = self._places.candidates(held.plan, [upstream])
        self._rounds.want_again(held, held.plan.slots([upstream]))
        answer = (await self._asked(held, (), places)).answer
        if answer is not Answer.TAKEN:
            return False
        left, held.upstream = held.slots(), upstream
        if self._rounds.held.get(lease) is held:  # else it was given back meanwhile, with all that it might have
            now = held.slots()
            self._rounds.give_back(held, {slot: limit for slot, limit in left.items() if slot not in now})
        return True

    def give_back(self, lease: str, claim: Claim) -> None:
        held = self._rounds.held.pop(lease, None)
        if held is not None:
            self._rounds.let_go(held)

    def settle(self, claim: Claim, tokens: int, upstream: str = "") -> None:
        """`upstream`: whose bucket it concerns, too; without a name, that of the only one with a limit, if it is so."""
        if tokens:
            self._rounds.owe(self._places.plan(claim).buckets(upstream), tokens)

    def on_freed(self, wake: Callable[[], None]) -> None:
        self._wakes.append(wake)

    async def _asked(self, held: Held, must: Sequence[Place], either: Sequence[Place]) -> Verdict:
        places = [*must, *either]
        arguments: list[str | int] = [
            held.member,
            int(self.ttl * 1000),
            held.tokens,
            len(must),
            *take_arguments(places),
        ]
        try:
            reply = await self._rounds.called(TAKE, take_keys(self._places.gone, places), arguments, (held,))
        except Unanswered as silence:
            self.timeouts += silence.late
            return self._alone(either)
        return verdict_of(reply, places)

    def _alone(self, either: Sequence[Place]) -> Verdict:
        if self.down == "closed":
            self.failed_closed += 1
            return Verdict(Answer.UNAVAILABLE)
        self.failed_open += 1
        return Verdict(Answer.TAKEN, upstream=either[0].bound.name if either else "")

    def _heard(self, sender: bytes) -> None:
        """Slots came free (b"": perhaps). However many messages came at once, who waits is woken once."""
        if sender != self._me.encode() and not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._waking = False
        for wake in self._wakes:
            wake()
