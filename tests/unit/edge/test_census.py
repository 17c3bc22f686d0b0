"""Who may connect, as a table."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from streamgate.edge.census import Census, CensusLimits, address_key, past_telling, why_not
from streamgate.errors import Reason


def test_the_census_balances() -> None:
    """Who entered and left leaves no trace."""
    census = Census()
    census.enter("10.0.0.1")
    census.enter("10.0.0.1")
    census.enter("10.0.0.2")
    census.leave("10.0.0.1")
    census.refused[Reason.OVERLOAD] += 2
    assert census.statistics() == {"connections": 2, "addresses": 2, "refused": {"overload": 2}}
    census.leave("10.0.0.1")
    census.leave("10.0.0.2")
    assert (census.connections, census.addresses) == (0, {})


@pytest.mark.parametrize(
    ("limits", "address", "descriptor", "welcome"),
    [
        (CensusLimits(), "10.0.0.1", 900, True),
        (CensusLimits(connections=3), "10.0.0.9", 9, True),
        (CensusLimits(connections=2), "10.0.0.9", 9, False),
        (CensusLimits(per_address=3), "10.0.0.1", 9, True),
        (CensusLimits(per_address=2), "10.0.0.1", 9, False),
        (CensusLimits(per_address=2), "10.0.0.2", 9, True),
        (CensusLimits(per_address=2, trusted=[ip_network("10.0.0.0/8")]), "10.0.0.1", 9, True),
        (CensusLimits(per_address=2, trusted=[ip_network("11.0.0.0/8")]), "10.0.0.1", 9, False),
        (CensusLimits(per_address=2, trusted=[ip_network("::/0")]), "10.0.0.1", 9, False),
        (CensusLimits(per_address=1), "", 9, True),
        (CensusLimits(descriptors=1024), "10.0.0.1", 959, True),
        (CensusLimits(descriptors=1024), "10.0.0.1", 960, False),
        (CensusLimits(descriptors=1024, trusted=[ip_network("10.0.0.0/8")]), "10.0.0.1", 960, False),
    ],
)
def test_who_is_welcome(limits: CensusLimits, address: str, descriptor: int, welcome: bool) -> None:
    """Three limits, of which trusted peers are exempt from the one per address; 503 with Retry-After above each."""
    census = Census()
    for known in ("10.0.0.1", "10.0.0.1", ""):
        census.enter(known)
    census.connections = 2
    refusal = why_not(census, limits, address, descriptor)
    assert (refusal is None) is welcome
    if refusal is not None:
        assert (refusal.status, refusal.reason, refusal.retry_after) == (503, Reason.OVERLOAD, 1.0)


@pytest.mark.parametrize(("descriptors", "number", "silent"), [(0, 5000, False), (1024, 991, False), (1024, 992, True)])
def test_half_of_the_reserve_is_not_spent_on_refusals(descriptors: int, number: int, silent: bool) -> None:
    """A refused connection holds a descriptor while it is told so; near the end there is none to spare for that."""
    assert past_telling(CensusLimits(descriptors=descriptors), number) is silent


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_what_addresses_are_counted_by(host: str, key: str) -> None:
    """One IPv6 customer has a /64 of addresses, and counts as one."""
    assert address_key(host) == key
