"""The same four responses under uvicorn: CPU, memory and tasks of the server, by the operating system's account.

All servers run all the time and are loaded in turns; only silent streams are measured side by side, to save minutes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop
from accounting import cpu_seconds
from client import Asker, Crowd, Listener, held, number_at
from gateways import free_port, running
from responses import BASE, EVENT, KINDS, NATIVE, OURS, form_for
from table import Row

HERE = Path(__file__).parent
MANY = 200  # streams
SETTLE = 0.4  # s of a load before it counts
DEFAULT_PING = 15.0  # s, of all that have pings: in any window of this length each idle stream has exactly one
QUIET = 15.0  # s until what gone clients leave behind must be cleared away
US = 1e6


@dataclass(frozen=True)
class Sizes:
    """How much of everything; seconds are those of one window."""

    rounds: int = 5
    seconds: float = 1.0
    paced_seconds: float = 2.0
    ping_seconds: float = 3.0
    idle: int = 1000  # streams


@dataclass(frozen=True)
class Server:
    """One response's server, up and listening."""

    kind: str
    port: int
    pid: int
    resting: int  # tasks before its first stream, that of the request which asks for their number included

    async def tasks(self) -> int:
        return await number_at(self.port, "/tasks")

    async def quiet(self) -> int:
        """Its tasks when the streams that were cut are gone: as before the first, and sse-starlette's watcher."""
        deadline = time.monotonic() + QUIET
        while (found := await self.tasks()) > self.resting + 1:
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.kind}: {found - self.resting} tasks outlive their clients")
            await asyncio.sleep(0.02)
        return found

    async def window(self, seconds: float, count: Callable[[], float]) -> float:
        """CPU per whatever is counted, over so many seconds, in us."""
        cpu, counted = cpu_seconds(self.pid), count()
        await asyncio.sleep(seconds)
        spent = cpu_seconds(self.pid) - cpu
        return spent * US / max(count() - counted, 1)


@contextmanager
def serving(kind: str, folder: Path) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, str(HERE / "servers.py"), kind, str(port)]
    with running(command, folder / f"{kind}.log", port) as started:
        yield Server(kind, port, started.pid, asyncio.run(number_at(port, "/tasks")))


