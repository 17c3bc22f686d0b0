"""The one task that tells Redis what nobody waits for: leases given back, tokens settled, leases renewed.

It never has two calls under way, so a renewal cannot overtake the giving back of the same lease. What failed is tried
again until it is done; giving back and renewing may be executed twice, settling is numbered and counts once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import Any

from streamgate.admission.shared_places import Places, Plan
from streamgate.admission.shared_scripts import GIVE_BACK, RENEW, SETTLE
from streamgate.store import Script, Store, Tasks, Unanswered

BATCH = 250  # leases in one script: with five levels each it takes Redis some 2 ms, in which it serves nobody else
RETRY = 0.5  # seconds until a call that Redis refused is tried again


class Held:
    """A lease of this process. `member`: its name in Redis, unique among all replicas."""

    __slots__ = ("asked", "member", "plan", "tokens", "unanswered", "upstream")

    def __init__(self, member: str, plan: Plan, tokens: int) -> None:
        self.member = member
        self.plan = plan
        self.tokens = tokens
        self.upstream = ""
        self.asked = False  # Redis was asked at least once, so it may have slots there
        self.unanswered = 0  # calls that are under way, or that never were answered

    def slots(self) -> dict[bytes, int]:
        return self.plan.slots([self.upstream])


class Return:
    """Slots to be given back, with their limits; `gone`: and nothing that comes late may take them again."""

    __slots__ = ("gone", "slots")

    def __init__(self, slots: dict[bytes, int], *, gone: bool) -> None:
        self.slots = slots
        self.gone = gone


class Rounds:
    """The leases of this process, and what Redis is still to be told of them."""

    def __init__(self, store: Store, places: Places, me: str, ttl: float) -> None:
        self.renewals = 0
        self.renew_failures = 0
        self.held: dict[str, Held] = {}
        self._store = store
        self._places = places
        self._me = me
        self._ttl = ttl
        self._returns: dict[str, Return] = {}
        self._settles: dict[bytes, tuple[int, int]] = {}
        self._settling: dict[bytes, tuple[int, int]] = {}
        self._settled = 0  # the number of the last batch that was begun
        self._renewal_due = False
        self._work = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        self._tasks = Tasks()

    def start(self) -> None:
        self._store.on_back(self._renew)  # at once: Redis may have lost its memory, and leases began without it
        self._after(self._ttl / 3, self._tick)
        self._tasks.start(self._run())

    async def close(self, deadline: float) -> None:
        """Give back and settle what is left, for at most `deadline` seconds, while the store is there."""
        for timer in self._timers:
            timer.cancel()
        await self._tasks.close()
        for lease in list(self.held):
            self.let_go(self.held.pop(lease))
        try:
            async with asyncio.timeout(deadline):
                await self._give_back()
                await self._settle()
        except (Unanswered, TimeoutError):
            pass  # by expiry, then

    # ------------------------------------------------------------------ plain calls

    async def called(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[str | bytes | int], concerned: Collection[Held]
    ) -> Any:
        """Run a script that gives slots to these leases; ended in any way but by an answer, they stay unanswered."""
        if self._store.up:  # else nothing is sent
            for held in concerned:
                held.asked = True
                held.unanswered += 1
        reply = await self._store.run(script, keys, arguments)
        for held in concerned:
            held.unanswered -= 1
        return reply

    def let_go(self, held: Held) -> None:
        """Give back all slots that the lease has, or may have, or may yet get from a call that is still on its way."""
        if held.asked:
            slots = held.plan.slots(held.plan.either) if held.unanswered else held.slots()
            self.give_back(held, slots, gone=held.unanswered > 0)

    def give_back(self, held: Held, slots: dict[bytes, int], *, gone: bool = False) -> None:
        before = self._returns.get(held.member)
        if before is not None:
            slots, gone = before.slots | slots, before.gone or gone
        if slots:
            self._returns[held.member] = Return(slots, gone=gone)
            self._work.set()

    def want_again(self, held: Held, slots: dict[bytes, int]) -> None:
        """These are not to be given back, if they were."""
        before = self._returns.pop(held.member, None)
        if before is not None:
            self.give_back(held, {slot: before.slots[slot] for slot in before.slots.keys() - slots.keys()})

    def owe(self, buckets: dict[bytes, int], tokens: int) -> None:
        for rates, limit in buckets.items():
            self._settles[rates] = (limit, self._settles.get(rates, (0, 0))[1] + tokens)
            self._work.set()

    # ------------------------------------------------------------------ the task

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            if not self._store.up:
                continue  # `_renew` sets it, when the store is back
            try:
                await self._give_back()
                await self._settle()
                await self._renew_all()
            except Unanswered:
                self._after(RETRY, self._work.set)

    async def _give_back(self) -> None:
        while self._returns:
            batch = dict(islice(self._returns.items(), BATCH))
            await self._store.run(GIVE_BACK, *self._return_call(batch))
            for member, back in batch.items():
                if self._returns.get(member) is back:  # else there is more to give back by now
                    del self._returns[member]

    def _return_call(self, batch: dict[str, Return]) -> tuple[list[bytes], list[Any]]:
        gone = [member for member, back in batch.items() if back.gone]
        arguments: list[Any] = [self._ttl_ms, self._places.freed, self._me, len(gone), *gone]
        limits = {slot: limit for back in batch.values() for slot, limit in back.slots.items()}
        by_slot = _by_slot((member, back.slots) for member, back in batch.items())
        for slot, members in by_slot.items():
            arguments += [limits[slot], len(members), *members]
        return [self._places.gone, *by_slot], arguments

    async def _settle(self) -> None:
        while self._settling or self._settles:
            if not self._settling:
                self._settling, self._settles = self._settles, {}
                self._settled += 1
            batch = self._settling
            arguments = [self._settled, *(number for pair in batch.values() for number in pair)]
            await self._store.run(SETTLE, [self._places.settled(self._me), *batch], arguments)
            self._settling = {}

    async def _renew_all(self) -> None:
        if not self._renewal_due:
            return
        self._renewal_due = False
        leases = iter(list(self.held))
        while batch := list(islice(leases, BATCH)):
            living = [held for lease in batch if (held := self.held.get(lease)) is not None and held.slots()]
            if living:
                await self._renew_batch(living)

    async def _renew_batch(self, living: list[Held]) -> None:
        by_slot = _by_slot((held.member, held.slots()) for held in living)
        arguments: list[Any] = [self._ttl_ms]
        for members in by_slot.values():
            arguments += [len(members), *members]
        try:
            await self.called(RENEW, [self._places.gone, *by_slot], arguments, living)
        except Unanswered:
            self.renew_failures += len(living)
            self._renewal_due = True
            raise
        self.renewals += len(living)

    # ------------------------------------------------------------------ time

    @property
    def _ttl_ms(self) -> int:
        return int(self._ttl * 1000)

    def _renew(self) -> None:
        self._renewal_due = True
        self._work.set()

    def _tick(self) -> None:
        self._after(self._ttl / 3, self._tick)
        self._renew()

    def _after(self, delay: float, call: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._timers = [timer for timer in self._timers if not timer.cancelled() and timer.when() > loop.time()]
        self._timers.append(loop.call_later(delay, call))


def _by_slot(leases: Iterable[tuple[str, dict[bytes, int]]]) -> dict[bytes, list[str]]:
    by_slot: dict[bytes, list[str]] = {}
    for member, slots in leases:
        for slot in slots:
            by_slot.setdefault(slot, []).append(member)
    return by_slot
