"""Every key of the configuration: its meaning, default and range. Times in seconds, sizes in bytes.

Who may stream, and how much, is in `admitting`; logs and traces are in `observing`, plugins in `plugging`. The
reference page and the JSON schema in docs/ are generated from these files. What holds between keys is in `checks`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
)

from streamgate.control.admitting import (
    DEFAULT_PRIORITIES,
    NO_LIMITS,
    Jwt,
    Keys,
    LevelLimits,
    Limits,
    PriorityClass,
    Tenant,
)
from streamgate.control.base import Settings
from streamgate.control.observing import Observe
from streamgate.control.plugging import PluginEntry, PluginName
from streamgate.control.values import (
    Address,
    ApiPath,
    Count,
    ExistingFile,
    Fraction,
    Glob,
    HeaderName,
    Name,
    Network,
    Origin,
    PlainModel,
    Seconds,
    Secret,
    UpstreamUrl,
)

# A YAML list becomes a tuple: configuration is never changed in place.
_LAX = Field(strict=False)


class Admin(Settings):
    """The operators' port."""

    listen: Address = Field(default=Address("127.0.0.1:9464"), description="HOST:PORT of the admin port.")
    token: Secret | None = Field(
        default=None,
        description="Bearer token for the admin port. Probes and /metrics never need it; off loopback everything else "
        "does, and without a token is not served there at all.",
    )


class Edge(Settings):
    """What is bounded before a request is looked at."""

    head_timeout: Seconds = Field(
        default=10.0, description="From the first byte, or the connect, to the end of the head."
    )
    body_timeout: Seconds = Field(
        default=30.0, description="For the whole body; grows by its size / 64 KiB per second."
    )
    keep_alive: Seconds = Field(default=75.0, description="An idle connection is closed after this.")
    max_head: int = Field(default=32 * 1024, ge=1024, le=1024 * 1024, description="Request line and headers together.")
    max_body: int = Field(default=32 * 1024 * 1024, ge=1024, description="A request's body.")
    max_connections: Count = Field(default=0, description="Connections in all; 0: as many as the descriptors allow.")
    max_connections_per_address: Count = Field(default=0, description="Connections per client address; 0: no limit.")
    trusted_proxies: Annotated[tuple[Network, ...], _LAX] = Field(
        default=(), description="Addresses or networks that are exempt from the limit per address."
    )


class Clocks(Settings):
    """Deadlines of a stream, measured on semantic events. 0 turns a clock off, except where it says otherwise."""

    connect: Seconds = Field(default=5.0, description="To connect to an upstream.")
    first_token: Seconds = Field(default=120.0, description="To the first semantic event, per try.")
    idle: Seconds = Field(default=60.0, description="Between semantic events.")
    total: Seconds = Field(default=0.0, description="For the whole stream.")
    answer: Seconds = Field(default=600.0, description="For the whole answer to a request without `stream: true`.")
    stall: Seconds = Field(
        default=10.0, description="Silence after which a client that leaves is said to have given up."
    )
    send: Seconds = Field(default=30.0, description="For a write to drain: after it, the client is dead or too slow.")
    heartbeat: Seconds = Field(default=15.0, description="Since the last byte written, until a ping is sent.")
    early_commit: Seconds = Field(
        default=10.0, description="Until the response head goes out without a token; 0: at once."
    )

    def overridden(self, partly: RouteClocks) -> Clocks:
        """These clocks, with those that a route sets for itself."""
        return self.model_copy(update=partly.model_dump(exclude_none=True))


class RouteClocks(Settings):
    """A route's own clocks; what is absent is as in `clocks`."""

    connect: Seconds | None = None
    first_token: Seconds | None = None
    idle: Seconds | None = None
    total: Seconds | None = None
    answer: Seconds | None = None
    stall: Seconds | None = None
    send: Seconds | None = None
    heartbeat: Seconds | None = None
    early_commit: Seconds | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, float]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class Retry(Settings):
    """More tries, on any of the route's upstreams, before the first semantic event."""

    attempts: int = Field(default=2, ge=0, le=10, description="Tries after the first.")
    deadline: Seconds = Field(default=180.0, description="Over all tries of one request.")
    budget: Fraction = Field(default=0.2, description="Share of requests that may be tried again.")
    budget_min_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=5.0, description="Tries per second that are always allowed, whatever the share."
    )


class Drain(Settings):
    """The way out after SIGTERM."""

    timeout: Seconds = Field(default=120.0, description="For running streams to end by themselves.")
    lameduck: Seconds = Field(default=0.0, description="Newcomers are still served for this long after readiness went.")


class UpstreamKey(Settings):
    """The gateway's own key for an upstream."""

    key: Secret = Field(description="Sent as the bearer token, in place of the client's.")


def _auth_tag(written: Any) -> str:
    return "<word>" if isinstance(written, str) else "<key>"


Auth = Annotated[
    Annotated[Literal["none", "client"], Tag("<word>")] | Annotated[UpstreamKey, Tag("<key>")], Discriminator(_auth_tag)
]


