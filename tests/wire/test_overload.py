"""Five times the load that the slots can serve, with clients that leave: limits, fairness, classes, honest refusals.

Clients come at random and do not wait for one another, as under a real rush; the ledger's own log says what happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

import pytest
import structlog
from admission_log import told
from stage import DONE, FINISH, Peer, Scripted, Stage, delta

from streamgate.admission.ledger import Ledger
from streamgate.admission.ticket import Note
from streamgate.clock import monotonic
from streamgate.server import Server
from tests.wire.test_admission import at_rest

pytestmark = pytest.mark.anyio

SLOTS, SEATS, QUEUE = 20, 12, 50  # in all, at each of two upstreams, and for those who wait
LASTS = (0.1, 0.4)  # s that a stream takes
CAPACITY = SLOTS / (sum(LASTS) / 2)  # streams a second
LEAVERS, PATIENCE = 0.1, 1.0  # the share of clients that leave, after so many seconds at most, wherever they are
CLOSING = 0.05  # s within which an upstream sees that it was left
WARM_UP, COOL_DOWN = 0.25, 0.15  # of the time, but at most 3 s: it is not judged
FAIR = 0.8  # of its share is the least that a tenant gets
Until = Callable[..., Awaitable[None]]


class Crowd(NamedTuple):
    """A tenant of one class; `asks` for so many times what all slots together can serve."""

    tenant: str
    priority: str
    asks: float


# Overload is of the patient's making: the hurried ask for less than their class's nine tenths.
CROWDS = (
    Crowd("chat", "interactive", 0.15),
    Crowd("web", "interactive", 0.15),
    Crowd("small", "batch", 0.08),
    Crowd("nightly", "batch", 0.4),
    Crowd("flood", "batch", 4.22),
)
assert sum(crowd.asks for crowd in CROWDS) == pytest.approx(5.0)


class Watched(list[Note]):
    """The ledger's log; at each note all of its books are looked at."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.beyond: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def append(self, note: Note) -> None:
        super().append(note)
        self._look("waiting", self.ledger.waiting, QUEUE)
        for (level, name), count in self.ledger.register.counts.items():
            self._look(f"{level} {name}".strip(), count.used, count.limit)

    def _look(self, what: str, used: int, limit: float) -> None:
        self.most[what] = max(self.most[what], used)
        self.beyond[what] += not 0 <= used <= limit


class Engine:
    """An upstream whose streams take as long as it happens; it notes from when to when each of them was there."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.served: list[tuple[float, float]] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            began = monotonic()
            try:
                await self._one(peer)
            finally:
                self.served.append((began, monotonic()))
            await peer.request()

    async def _one(self, peer: Peer) -> None:
        peer.stream(delta("a"))
        try:
            async with asyncio.timeout(self.choose.uniform(*LASTS)):
                await peer.reader.read(1)
        except TimeoutError:
            peer.chunk(FINISH, DONE)
            peer.end()
        else:
            raise ConnectionResetError("the gateway left")


def most(served: Iterable[tuple[float, float]]) -> int:
    """Streams at once, when one that was left may be there for `CLOSING` seconds more."""
    ends: list[float] = []
    at_once = 0
    for began, ended in sorted(served):
        while ends and ends[0] <= began:
            heapq.heappop(ends)
        heapq.heappush(ends, max(began, ended - CLOSING))
        at_once = max(at_once, len(ends))
    return at_once


class Rush:
    """Clients, each with a connection of its own, that come at random for so many seconds."""

    def __init__(self, server: Server, crowds: Sequence[Crowd], seed: int) -> None:
        self.choose = random.Random(seed)
        self.crowds = crowds
        self.host, _, self.port = server.url.removeprefix("http://").rpartition(":")
        self.answers: Counter[int] = Counter()
        self.without_a_time = 0
        self.left = 0

    async def run(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        over = loop.create_future()
        loop.call_at(began + seconds, over.set_result, None)
        async with asyncio.TaskGroup() as visits:

            def come(crowd: Crowd, at: float) -> None:
                if at < began + seconds:
                    visits.create_task(self._visit(crowd))
                    later(crowd, at)

            def later(crowd: Crowd, since: float) -> None:
                at = since + self.choose.expovariate(crowd.asks * CAPACITY)
                loop.call_at(at, come, crowd, at)

            for crowd in self.crowds:
                later(crowd, began)
            await over

    async def _visit(self, crowd: Crowd) -> None:
        patience = self.choose.uniform(0, PATIENCE) if self.choose.random() < LEAVERS else None
        reader, writer = await asyncio.open_connection(self.host, int(self.port))
        try:
            async with asyncio.timeout(patience):
                writer.write(question(crowd))
                head = await reader.readuntil(b"\r\n\r\n")
                self._answered(head)
                await reader.read()
        except TimeoutError:
            self.left += 1
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answered(self, head: bytes) -> None:
        status = int(head[9:12])
        self.answers[status] += 1
        self.without_a_time += status == 503 and not (b"retry-after: " in head and b"retry-after-ms: " in head)


def secret(crowd: Crowd) -> str:
    return f"sg-{crowd.tenant}"


def question(crowd: Crowd) -> bytes:
    body = '{"model":"m","stream":true,"messages":[]}'
    lines = (
        "POST /v1/chat/completions HTTP/1.1",
        "host: gateway",
        "content-type: application/json",
        "connection: close",
        f"authorization: Bearer {secret(crowd)}",
        f"content-length: {len(body)}",
        "",
        body,
    )
    return "\r\n".join(lines).encode()


class Account:
    """What the ledger's log says of the time between warm-up and cool-down."""

    def __init__(self, log: Sequence[Note], seconds: float) -> None:
        self.log = log
        self.since = log[0].at + min(3.0, WARM_UP * seconds)
        self.until = log[0].at + seconds - min(3.0, COOL_DOWN * seconds)
        self.wanted: Counter[str] = Counter()  # without those who left before they had a slot
        self.granted: Counter[str] = Counter()
        self.waits: defaultdict[str, list[float]] = defaultdict(list)
        self.reasons: Counter[str] = Counter()
        self._read()

    def _read(self) -> None:
        came: dict[int, float] = {}
        for note in self.log:
            if not self.since <= note.at < self.until:
                continue
            priority, tenant, _ = note.line
            match note.what:
                case "arrive":
                    came[note.number] = note.at
                    self.wanted[tenant] += 1
                case "grant" if note.number in came:
                    self.granted[tenant] += 1
                    self.waits[priority].append(note.at - came.pop(note.number))
                case "leave" if note.number in came:
                    self.wanted[tenant] -= 1
                case "refuse":
                    self.reasons[str(note.reason)] += 1

    def errors(self) -> list[float]:
        """By how much refusals were wrong about the wait, as a part of it."""
        return [each.error for each in told(self.log, since=self.since, until=self.until)]

    def shares(self, crowds: Sequence[Crowd]) -> dict[str, float]:
        """What each tenant got, as a part of what was its due: all it wanted, or an even share of its class's slots."""
        found = {}
        for crowd in crowds:
            rivals = [other.tenant for other in crowds if other.priority == crowd.priority]
            even = sum(self.granted[tenant] for tenant in rivals) / len(rivals)
            found[crowd.tenant] = self.granted[crowd.tenant] / min(self.wanted[crowd.tenant], even)
        return found


