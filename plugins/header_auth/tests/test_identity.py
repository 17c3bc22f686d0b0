"""Whose word is taken, and what it says."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from streamgate_header_auth import HeaderAuthSettings
from streamgate_header_auth.identity import Peers, Unclear, brought, identity_of

from streamgate.hooks import Headers, Identity

FULL = HeaderAuthSettings(networks=["10.0.0.0/8"], models="X-Auth-Models", priority="x-auth-priority")


@pytest.mark.parametrize(
    ("address", "believed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),  # an IPv4 peer at a socket for both
        ("192.0.2.7", True),
        ("fd00::1", True),
        ("fd00::1%eth0", True),
        ("11.0.0.1", False),
        ("192.0.2.8", False),
        ("::10.1.2.3", False),
        ("::1", False),
        ("", False),  # a Unix socket, or not known
        ("10.1.2", False),
        ("localhost", False),
        ("10.1.2.3, 11.0.0.1", False),
    ],
)
def test_a_peer_is_believed_by_its_address_alone(address: str, believed: bool):
    """What is no address is nobody."""
    assert Peers(["10.0.0.0/8", "192.0.2.7", "fd00::/8"]).include(address) is believed


@given(address=st.ip_addresses(), network=st.ip_addresses(), bits=st.integers(0, 32))
def test_a_peer_is_believed_exactly_when_a_listed_network_holds_it(address: Any, network: Any, bits: int):
    """For any address and network of either kind."""
    listed = f"{network}/{bits}"
    holds = address in ipaddress.ip_network(listed, strict=False)
    mapped = getattr(address, "ipv4_mapped", None)
    assert Peers([listed]).include(str(address)) == (
        holds if mapped is None else mapped in ipaddress.ip_network(listed, False)
    )


@pytest.mark.parametrize(
    ("headers", "identity"),
    [
        ({"X-Auth-Tenant": "acme"}, Identity(tenant="acme")),
        (
            {"x-auth-tenant": " acme\t", "x-auth-name": "eve@example.com"},
            Identity(tenant="acme", name="eve@example.com"),
        ),
        (
            {"x-auth-tenant": "a", "x-auth-models": "llama-*, gpt-4", "x-auth-priority": "batch"},
            Identity(tenant="a", models=("llama-*", "gpt-4"), priority="batch"),
        ),
        ({"x-auth-name": "eve"}, None),
        ({"x-auth-tenant": ""}, None),
        ({}, None),
    ],
)
def test_headers_say_who_is_asking(headers: dict[str, str], identity: Identity | None):
    """Without a tenant nobody is."""
    assert identity_of(Headers(headers), FULL) == identity


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([("x-auth-tenant", "acme"), ("X-Auth-Tenant", "evil")], "x-auth-tenant is there more than once"),
        ([("x-auth-tenant", "acme"), ("x-auth-models", "a"), ("x-auth-models", "*")], "x-auth-models is there more"),
        ([("x-auth-tenant", "acme, evil")], "x-auth-tenant is not a name"),
        ([("x-auth-tenant", "acme"), ("x-auth-name", "x" * 129)], "x-auth-name is not a name"),
        ([("x-auth-tenant", "grüße")], "not a name"),
        ([("x-auth-tenant", "acme"), ("x-auth-models", "a,,b")], "x-auth-models is not a list"),
        ([("x-auth-tenant", "acme"), ("x-auth-models", ",")], "x-auth-models is not a list"),
        ([("x-auth-tenant", "acme"), ("x-auth-models", "a,b c")], "x-auth-models is not a list"),
        ([("x-auth-tenant", "acme"), ("x-auth-models", ",".join("a" * 101))], "x-auth-models is not a list"),
    ],
)
def test_what_is_not_clear_is_never_half_believed(pairs: list[tuple[str, str]], said: str):
    """A header that is there twice, a value that is no name: an empty list of models would allow all."""
    with pytest.raises(Unclear, match=said):
        identity_of(Headers(pairs), FULL)


def test_headers_that_are_not_configured_are_not_looked_at():
    """Only what has a name in the settings is the proxy's word."""
    settings = HeaderAuthSettings(networks=["10.0.0.0/8"], name=None)
    headers = Headers({"x-auth-tenant": "acme", "x-auth-name": "eve", "x-auth-models": "x"})
    assert identity_of(headers, settings) == Identity(tenant="acme")
    assert settings.headers == ("x-auth-tenant",) and brought(headers, settings.headers) == ["x-auth-tenant"]


@pytest.mark.parametrize(
    ("settings", "where", "said"),
    [
        ({}, ("networks",), "Field required"),
        ({"networks": []}, ("networks",), "at least 1"),
        ({"networks": ["proxy"]}, ("networks", 0), "expected an address or a network"),
        ({"networks": ["::/0"], "tenant": "x_tenant"}, ("tenant",), "expected the name of a header"),
        ({"networks": ["::/0"], "name": "Authorization"}, ("name",), "only the proxy sets"),
        ({"networks": ["::/0"], "name": "X-Auth-Tenant"}, (), "a different header for each"),
        ({"networks": ["::/0"], "untrusted": "allow"}, ("untrusted",), "'ignore' or 'refuse'"),
        ({"networks": ["::/0"], "trusted": 1}, ("trusted",), "Extra inputs"),
    ],
)
def test_a_mistake_in_the_settings_is_named_with_its_key(settings: dict[str, Any], where: tuple[str, ...], said: str):
    """Each error has the key's path and says what was expected."""
    with pytest.raises(ValidationError) as raised:
        HeaderAuthSettings.model_validate(settings)
    assert raised.value.errors()[0]["loc"] == where
    assert said in raised.value.errors()[0]["msg"]