def measured(sizes: Sizes, folder: Path) -> list[Row]:
    """A row for each load."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(kind, folder)) for kind in KINDS]
        return uvloop.run(Bench(servers, sizes).run())


class Bench:
    """The servers, and the rows that are being filled."""

    def __init__(self, servers: list[Server], sizes: Sizes) -> None:
        self.servers = servers
        self.sizes = sizes
        self.rows: dict[str, Row] = {}

    def add(self, kind: str, number: float, key: str, label: str, unit: str = "us") -> None:
        self.rows.setdefault(key, Row(f"uvicorn.{key}", label, unit)).add(kind, number)

    async def run(self) -> list[Row]:
        for server in self.servers:
            await self.warm(server)
        idle = IdleStreams(self)
        await idle.measure()  # first: later there would be free memory of streams that were
        for number in range(self.sizes.rounds):
            print(f"  uvicorn, round {number + 1} of {self.sizes.rounds}", flush=True)
            self.servers = self.servers[1:] + self.servers[:1]  # nobody is always first
            for streams in (1, MANY):
                await self.flat_out("bytes", streams)
                await self.flat_out("dict", streams)
            await self.paced()
            await self.short()
            await idle.pinged()
        return sorted(self.rows.values(), key=lambda row: "idle" in row.key)

    async def warm(self, server: Server) -> None:
        async with held(server.port, "/short", 8, reader=Asker):
            await asyncio.sleep(SETTLE)
        async with held(server.port, "/idle", 8):
            pass
        await server.quiet()

    async def flat_out(self, form: str, streams: int) -> None:
        label = f"event: {streams} stream{'s' * (streams > 1)} flat out, {form}"
        for server in self.servers:
            if form == "dict" or form_for(server.kind, form, nearest=False):
                spent = await self.event_cost(server, f"/flat/{streams}/{form}", streams, self.sizes.seconds)
                self.add(server.kind, spent, f"flat.{streams}.{form}", label)

    async def paced(self) -> None:
        for server in self.servers:
            spent = await self.event_cost(server, "/paced", MANY, self.sizes.paced_seconds)
            self.add(server.kind, spent, "paced", f"event: {MANY} streams, 50/s each, dict")

    async def event_cost(self, server: Server, path: str, streams: int, seconds: float) -> float:
        size = wire_size(server.kind)
        async with held(server.port, path, streams, ramp=streams / 1000) as crowd:
            await asyncio.sleep(SETTLE)
            spent = await server.window(seconds, lambda: crowd.received / size)
        await server.quiet()
        return spent

    async def short(self) -> None:
        for server in self.servers:
            async with held(server.port, "/short", 8, reader=Asker) as crowd:
                await asyncio.sleep(SETTLE / 2)
                spent = await server.window(self.sizes.seconds, lambda crowd=crowd: crowd.answers)  # type: ignore[misc]
            await server.quiet()
            self.add(server.kind, spent, "short", "short response of 5 events, keep-alive")


class IdleStreams:
    """What streams cost that are open and silent."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.count = bench.sizes.idle

    async def measure(self) -> None:
        """Memory, tasks, and the CPU of default settings; once, as they hardly vary."""
        print(f"  uvicorn, {self.count} idle streams each", flush=True)
        alone = await self.cpu(DEFAULT_PING / 3)  # uvicorn's own clock ticks ten times a second
        async with AsyncExitStack() as stack:
            for server in self.bench.servers:
                await self.open(server, stack)
            await asyncio.sleep(SETTLE)
            spent = await self.cpu(DEFAULT_PING)
        for server in self.bench.servers:
            minutes = self.count * DEFAULT_PING / 60
            cost = max(0.0, spent[server] - 3 * alone[server]) * US / minutes
            self.bench.add(server.kind, cost, "idle.cpu", "idle stream, one minute at default settings")
            await server.quiet()

    async def cpu(self, seconds: float) -> dict[Server, float]:
        """What each server spends meanwhile, in s."""
        before = {server: cpu_seconds(server.pid) for server in self.bench.servers}
        await asyncio.sleep(seconds)
        return {server: cpu_seconds(server.pid) - cpu for server, cpu in before.items()}

    async def open(self, server: Server, stack: AsyncExitStack) -> None:
        """Open its streams; its memory and tasks, with and without them."""
        tasks, memory = await server.tasks(), anonymous_kib(server.pid)
        await stack.enter_async_context(held(server.port, "/idle", self.count, ramp=self.count / 1000))
        await asyncio.sleep(SETTLE)
        beside = (await server.tasks() - tasks) / self.count - 1
        memory_each = (anonymous_kib(server.pid) - memory) / self.count
        self.bench.add(server.kind, memory_each, "idle.memory", "idle stream, memory", "KiB")
        self.bench.add(server.kind, beside, "idle.tasks", "idle stream, tasks beside the request's own", "tasks")

    async def pinged(self) -> None:
        """CPU of a ping, one each second and stream, spread over the second. Only where the interval can be set."""
        servers = [server for server in self.bench.servers if server.kind in {BASE, OURS}]
        async with AsyncExitStack() as stack:
            crowds = await asyncio.gather(*(stack.enter_async_context(self.spread(server)) for server in servers))
            await asyncio.sleep(SETTLE + 1.0)
            counts = zip(servers, crowds, strict=True)
            windows = [server.window(self.bench.sizes.ping_seconds, pings_of(crowd)) for server, crowd in counts]
            for server, spent in zip(servers, await asyncio.gather(*windows), strict=True):
                self.bench.add(server.kind, spent, "ping", f"ping: {self.count} idle streams, 1/s each")
        for server in servers:
            await server.quiet()

    def spread(self, server: Server) -> AbstractAsyncContextManager[Crowd]:
        return held(server.port, "/pinged", self.count, ramp=1.0, reader=Listener)


def pings_of(crowd: Crowd) -> Callable[[], float]:
    return lambda: crowd.pings


def wire_size(kind: str) -> int:
    """Bytes of one event with its chunk's frame; FastAPI ends both lines with LF alone."""
    return len(EVENT) - 2 * (kind == NATIVE) + len(b"c8\r\n\r\n")


def anonymous_kib(pid: int) -> int:
    """Memory that is its own; not the shares of libraries, which change with what else the machine runs."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
