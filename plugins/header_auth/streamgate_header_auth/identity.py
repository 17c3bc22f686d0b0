"""Which peers are believed, and what their headers say. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from streamgate.hooks import Headers, Identity
from streamgate_header_auth.settings import HeaderAuthSettings, Network

# What tenants and names may look like: it goes into logs, metrics and stores.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:+/-]{0,127}")
_GLOB = re.compile(r"[!-+\--~]{1,256}")  # printable, without comma
MODELS = 100


class Unclear(Exception):
    """A header is there twice or holds what it should not; the message names it."""


def network_of(text: str) -> Network:
    return ipaddress.ip_network(text, strict=False)


class Peers:
    """The networks whose word is taken."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: Sequence[Network] = tuple(map(network_of, networks))
        self.include = lru_cache(maxsize=1024)(self._include)

    def _include(self, address: str) -> bool:
        """An address that is none, such as a Unix socket's, is not among them."""
        try:
            peer = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(peer, ipaddress.IPv6Address):
            peer = peer.ipv4_mapped or peer  # what a socket for both calls an IPv4 peer
        return any(peer in network for network in self._networks)


def brought(headers: Headers, names: Iterable[str]) -> list[str]:
    """Which of these headers are there."""
    return [name for name in names if name in headers]


def identity_of(headers: Headers, settings: HeaderAuthSettings) -> Identity | None:
    """None without a tenant. Raises `Unclear`."""
    tenant = _said(headers, settings.tenant)
    if not tenant:
        return None
    return Identity(
        tenant=_checked(settings.tenant, tenant),
        name=_checked(settings.name, _said(headers, settings.name)),
        models=_globs(settings.models, _said(headers, settings.models)),
        priority=_checked(settings.priority, _said(headers, settings.priority)),
    )


def _said(headers: Headers, name: str | None) -> str:
    """A header that is there twice is one that a proxy has added to its client's: whose is whose is not known."""
    found = [value for given, value in headers.pairs if given == name]
    if len(found) > 1:
        raise Unclear(f"{name} is there more than once")
    return found[0].strip(" \t") if found else ""


def _checked(name: str | None, value: str) -> str:
    if value and not _NAME.fullmatch(value):
        raise Unclear(f"{name} is not a name")
    return value


def _globs(name: str | None, value: str) -> tuple[str, ...]:
    globs = tuple(glob.strip(" \t") for glob in value.split(",")) if value else ()
    if len(globs) > MODELS or not all(map(_GLOB.fullmatch, globs)):
        raise Unclear(f"{name} is not a list of models")
    return globs
