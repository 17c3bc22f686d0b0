"""One server process: sockets, uvicorn on both ports, signals -> drain, the exit code.

The order of a drain: readiness goes at once; for `lameduck` seconds newcomers are still served; then the listening
socket closes and requests on open connections are refused; running streams go on up to `timeout`; the rest get an error
event and a second for it; telemetry is flushed. A second signal goes straight to the error events, with less time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, replace

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from streamgate.app import Gateway, guard_of, observed
from streamgate.control.admin import admin_app
from streamgate.control.settings import Config, Upstream
from streamgate.dialects.bodies import error_body, family_of
from streamgate.drain import Drain
from streamgate.edge import sockets
from streamgate.edge.guard import Census, GuardSettings, guard_factory
from streamgate.errors import Reason, Refusal, StreamgateError
from streamgate.observe import logs
from streamgate.observe.exposition import SWITCH_INTERVAL, Exposition
from streamgate.observe.lag import LagTicker
from streamgate.observe.tally import Readings
from streamgate.observe.tracing import FLUSH

ENDED, FAILED, WRONG, CUT = range(4)  # exit codes

OPEN_DESCRIPTOR = "the descriptor's socket is not on loopback: expected `keys`, a list of them or the word none"

LAST_WORDS = 1.0  # s for the error events of streams that the drain cut
FORCED = 0.4  # s for the same after a second signal: the process is to be gone within 1 s
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(config: Config, *, fd: int | None = None) -> int:
    """Serve until a signal says otherwise; returns the exit code of `streamgate serve`."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    output = logs.configure(format=config.observe.log_format, level=config.observe.log_level)
    try:
        if fd is not None and config.keys is None and not config.authenticates and not sockets.is_loopback(fd):
            structlog.get_logger().error("wrong_use", error=OPEN_DESCRIPTOR)
            return WRONG
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(config, fd, output))
    except (ValueError, StreamgateError) as exc:  # an address that cannot be listened on, a plugin that cannot start
        structlog.get_logger().error("startup_failed", error=str(exc))
        return FAILED
    finally:
        output.close()


async def _serve(config: Config, fd: int | None, output: logs.Output) -> int:
    async with running(config, fd=fd, output=output) as server:
        # What start-up made lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        with server.signals():
            # Not before: whoever is told that it is ready may send SIGTERM at once.
            structlog.get_logger().info("ready", url=server.url, admin=server.admin_url)
            return await server.drained()


@contextlib.asynccontextmanager
async def running(config: Config, *, fd: int | None = None, output: logs.Output | None = None) -> AsyncIterator[Server]:
    """A gateway that listens on both ports while inside; with no upstream configured, the demo's is started too."""
    async with contextlib.AsyncExitStack() as stack:
        if not config.upstreams:
            from streamgate import demo  # noqa: PLC0415 - only when it is needed

            upstream = await demo.start()
            stack.push_async_callback(upstream.aclose)
            structlog.get_logger().info("demo_upstream", url=upstream.url, why="no upstream is configured")
            config = config.model_copy(update={"upstreams": (Upstream(name="demo", url=upstream.url),)})
        server = Server(config, fd=fd, output=output)
        try:
            await server.start()
            yield server
        finally:
            await server.stop()


