"""The composition root: a Config becomes the two ASGI applications of one gateway. The only place that constructs."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable
from hashlib import sha256

import structlog
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from streamgate import clock
from streamgate.admission.gate import Gate
from streamgate.admission.pressure import Pressure
from streamgate.control.admin import probe
from streamgate.control.config import effective
from streamgate.control.health import Answer, Health
from streamgate.control.identities import guests_of
from streamgate.control.keyring import keys_of
from streamgate.control.plugging import plugins_of
from streamgate.control.pulse import Pulse
from streamgate.control.readings import causes_of, slots_of, store_of
from streamgate.control.settings import Config, Upstream, UpstreamKey
from streamgate.control.snapshot import Scene
from streamgate.control.terms import max_bodies_of, queue_of, shared_of, shed_of, terms_of
from streamgate.drain import Drain
from streamgate.edge.guard import GuardSettings
from streamgate.hooks.facade import Gateway as PluginSide
from streamgate.hooks.loader import load
from streamgate.observe.choice import tracing_of
from streamgate.observe.figures import PluginReadings
from streamgate.observe.lag import resident
from streamgate.observe.observer import Observer
from streamgate.observe.plugins import PluginJournal
from streamgate.observe.tally import Readings, Thresholds
from streamgate.observe.tracing import Tracing
from streamgate.relay.allowances import Allowances
from streamgate.relay.endpoint import Relay
from streamgate.relay.models import Models
from streamgate.relay.paths import Paths
from streamgate.relay.quota import NAMES
from streamgate.relay.request import Policy
from streamgate.relay.targets import Target, Targets
from streamgate.relay.tries import Means
from streamgate.routing.ejection import Ejections
from streamgate.routing.table import Balance, Route, RouteTable
from streamgate.sse.clocks import clocks_of
from streamgate.upstream.client import PoolSettings, Upstreams, origin_of
from streamgate.upstream.retry import RetryBudget, RetrySettings


class Gateway:
    """One gateway: its parts, and what is served on the traffic port. Built inside a running loop."""

    def __init__(self, config: Config, drain: Drain, observer: Observer) -> None:
        self.config = config
        self._hash = sha256(effective(config).encode()).hexdigest()[:12]
        self.drain = drain
        self.observer = observer
        self.health = Health(drain)
        self.routes = routes_of(config)
        targets = {upstream.name: target_of(upstream, config) for upstream in config.upstreams}
        self.targets = Targets(targets, Ejections(targets))
        self.upstreams = Upstreams(pool_of(config), dialled=observer.dialled)
        self.shared = shared_of(config)
        self.gate = Gate(queue_of(config), clock.monotonic, self.shared)
        self.pressure = Pressure(shed_of(config))
        self.journal = PluginJournal(observer.tally)
        self.facades: dict[str, PluginSide] = {}
        self.plugins = load(plugins_of(config), self._facade, self.journal)
        self.relay = self._relay()
        self.app = self._app()
        self.pulse = Pulse(self._scene())
        self.pulse.start(clocks_of(asyncio.get_running_loop()))

    def _facade(self, name: str) -> PluginSide:
        facade = self.facades[name] = PluginSide(name)
        return facade

    def _app(self) -> ASGIApp:
        def answered(request: Request, answer: Answer) -> Response:
            self.observer.answered(request.url.path, request.method, answer.status)
            return probe(answer)

        async def livez(request: Request) -> Response:
            return answered(request, self.health.live())

        async def readyz(request: Request) -> Response:
            return answered(request, self.health.ready())

        probes = [HttpRoute("/livez", livez, methods=["GET"]), HttpRoute("/readyz", readyz, methods=["GET"])]
        app: ASGIApp = Router(routes=probes, default=self.relay, redirect_slashes=False)
        origins = list(self.config.cors.origins)
        if origins:
            exposed = ["x-request-id", "request-id", "x-upstream-request-id", "retry-after", "retry-after-ms", *NAMES]
            app = Cors(
                app, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"], expose_headers=exposed
            )
        return app

    def _relay(self) -> Relay:
        config = self.config
        table = RouteTable(self.routes)
        policy = Policy(
            paths=Paths(config.paths),
            keys=keys_of(config, os.environ),
            routes=table,
            drain=self.drain,
            pressure=self.pressure,
            max_body=config.edge.max_body,
            max_bodies=max_bodies_of(config, self.routes),
            forward_headers=frozenset(name.lower().encode() for name in config.forward_headers),
            plugins=self.plugins or None,
            member=guests_of(config),
        )
        retry = RetrySettings(**config.retry.model_dump())
        means = Means(
            gate=self.gate,
            allowances=Allowances(terms_of(config, self.routes)),
            upstreams=self.upstreams,
            targets=self.targets,
            drain=self.drain,
            observer=self.observer,
            retry=retry,
            budget=RetryBudget(retry),
            max_event=config.limits.max_event,
        )
        return Relay(self.observer, policy, means, Models(self.routes, table, self.targets, self.upstreams))

    def _scene(self) -> Scene:
        return Scene(
            observer=self.observer,
            drain=self.drain,
            health=self.health,
            running=self.relay.running,
            targets=self.targets,
            upstreams=self.upstreams,
            limits=self.config.limits,
        )

    def readings(self) -> Readings:
        """What the gateway's parts say at a scrape."""
        books, queue = self.gate.books(), self.gate.ledger.queue.settings
        return Readings(
            ready=self.health.ready().ok,
            upstream_connections={
                (name, state): getattr(each, state)
                for name, each in self.upstreams.statistics().items()
                for state in ("active", "pooled", "settling")
            },
            circuits=self.targets.circuits(clock.monotonic()),
            streams_limit=self.config.limits.concurrent,
            config_hash=self._hash,
            telemetry_dropped={"traces": self.observer.tracing.dropped},
            slots=[slots_of(row) for row in books.rows],
            waiting=books.waiting,
            oldest_waiting=books.oldest,
            queue_limit=queue.queue,
            max_wait=queue.max_wait,
            overloaded=causes_of(self.pressure),
            store=store_of(self.shared),
            keys_file_refused=self.relay.policy.keys.refusals,
            plugins=[
                PluginReadings(
                    each.name,
                    sorted(each.hooks),
                    each.breaker.state.name.lower(),
                    self.facades[each.name].metrics.families.values(),
                )
                for each in self.plugins.members
            ],
        )

    def lagged(self, seconds: float) -> None:
        """The event loop was so late: four times a second."""
        self.observer.lagged(seconds)
        self.pressure.tick(seconds, resident() if self.pressure.settings.memory else 0)
        self.journal.tick()

    async def start(self) -> None:
        """Find the store that replicas share, if there is one; without it the gateway starts all the same. Raises what
        a plugin raises that cannot start."""
        await self.plugins.startup()
        if self.shared is not None:
            await self.shared.store.start()
            self.shared.start()

    async def close(self) -> None:
        """Shut the plugins down, give back what is left at the store, in a second at most, and close the upstreams'
        connections."""
        self.pulse.close()
        await self.plugins.shutdown()
        self.journal.close()
        self.gate.close()
        if self.shared is not None:
            await self.shared.close()
            await self.shared.store.close()
        self.upstreams.close()


