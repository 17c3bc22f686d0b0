"""Lease, tries and failover: the Feed of a relayed stream.

The order at the end is the contract's: exchange released or aborted, lease returned, and only then the last words to
the client, so a slow client never holds a slot and an upstream never runs on for a client that left.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from streamgate.admission.gate import Gate, Lease
from streamgate.clock import monotonic
from streamgate.drain import Drain
from streamgate.errors import Fault, Killed, Refusal, Stale, Unreachable
from streamgate.hooks.chain import StreamHooks
from streamgate.observe.observer import Observer
from streamgate.record import COMPLETED, Ending, Outcome, Phase, StreamRecord
from streamgate.relay.allowances import Allowances
from streamgate.relay.answer import Kind
from streamgate.relay.answered import Answered
from streamgate.relay.attempt import Opening
from streamgate.relay.consulted import amended
from streamgate.relay.head import Head
from streamgate.relay.headers import own
from streamgate.relay.hooked import Hooked
from streamgate.relay.mailbox import hooked
from streamgate.relay.passage import Passage
from streamgate.relay.paths import Body
from streamgate.relay.quota import rate_headers
from streamgate.relay.reply import tell
from streamgate.relay.request import Request
from streamgate.relay.targets import Target, Targets
from streamgate.relay.verdicts import answered_whole, blames_upstream, code_of, given_up, left_the_queue, spent
from streamgate.sse.interrupt import Interrupted, interrupted_by, unless
from streamgate.sse.outlet import Farewell, Lost, Outlet, Sink
from streamgate.upstream.client import Call, Upstreams
from streamgate.upstream.retry import Again, RetryBudget, RetrySettings, decide

BYTES_PER_TOKEN = 4  # of a request's JSON: what a limit of tokens is charged with until the real count is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every relayed stream is given; built once, by the composition root."""

    gate: Gate
    allowances: Allowances
    upstreams: Upstreams
    targets: Targets
    drain: Drain
    observer: Observer
    retry: RetrySettings
    budget: RetryBudget
    max_event: int


