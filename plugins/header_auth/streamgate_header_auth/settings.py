"""The plugin's settings."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("expected an address or a network, such as 10.0.0.0/8") from None
    return text


def _header(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):  # no underscore: some proxies take x_user for x-user
        raise ValueError("expected the name of a header, of letters, digits and hyphens")
    if name.lower() in ("authorization", "cookie", "x-forwarded-for", "x-request-id", "host"):
        raise ValueError("expected a header that only the proxy sets")
    return name.lower()


Header = Annotated[str, AfterValidator(_header)]


class HeaderAuthSettings(BaseModel):
    """See the README for what each means."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    networks: Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], Field(min_length=1)]
    """Addresses and networks of the proxies whose word is taken."""
    tenant: Header = "x-auth-tenant"
    """The header with the tenant: a request without it has no identity."""
    name: Header | None = "x-auth-name"
    """The header with the name of the key or person."""
    models: Header | None = None
    """The header with globs of models that may be used, separated by commas."""
    priority: Header | None = None
    """The header with the name of a configured priority class."""
    untrusted: Literal["ignore", "refuse"] = "ignore"
    """What becomes of requests that bring such headers from elsewhere."""
    missing: Literal["next", "refuse"] = "next"
    """What becomes of a proxy's request without a tenant: who else may know, or a refusal."""

    @model_validator(mode="after")
    def _different(self) -> Self:
        if len(set(self.headers)) < len(self.headers):
            raise ValueError("expected a different header for each")
        return self

    @property
    def headers(self) -> tuple[str, ...]:
        """All that are in use."""
        return tuple(name for name in (self.tenant, self.name, self.models, self.priority) if name is not None)
