"""How many connections there are, from where, and how many were refused: shared by all connections of a worker."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from streamgate.errors import Reason, Refusal

# Refused connections are told so, which costs a descriptor for a second; past this part of the reserve they are cut.
_SILENT_PART = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CensusLimits:
    """Counts; 0 is no limit. `descriptors` is the process's RLIMIT_NOFILE, `reserve` what the edge leaves of it."""

    connections: int = 0
    per_address: int = 0
    trusted: Sequence[IPv4Network | IPv6Network] = ()
    descriptors: int = 0
    reserve: int = 64


class Census:
    """Connections that were let in, by address, and refusals by reason."""

    __slots__ = ("addresses", "closing", "connections", "emptied", "refused")

    def __init__(self) -> None:
        self.connections = 0
        self.emptied = asyncio.Event()  # set when the last one has left
        self.closing = False  # draining: every answer from now on ends its connection
        self.addresses: dict[str, int] = {}
        self.refused: Counter[Reason] = Counter()

    def enter(self, address: str) -> None:
        self.connections += 1
        self.addresses[address] = self.addresses.get(address, 0) + 1

    def leave(self, address: str) -> None:
        self.connections -= 1
        left = self.addresses[address] - 1
        if left:
            self.addresses[address] = left
        else:
            del self.addresses[address]
        if not self.connections:
            self.emptied.set()

    def statistics(self) -> dict[str, object]:
        """Plain values for the admin port: connections, addresses, refused by reason."""
        return {
            "connections": self.connections,
            "addresses": len(self.addresses),
            "refused": {reason.value: count for reason, count in self.refused.items()},
        }


def why_not(census: Census, limits: CensusLimits, address: str, descriptor: int) -> Refusal | None:
    """Why one more connection from `address` may not enter, or None.

    `descriptor` is the new socket's number: the kernel gives the lowest free one, so it says how many are in use.
    """
    if limits.descriptors and descriptor >= limits.descriptors - limits.reserve:
        return _busy("The gateway has too many connections.")
    if limits.connections and census.connections >= limits.connections:
        return _busy("The gateway has too many connections.")
    if limits.per_address and census.addresses.get(address, 0) >= limits.per_address and not _trusts(limits, address):
        return _busy("There are too many connections from this address.")
    return None


def past_telling(limits: CensusLimits, descriptor: int) -> bool:
    """Whether descriptors are so few that a refused connection is cut without an answer."""
    return bool(limits.descriptors) and descriptor >= limits.descriptors - limits.reserve // _SILENT_PART


def address_key(host: str) -> str:
    """What connections are counted by: an IPv4 address, or the /64 network that one IPv6 customer holds."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))


def _busy(message: str) -> Refusal:
    return Refusal(Reason.OVERLOAD, 503, message, code="too_many_connections", retry_after=1.0)


def _trusts(limits: CensusLimits, address: str) -> bool:
    if not address:
        return True  # a Unix socket has no address to be limited by
    peer = ipaddress.ip_address(address)
    return any(peer in network for network in limits.trusted)
