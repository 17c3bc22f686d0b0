"""The plugin, as the gateway asks it."""

from __future__ import annotations

from typing import Any

import pytest
from streamgate_header_auth import HeaderAuth

from streamgate.hooks import Headers, Identity, Refuse, RequestHead
from streamgate.testing import PluginHarness

pytestmark = pytest.mark.anyio
PROXY, STRANGER = "10.0.0.1", "198.51.100.9"
ACME = {"x-auth-tenant": "acme"}


def harness(**settings: Any) -> PluginHarness:
    return PluginHarness(HeaderAuth, {"networks": ["10.0.0.0/8"], **settings})


async def test_a_listed_proxy_says_who_is_asking():
    """Its word is counted."""
    async with harness() as gateway:
        assert await gateway.authenticate(ACME, PROXY) == Identity(tenant="acme")
        assert await gateway.authenticate({}, PROXY) is None
        assert gateway.metric("identified_total") == 1 and gateway.failures == []


async def test_the_same_headers_from_elsewhere_are_ignored_counted_and_logged_once_a_minute():
    """Nobody becomes a tenant by saying so; and nobody fills the log."""
    async with harness() as gateway:
        for _ in range(3):
            assert await gateway.authenticate(ACME, STRANGER) is None
        assert await gateway.authenticate({"authorization": "Bearer x"}, STRANGER) is None
        assert gateway.metric("spoofed_total") == 3
        assert gateway.log.lines == [
            ("warning", "header_auth_spoofed", {"client": STRANGER, "headers": ["x-auth-tenant"]})
        ]
        gateway.ahead += 60
        await gateway.authenticate(ACME, STRANGER)
        assert len(gateway.log.lines) == 2


async def test_from_elsewhere_they_are_refused_where_the_settings_say_so():
    """Any of them, also without a tenant; requests without them are others' to judge."""
    async with harness(untrusted="refuse") as gateway:
        for headers in (ACME, {"x-auth-name": "eve"}):
            with pytest.raises(Refuse) as refused:
                await gateway.authenticate(headers, STRANGER)
            assert (refused.value.status, refused.value.code) == (403, "identity_not_trusted")
        assert await gateway.authenticate({}, STRANGER) is None


async def test_a_proxy_that_says_nobody_is_refused_where_the_settings_say_so():
    """Else the gateway's own keys are asked."""
    async with harness(missing="refuse") as gateway:
        with pytest.raises(Refuse) as refused:
            await gateway.authenticate({"x-auth-name": "eve"}, PROXY)
        assert (refused.value.status, refused.value.code) == (401, "identity_missing")
        assert await gateway.authenticate({}, STRANGER) is None


async def test_a_proxy_whose_word_is_not_clear_is_refused_and_what_it_said_is_not_logged():
    """Its client may have written half of it."""
    async with harness() as gateway:
        with pytest.raises(Refuse) as refused:
            await gateway.authenticate({"x-auth-tenant": "acme, evil"}, PROXY)
        assert (refused.value.status, refused.value.code) == (401, "identity_unclear")
        assert gateway.metric("unclear_total") == 1
        assert "evil" not in repr(gateway.log.lines)


async def test_a_header_that_a_proxy_has_added_to_its_client_s_is_refused():
    """Two headers of one name, as they come over the wire."""
    async with harness() as gateway:
        twice = Headers([("x-auth-tenant", "evil"), ("x-auth-tenant", "acme")])
        with pytest.raises(Refuse):
            gateway.plugin.authenticate(RequestHead(method="POST", path="/", headers=twice, client=PROXY))
