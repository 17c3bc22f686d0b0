"""What the configuration's keys, tenants and tokens become for admission."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest

from streamgate.admission.claim import Limits, Priority
from streamgate.admission.identity import ANONYMOUS, Identity
from streamgate.admission.jwt import JsonWebTokens, TokenSettings
from streamgate.control.identities import (
    anonymous_of,
    ceilings,
    keys_parser,
    members_of,
    priorities_of,
    static_keys,
    token_settings,
)
from streamgate.control.keyring import keys_of
from streamgate.control.settings import Config

ENV = {"KEY": "sk-one", "TWO": "sk-two"}
A = "a" * 64
JWT = {"issuer": "i", "audience": "a", "jwks": "https://i.test:444/jwks?x=y"}


def config(**tree: Any) -> Config:
    return Config.built(tree, ENV)


def test_a_key_becomes_an_identity() -> None:
    """With its own limits, its tenant's, and of the two bodies and times the smaller."""
    built = config(
        keys=[
            {"name": "one", "key": "${KEY}"},
            {
                "name": "two",
                "sha256": A,
                "tenant": "acme",
                "models": ["m*"],
                "priority": "batch",
                "expires": datetime(2027, 1, 31, tzinfo=UTC),
                "limits": {"concurrent": 3, "max_body": 500, "max_duration": 90.0},
            },
        ],
        tenants=[{"name": "acme", "limits": {"requests_per_minute": 9, "max_body": 900, "max_duration": 60.0}}],
    )
    one, two = static_keys(built) or []
    assert one.digest == sha256(b"sk-one").digest()
    assert one.identity == Identity(key="one", tenant="one", priority="interactive")
    assert two.digest == bytes.fromhex(A)
    assert two.identity == Identity(
        key="two",
        tenant="acme",
        models=("m*",),
        priority="batch",
        limits=Limits(concurrent=3),
        tenant_limits=Limits(requests_per_minute=9),
        max_body=500,
        max_duration=60.0,
        expires=datetime(2027, 1, 31, tzinfo=UTC).timestamp(),
    )


def test_without_keys_everybody_is_of_the_first_class() -> None:
    """And with any way to ask for keys nobody is let in without one."""
    assert static_keys(config()) is static_keys(config(keys="none")) is None
    assert anonymous_of(config()) == Identity(priority="interactive") != ANONYMOUS
    assert static_keys(config(jwt=JWT)) == []
    assert priorities_of(config()) == (Priority(name="interactive", weight=9.0), Priority(name="batch", weight=1.0))
    assert keys_of(config(keys="none"), ENV).open


def test_a_file_is_parsed_as_the_configuration_is() -> None:
    """What is wrong with it is one line for the log, without what was written."""
    parse = keys_parser(config(keys_file="/etc/keys.yaml", keys=[{"name": "one", "key": "${KEY}"}]), ENV)
    (key,) = parse(b'- {name: two, key: "${TWO}"}')
    assert key.digest == sha256(b"sk-two").digest() and key.identity.priority == "interactive"
    with pytest.raises(ValueError, match=r"^/etc/keys.yaml:1: keys\[0\]: expected either .* \(and 1 more\)$") as caught:
        parse(b"- {name: two}\n- {name: three, key: sk-written-out}")
    assert "sk-written-out" not in str(caught.value)
    with pytest.raises(ValueError, match=r"a list of keys; \[\] for none$"):
        parse(b"")


def test_a_tokens_tenant_is_a_member() -> None:
    """With what tokens are allowed, what its tenant is, and a class that exists."""
    limits = {"concurrent": 2, "max_body": 70}
    built = config(
        jwt=JWT | {"limits": limits}, tenants=[{"name": "acme", "limits": {"concurrent": 9, "max_body": 50}}]
    )
    member = members_of(built)
    assert member("acme", "batch") == Identity(
        key="jwt:acme",
        tenant="acme",
        priority="batch",
        limits=Limits(concurrent=2),
        tenant_limits=Limits(concurrent=9),
        max_body=50,
    )
    assert member("bob", "nonsense").priority == member("bob", None).priority == "interactive"
    assert member("bob", None).tenant_limits == Limits()
    assert members_of(config())("bob", None).limits == Limits()


def test_what_tokens_must_say() -> None:
    """Each key of `jwt` arrives."""
    built = config(jwt=JWT | {"leeway": 5, "algorithms": ["EdDSA"], "claims": {"tenant": "org", "models": "m"}})
    assert built.jwt is not None
    assert token_settings(built.jwt) == TokenSettings(
        issuer="i", audience="a", algorithms=("EdDSA",), leeway=5.0, tenant_claim="org", models_claim="m"
    )
    assert isinstance(keys_of(built, ENV)._tokens, JsonWebTokens)


def test_the_strictest_of_a_routes_ceilings_holds() -> None:
    """The route's, its upstreams', and for time the gateway's."""
    built = config(
        upstreams=[
            {"name": "a", "url": "http://a", "limits": {"max_body": 500}},
            {"name": "b", "url": "http://b", "limits": {"max_body": 100, "max_duration": 70}},
        ],
        routes=[{"models": ["x"], "upstreams": ["a"], "limits": {"max_body": 900, "max_duration": 300}}],
        limits={"max_duration": 200},
    )
    own = built.routes[0].limits
    assert ceilings(built, own, ("a",)) == (500, 200.0)
    assert ceilings(built, own, ("a", "b")) == (100, 70.0)
    assert ceilings(Config(), own, ()) == (900, 300.0)