class Tries:
    """One stream: its lease, and as many exchanges as it takes until one has something to say."""

    def __init__(self, request: Request, record: StreamRecord, means: Means, hooks: StreamHooks | None = None) -> None:
        self.request = request
        self.record = record
        self.means = means
        self.allowance = means.allowances.of(request.identity, request.route)
        self.hooks = hooks
        self.passage: Passage | None = None
        self._chosen: Sequence[str] | None = None  # upstreams, by plugins
        self._wanted: list[Target] = []

    def drained(self) -> None:
        """The drain's time is over: end this stream, wherever it is."""
        if self.passage is not None:
            self.passage.drained()

    def killed(self) -> bool:
        """An operator ends this stream; False when there is none: it has no lease yet, or it is ending already."""
        if self.passage is None or not self.record.t_leased or self.passage.until.done():
            return False
        self.passage.finish(Ending.by(Killed()))
        return True

    async def into(self, outlet: Outlet) -> Farewell:
        head = Head(outlet, self.record, partial(self.means.gate.quota, self.allowance.claim))
        step = hooked(self.hooks, outlet, head, self.request.path.dialect, self.record) if self.hooks else None
        passage = self.passage = self._passage(step or outlet, step or head)
        outlet.on_lost(passage.client_lost)
        self.record.outlet = outlet
        estimate = len(self.request.body or b"") // BYTES_PER_TOKEN
        lease = self.means.gate.lease(self.allowance.claim, tokens=estimate, order=self._order)
        try:
            if step is None:
                ending = await self._leased(lease, passage, head)
            else:
                ending = await self._hooked(step, lease, passage, head)
        except Refusal as refusal:
            self.record.refusal = refusal
            return self._tell(refusal, passage, outlet)
        finally:
            passage.close()
            lease.settle(spent(self.record, estimate, answered=answered_whole(passage)))
            outlet.attach(None)
            outlet.on_lost(self._lost_at_the_end)
        self.record.ending = ending
        told = passage.told and (step is None or step.ending is None)
        if ending.fault is None or told:
            return Farewell(whole=ending.outcome is Outcome.COMPLETED or told)
        return self._tell(ending.fault, passage, outlet)

    async def _hooked(self, step: Hooked, lease: Lease, passage: Passage, head: Head) -> Ending:
        """The same with plugins that listen; what they hold back goes out when the lease has been given back."""
        step.attach(passage)
        async with step:
            try:
                ending = await self._leased(lease, passage, head)
            except Refusal as refusal:  # raised inside, the step's task group would wrap it
                refused = refusal
            else:
                return await step.finish(ending)
        raise refused

    async def _leased(self, lease: Lease, passage: Passage, head: Head) -> Ending:
        """Wait for a lease and use it. Raises Refusal when none was to be had."""
        self.record.phase = Phase.QUEUED
        self.record.t_queued = monotonic()
        self.record.priority = self.allowance.claim.priority
        try:
            if self.hooks is not None and self.request.answer is None:
                with interrupted_by(passage.until):
                    self._chosen = await self.hooks.upstreams(self._order())
                self._order()
                lease.claim = self.means.allowances.among(lease.claim, self._chosen)
            async with unless(passage.until, lease):
                self.record.t_leased = monotonic()
                self.record.phase = Phase.WAITING
                self.means.observer.started(self.record)
                try:
                    if self.request.answer is not None and self.hooks is not None:
                        answered = Answered(self.request.answer, self.hooks.broke)
                        await answered.into(passage, head, own(self.record.request_id))
                        return passage.until.result()
                    return await self._tried(lease, passage)
                except Exception as bug:  # noqa: BLE001 - whatever it is, the client and the books must hear of it
                    passage.crash(bug)
                    return passage.until.result()
        except Interrupted:
            raise left_the_queue(passage.until.result()) from None

    def _order(self) -> Sequence[str]:
        """The upstreams, best first, at the moment of the grant; asked for when one of them has a limit."""
        targets = self.means.targets
        if self._chosen is None:
            self._wanted = targets.order(self.request.route, monotonic())
        else:
            self._wanted = [targets[name] for name in self._chosen]
        return [target.name for target in self._wanted]

    async def _tried(self, lease: Lease, passage: Passage) -> Ending:
        """Try, and try again as long as nothing semantic has been sent and the rules allow it."""
        means, record = self.means, self.record
        means.budget.note(record.t_leased)
        order = self._wanted or means.targets.order(self.request.route, record.t_leased)
        if lease.upstream:
            order = sorted(order, key=lambda target: target.name != lease.upstream)
        made = position = 0
        while True:
            target = order[position % len(order)]
            made += 1
            fault = await self._try(target, passage)
            if fault is None:
                return passage.until.result()
            if not self._repeatable(fault):
                return given_up(fault)
            again = decide(
                fault,
                made=made,
                elapsed=monotonic() - record.t_leased,
                others=position + 1 < len(order),
                settings=means.retry,
                budget=means.budget,
                now=monotonic(),
                jitter=random.random(),  # noqa: S311 - spreads retries, guards nothing
            )
            if again is None:
                return given_up(fault)
            position = await self._next(lease, order, position + again.elsewhere)
            means.observer.retried(record, fault, elsewhere=order[position % len(order)] is not target)
            if not await self._pause(again, passage):
                return passage.until.result()

    async def _next(self, lease: Lease, order: Sequence[Target], position: int) -> int:
        """The position from here on whose upstream has a slot for this lease; where it is has one, in any case."""
        for ahead in range(position, position + len(order)):
            name = order[ahead % len(order)].name
            if name == lease.upstream or not lease.upstream or await lease.move(name):
                return ahead
        return position

    async def _try(self, target: Target, passage: Passage) -> Fault | None:
        """One try, on a fresh connection if the pooled one proved stale. None: the stream has ended."""
        fault = await self._exchange(target, passage, fresh=self.request.path.body is Body.ANY)
        if isinstance(fault, Stale):
            fault = await self._exchange(target, passage, fresh=True)
        if passage.until.done():
            self._note(target, passage.until.result())
            return None
        if fault is not None:
            self._note(target, Ending.by(fault))
        return fault

    def _repeatable(self, fault: Fault) -> bool:
        """An upload that was passed unread is never sent twice; one that found no connection was not sent."""
        return self.request.path.body is not Body.ANY or isinstance(fault, Unreachable)

    async def _exchange(self, target: Target, passage: Passage, *, fresh: bool) -> Fault | None:
        request, record = self.request, self.record
        record.attempts += 1
        record.upstream = target.name
        passage.begin(own_key=not target.client_key)
        tracing = self.means.observer.tracing
        headers = tracing.trying(record, target.name, target.origin.url, target.headers(request))
        call = Call(request.path.method.encode(), request.target, headers, request.body)
        within = self.allowance.deadlines.connect
        connect = target.connect if within is None else within
        fault: Fault | None = None
        try:
            if self.hooks is not None:
                with interrupted_by(passage.until):
                    call = await amended(call, target.name, self.hooks)
            opening = self.means.upstreams.open(target.origin, call, passage, fresh=fresh, connect=connect)
            with target.load:
                async with unless(passage.until, opening) as exchange:
                    record.t_issued = monotonic()
                    if not record.t_sent:
                        record.t_sent, record.dialled = record.t_issued, exchange.dialled
                    passage.fed_by(exchange)
                    fault = await passage.first
                    if fault is None:
                        await passage.until
                        if passage.settled:
                            exchange.settle()
                    return fault
        except Interrupted:
            return None
        except Fault as failed:
            fault = failed
            return fault
        finally:
            tracing.tried(record, passage.attempt.status, fault)

    def _note(self, target: Target, ending: Ending) -> None:
        """What this try says of the upstream: to the metrics, and to its health."""
        self.means.observer.attempt(target.name, code_of(ending))
        fault = ending.fault
        if ending.outcome is Outcome.COMPLETED:
            if self.means.targets.succeeded(target.name):
                self.means.observer.circuit(target.name, "closed")
        elif fault is not None and blames_upstream(fault) and self.means.targets.failed(target.name, monotonic()):
            self.means.observer.circuit(target.name, "open", fault)

    async def _pause(self, again: Again, passage: Passage) -> bool:
        """Wait before another try; False when the stream ended meanwhile."""
        try:
            with interrupted_by(passage.until):
                await asyncio.sleep(again.delay)  # noqa: TID251 - a back-off is time to pass
        except Interrupted:
            return False
        return True

    def _passage(self, sink: Sink, opening: Opening) -> Passage:
        heard, deadlines = self.request.path.dialect, self.allowance.deadlines
        return Passage(sink, opening, heard, self.record, deadlines, self.means.max_event)

    def _lost_at_the_end(self, lost: Lost) -> None:
        """The upstream's part went well, but the client did not take the rest within the send clock."""
        if lost is Lost.SLOW and self.record.ending is COMPLETED:
            self.record.ending = Ending(Outcome.SLOW_CLIENT)

    def _tell(self, problem: Refusal | Fault, passage: Passage, outlet: Outlet) -> Farewell:
        events = passage.kind not in (Kind.BODY, Kind.JSON)
        spoken = self.request.path.dialect if events else None
        quota = rate_headers(self.means.gate.quota(self.allowance.claim))
        return tell(problem, outlet, spoken, self.request.path.family, self.record, quota)