def quantile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[int(len(ordered) * share)]


async def overloaded(stage: Stage, crowds: Sequence[Crowd], seconds: float, until: Until) -> Account:
    """Rush a gateway; the limits held at every moment, each refusal said when to come back, and nothing is left."""
    engines = [Engine(seed) for seed in (1, 2)]
    server = await limited(stage, crowds, [await stage.upstream(engine) for engine in engines])
    ledger = server.gateway.gate.ledger
    log = ledger.log = Watched(ledger)
    rush = Rush(server, crowds, 5)
    with structlog.testing.capture_logs():  # some hundred a second
        await rush.run(seconds)
        await until(lambda: server.observer.statistics()["live"] == 0)
    assert +log.beyond == Counter(), log.most
    assert (log.most["global"], log.most["waiting"]) == (SLOTS, QUEUE), "it was really full"
    assert most(engines[0].served + engines[1].served) <= SLOTS
    assert max(most(engine.served) for engine in engines) <= SEATS
    at_rest(ledger)
    assert set(rush.answers) == {200, 503} and not rush.without_a_time and rush.left
    return Account(log, seconds)


async def limited(stage: Stage, crowds: Iterable[Crowd], upstreams: Iterable[Scripted]) -> Server:
    """A gateway with a limit in all, one at each upstream, and a key for each crowd."""
    return await stage.gateway(
        upstreams=[
            {"name": f"up{number}", "url": each.url, "limits": {"concurrent": SEATS}}
            for number, each in enumerate(upstreams)
        ],
        limits={"concurrent": SLOTS, "queue": QUEUE, "max_wait": 10},
        keys=[
            {"name": each.tenant, "priority": each.priority, "sha256": sha256(secret(each).encode()).hexdigest()}
            for each in crowds
        ],
    )


def judged(account: Account, crowds: Sequence[Crowd], *, share: float, error: float) -> None:
    """The hurried wait a fifth of the time, each tenant has its share, and what refused clients were told is true."""
    fast, slow = (quantile(account.waits[name], share) for name in ("interactive", "batch"))
    shares, errors = account.shares(crowds), account.errors()
    report = (
        f"p{share * 100:.0f} of the wait: interactive {fast:.3f} s, batch {slow:.3f} s; of its due each tenant got "
        f"{ {name: round(share, 2) for name, share in shares.items()} }; {len(errors)} refusals told of, error: "
        f"median {quantile(errors, 0.5):.1%}, p90 {quantile(errors, 0.9):.1%}; {dict(account.reasons)}"
    )
    print(report)  # noqa: T201 - for the report
    assert fast <= slow / 5, report
    assert min(share for name, share in shares.items() if name != "flood") >= FAIR, report
    assert len(errors) > 300 and quantile(errors, 0.5) <= error, report


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
async def test_six_seconds_of_overload(stage: Stage, until: Until) -> None:
    """A tenth of the soak's time, on every run. For the wait that is too short to be foretold within a quarter: in
    sixty runs of the model the median error was 12 % in the mean, and up to 28 %. And of 150 waits the 99th percentile
    is the worst but one, which is the test process' own doing: here the 90th is judged, in the soak the 99th."""
    judged(await overloaded(stage, CROWDS, 6.0, until), CROWDS, share=0.9, error=0.75)
