"""What the edge allows: the operator's numbers, and what all connections of a worker share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from streamgate.edge.census import Census, CensusLimits
from streamgate.edge.head import HeadLimits
from streamgate.errors import Reason, Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """Seconds, bytes and counts; 0 is no limit of connections. `send` is the listening socket's TCP_USER_TIMEOUT.

    A body may take `body_timeout` and one second more for every 64 KiB of it.
    """

    head_timeout: float = 10.0
    body_timeout: float = 30.0
    keep_alive: float = 75.0  # beyond a load balancer's usual 60: never are we the one whose close races with a request
    send: float = 30.0
    max_head: int = 32768
    max_line: int = 8192
    max_fields: int = 100
    max_body: int = 33554432
    max_connections: int = 0
    max_connections_per_address: int = 0
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    reserve_descriptors: int = 64


@dataclass(frozen=True, slots=True)
class Policy:
    """What all connections of a worker share."""

    settings: GuardSettings
    head: HeadLimits
    limits: CensusLimits
    census: Census
    error_body: Callable[[bytes, Refusal], bytes]  # of a path, empty when it is not known
    refused: Callable[[Reason], None]