class Upstream(Settings):
    """One server that answers requests."""

    name: Name = Field(description="As routes and metrics call it.")
    url: UpstreamUrl = Field(description="scheme://host:port with an optional prefix; the client's path is appended.")
    auth: Auth = Field(
        default="none", description="`none`, `client` (the client's own key passes), or a key of the gateway's."
    )
    weight: int = Field(default=1, ge=1, le=1000, description="Its share, in proportion to the others'.")
    ca_file: ExistingFile | None = Field(default=None, description="PEM file of authorities, in place of the system's.")
    verify: bool = Field(default=True, description="Whether its certificate is verified.")
    idle: Seconds = Field(
        default=4.0, description="An unused connection to it is dropped after this: below what engines use."
    )
    connect: Seconds | None = Field(default=None, description="In place of `clocks.connect` for this upstream.")
    limits: LevelLimits = Field(
        default=NO_LIMITS,
        description="What it is given; max_body and max_duration hold for every request of a route that has it.",
    )


class Route(Settings):
    """Which models go where; the first route that matches is taken."""

    models: Annotated[tuple[Glob, ...], Field(min_length=1, strict=False)] = Field(description="Names or patterns.")
    upstreams: Annotated[tuple[Name, ...], Field(min_length=1, strict=False)] = Field(description="Names of upstreams.")
    balance: Literal["least_streams", "round_robin", "in_order"] = Field(
        default="least_streams", description="How one of them is chosen."
    )
    as_: PlainModel | None = Field(
        default=None, alias="as", description="The model's name at the upstreams, when it differs."
    )
    clocks: RouteClocks = Field(default=RouteClocks(), description="Clocks that differ from `clocks`.")
    paths: Annotated[tuple[ApiPath, ...], _LAX] = Field(default=(), description="Only for these paths; empty: for all.")
    limits: LevelLimits = Field(default=NO_LIMITS, description="What all requests of the route are allowed, together.")
    plugins: Annotated[tuple[PluginName, ...], _LAX] | None = Field(
        default=None, description="Names of the plugins that see its requests; null: all of them, []: none."
    )


class Cors(Settings):
    """Browsers on other origins."""

    origins: Annotated[tuple[Origin, ...], _LAX] = Field(default=(), description="Origins that may call, or `*`.")


class Config(Settings):
    """Every key of the file; none is required."""

    listen: Address = Field(default=Address("127.0.0.1:8080"), description="HOST:PORT that clients connect to.")
    admin: Admin = Field(default=Admin(), description="The operators' port.")
    edge: Edge = Field(default=Edge(), description="Bounds before a request is looked at.")
    clocks: Clocks = Field(default=Clocks(), description="Deadlines of a stream.")
    limits: Limits = Field(default=Limits(), description="How much may happen at once.")
    retry: Retry = Field(default=Retry(), description="More tries, before the first semantic event.")
    drain: Drain = Field(default=Drain(), description="The way out.")
    upstreams: Annotated[tuple[Upstream, ...], _LAX] = Field(
        default=(), description="Empty: the embedded demo upstream."
    )
    routes: Annotated[tuple[Route, ...], _LAX] = Field(
        default=(), description="Without routes: every model, every upstream."
    )
    paths: Annotated[tuple[ApiPath, ...], _LAX] = Field(default=(), description="More API paths (POST, JSON).")
    forward_headers: Annotated[tuple[HeaderName, ...], _LAX] = Field(
        default=(), description="More client headers to pass on."
    )
    cors: Cors = Field(default=Cors(), description="Browsers on other origins.")
    keys: Keys | None = Field(
        default=None,
        description="null: without `keys_file` and `jwt` everybody, which is allowed on loopback only; the word none: "
        "open on purpose; or a list.",
    )
    keys_file: str | None = Field(
        default=None,
        description="YAML file with a list of more such keys, read again when it changes, and what it refers to.",
    )
    jwt: Jwt | None = Field(default=None, description="Tokens of an issuer are taken beside keys.")
    tenants: Annotated[tuple[Tenant, ...], _LAX] = Field(default=(), description="Limits of tenants.")
    priorities: Annotated[tuple[PriorityClass, ...], Field(min_length=1, strict=False)] = Field(
        default=DEFAULT_PRIORITIES, description="Classes of requests in the queue."
    )
    plugins: Annotated[tuple[PluginEntry, ...], _LAX] = Field(
        default=(), description="What else sees requests and streams, in this order."
    )
    observe: Observe = Field(default=Observe(), description="Logs and traces.")

    @property
    def authenticates(self) -> bool:
        """Whether clients need a key or a token."""
        return self.keys not in (None, "none") or self.keys_file is not None or self.jwt is not None

    @classmethod
    def built(cls, tree: dict[str, Any], environ: dict[str, str]) -> Self:
        """From plain values, references resolved against `environ`; pydantic's ValidationError says what is wrong."""
        return cls.model_validate(tree, context={"environ": environ})