class Cors(CORSMiddleware):
    """Starlette's adds its headers to ASGI messages: a browser must not be answered past them, by the edge's outlet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if any(name == b"origin" for name, _ in scope["headers"]):
            scope = {**scope, "extensions": {}}
        await super().__call__(scope, receive, send)


def routes_of(config: Config) -> list[Route]:
    """Without routes: every model, every upstream."""
    if not config.routes:
        return [Route(models=("*",), upstreams=tuple(up.name for up in config.upstreams))]
    return [
        Route(
            models=route.models,
            upstreams=route.upstreams,
            alias=route.as_,
            balance=Balance(route.balance),
            clocks=route.clocks.model_dump(exclude_none=True),
            paths=route.paths,
            plugins=route.plugins,
        )
        for route in config.routes
    ]


def target_of(upstream: Upstream, config: Config) -> Target:
    auth = upstream.auth
    return Target(
        name=upstream.name,
        origin=origin_of(
            upstream.name, str(upstream.url), ca_file=upstream.ca_file, verify=upstream.verify, idle=upstream.idle
        ),
        key=auth.key.get_secret_value() if isinstance(auth, UpstreamKey) else None,
        client_key=auth == "client",
        weight=upstream.weight,
        connect=config.clocks.connect if upstream.connect is None else upstream.connect,
    )


def pool_of(config: Config) -> PoolSettings:
    return PoolSettings(connect=config.clocks.connect)


def observed(config: Config, readings: Callable[[], Readings]) -> Observer:
    """What counts, logs and traces: with the configuration's thresholds among the buckets."""
    return Observer(
        readings=readings,
        tracing=traced(config),
        thresholds=Thresholds(**config.observe.slo.model_dump()),
        stall=config.clocks.stall,
        chatty=config.observe.log_level == "debug",
    )


def traced(config: Config) -> Tracing:
    """Spans as the configuration and OpenTelemetry's own variables ask for."""
    return tracing_of(os.environ, log=structlog.get_logger(), **config.observe.tracing.model_dump())


def guard_of(config: Config) -> GuardSettings:
    edge = config.edge.model_dump(exclude={"trusted_proxies"})
    proxies = tuple(ipaddress.ip_network(str(network)) for network in config.edge.trusted_proxies)
    return GuardSettings(**edge, trusted_proxies=proxies, send=config.clocks.send)