class Server:
    """Both ports of one gateway, and its drain."""

    def __init__(self, config: Config, *, fd: int | None = None, output: logs.Output | None = None) -> None:
        self.config = config
        self.drain = Drain()
        self.census = Census()
        self.observer = observed(config, self._readings)
        self.gateway = Gateway(config, self.drain, self.observer)
        self.lag = LagTicker(self.gateway.lagged)
        self.cut = 0  # streams that the drain had to end
        self._output = output
        self._asked = asyncio.Event()  # a drain was asked for
        self._forced: asyncio.Future[bool] = asyncio.get_running_loop().create_future()  # and asked for again
        self._polite = True  # serve the lame-duck time
        self._sockets = sockets.listen(config.listen, user_timeout=config.clocks.send, fd=fd)
        try:
            self._admin_sockets = sockets.listen(config.admin.listen, user_timeout=config.clocks.send)
        except ValueError:
            sockets.close(self._sockets)
            raise
        guard = guard_of(config)
        self._traffic = _Uvicorn(self.gateway.app, self._guarded(guard), guard)
        self._admin = _Uvicorn(self._admin_app(), self._guarded(replace(guard, max_connections=0)), guard)

    @property
    def url(self) -> str:
        return _url(self._sockets[0])

    @property
    def admin_url(self) -> str:
        return _url(self._admin_sockets[0])

    async def start(self) -> None:
        await self.gateway.start()
        await self._admin.start(self._admin_sockets)
        await self._traffic.start(self._sockets)
        self.lag.start()
        self.gateway.health.started = True

    async def stop(self) -> None:
        """Close what is still open: what was written has a second to go out; streams that still run are cut."""
        self.lag.stop()
        for port in (self._traffic, self._admin):
            port.close_all()
        if self.census.connections:
            self.census.emptied.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await self.census.emptied.wait()
        for port in (self._traffic, self._admin):
            await port.stop()
        await self.gateway.close()
        await self.observer.tracing.flush(FORCED / 2 if self._forced.done() else FLUSH)

    def begin_drain(self, *, lameduck: bool = True) -> None:
        """Ask for a drain; asked again, it is forced."""
        if self._asked.is_set() and not self._forced.done():
            self._forced.set_result(True)
        self._polite = lameduck
        self.census.closing = True  # every answer from now on closes its connection
        self.drain.begin()
        self._asked.set()

    async def drained(self) -> int:
        """Wait for a drain to be asked for and carry it out; the exit code."""
        await self._asked.wait()
        log = structlog.get_logger()
        settings = self.config.drain
        log.info("drain_begin", streams=len(self.drain), timeout=settings.timeout, lameduck=settings.lameduck)
        if self._polite and settings.lameduck:
            await self._unless_forced(settings.lameduck)
        self._traffic.refuse_newcomers()
        self.drain.refuse()
        await self._emptied(settings.timeout)
        self.cut = self.drain.expire()
        if self.cut:
            log.warning("drain_cut", streams=self.cut)
            await self.drain.empty(FORCED if self._forced.done() else LAST_WORDS)
        log.info("drain_end", cut=self.cut)
        return CUT if self.cut else ENDED

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT drain, a second one forces; SIGHUP is logged and does nothing yet."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.begin_drain)
        loop.add_signal_handler(signal.SIGINT, lambda: self.begin_drain(lameduck=False))
        loop.add_signal_handler(signal.SIGHUP, lambda: structlog.get_logger().warning("reload_not_available"))
        try:
            yield
        finally:
            for each in SIGNALS:
                loop.remove_signal_handler(each)

    async def _emptied(self, timeout: float) -> None:  # noqa: ASYNC109 - passed on
        empty = asyncio.ensure_future(self.drain.empty(timeout))  # noqa: TID251 - owned by these three lines
        await self._unless_forced(timeout, empty)
        empty.cancel()

    async def _unless_forced(self, seconds: float, *others: asyncio.Future[bool]) -> None:
        """Wait so long, or until one of the others is done; a second signal ends the wait."""
        await asyncio.wait({self._forced, *others}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    def _admin_app(self) -> ASGIApp:
        token = self.config.admin.token
        return admin_app(
            observer=self.observer,
            drain=self.drain,
            metrics=Exposition(self.observer),
            health=self.gateway.health,
            token=token.get_secret_value() if token is not None else None,
            loopback=self.config.admin.listen.loopback,
            on_drain=self.begin_drain,
            statistics=self.statistics,
            pulse=self.gateway.pulse,
        )

    def _guarded(self, settings: GuardSettings) -> Callable[..., asyncio.Protocol]:
        return guard_factory(settings, self.census, error_body=_edge_error, refused=self._refused)

    def _refused(self, reason: Reason) -> None:
        self.observer.refused("edge", reason)

    def statistics(self) -> dict[str, object]:
        """The books, as plain numbers: for /streams, and for tests that they balance."""
        return {
            "edge": self.census.statistics(),
            "upstreams": {name: asdict(books) for name, books in self.gateway.upstreams.statistics().items()},
            "tries": self.gateway.targets.active(),
            "slots": self.gateway.gate.ledger.taken,
            "draining": len(self.drain),
        }

    def _readings(self) -> Readings:
        return self.gateway.readings()._replace(
            draining=self._asked.is_set(),
            connections=self.census.connections,
            log_lines_dropped=self._output.dropped if self._output is not None else 0,
        )


class _Uvicorn(uvicorn.Server):
    """uvicorn as a library: its protocol and its ticks, but our sockets, our signals and our order of ending."""

    def __init__(self, app: ASGIApp, protocol: Callable[..., asyncio.Protocol], guard: GuardSettings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,  # type: ignore[arg-type]  # any factory of protocols will do
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=int(guard.keep_alive),
            )
        )
        self.servers = []  # until it has started
        self._ticks: asyncio.Task[None] | None = None

    async def start(self, listening: list[socket.socket]) -> None:
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=listening)
        self._ticks = asyncio.get_running_loop().create_task(self.main_loop())

    def refuse_newcomers(self) -> None:
        """Close the listening sockets: a refused connect is safely tried elsewhere. Open connections stay."""
        for server in self.servers:
            server.close()

    def close_all(self) -> None:
        """Let what was written go out, and nothing more come in."""
        self.refuse_newcomers()
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.close()

    async def stop(self) -> None:
        for connection in list(self.server_state.connections):
            transport = connection.transport
            if transport is not None:
                transport.abort()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._ticks is not None:
            self._ticks.cancel()  # not `should_exit`: it is looked at ten times a second, and nobody waits for that
            await asyncio.gather(self._ticks, return_exceptions=True)


def _edge_error(path: bytes, refusal: Refusal) -> bytes:
    """What the edge says, in the family's own form."""
    family = family_of(path.decode("latin-1"))
    return error_body(family, status=refusal.status, message=refusal.message, code=refusal.code, param=refusal.param)


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
