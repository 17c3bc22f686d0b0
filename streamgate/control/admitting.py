"""The keys about who may stream and how much: keys, tenants, tokens, limits, priorities."""

from __future__ import annotations

from hashlib import sha256 as _sha256
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from streamgate.control.base import Settings
from streamgate.control.credentials import KeySource, Moment, Sha256, StoreUrl, TenantName
from streamgate.control.values import Count, Fraction, Glob, Name, Seconds, Secret

_LAX = Field(strict=False)  # a YAML list becomes a tuple


class Sparse(Settings):
    """Printed without what was not set: there may be thousands of them."""

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value not in (None, 0, [], (), {})}


class LevelLimits(Sparse):
    """What one key, tenant, route or upstream is allowed; 0: no limit."""

    concurrent: Count = Field(default=0, description="Streams at once.")
    requests_per_minute: Count = Field(default=0, description="Requests that are let in.")
    tokens_per_minute: Count = Field(
        default=0, description="Tokens of prompts and answers: estimated at first, corrected when a stream ends."
    )
    max_body: Count = Field(default=0, description="A request's body. Of all that apply, the smallest holds.")
    max_duration: Seconds = Field(default=0.0, description="A stream's whole time. The smallest holds.")


NO_LIMITS = LevelLimits()


class Shed(Settings):
    """When newcomers are refused because the process itself is in trouble; 0: never for that."""

    lag: Seconds = Field(default=0.0, description="Delay of the event loop.")
    memory: Count = Field(default=0, description="Resident memory of the process.")


class Limits(Settings):
    """What the whole gateway is allowed, and how requests wait; 0: no limit."""

    concurrent: Count = Field(default=0, description="Streams at once; 0: no limit.")
    queue: Count = Field(default=0, description="Requests that may wait for a stream to end; 0: none.")
    max_wait: Seconds = Field(default=10.0, description="In the queue.")
    max_event: int = Field(default=1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="One event of an upstream.")
    requests_per_minute: Count = Field(default=0, description="Requests that are let in.")
    tokens_per_minute: Count = Field(default=0, description="Tokens of prompts and answers.")
    max_duration: Seconds = Field(default=0.0, description="A stream's whole time, whatever `clocks` say.")
    store: StoreUrl | None = Field(
        default=None,
        description="redis:// or rediss:// URL of what replicas share their limits by; its password is a reference, or "
        "the whole URL is one. null: each process counts for itself.",
    )
    store_timeout: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = Field(
        default=0.25, description="That a decision waits for the store."
    )
    store_down: Literal["open", "closed"] = Field(
        default="open", description="Without the store: each process counts for itself, or every request is refused."
    )
    lease_ttl: Annotated[float, Field(ge=0.5, le=3600, allow_inf_nan=False)] = Field(
        default=30.0, description="After which the streams of a replica that died count no more."
    )
    shed: Shed = Field(default=Shed(), description="Refusals for the sake of the streams that run.")


class PriorityClass(Settings):
    """Requests that stand in the queue as one; the first class is that of keys that name none."""

    name: Name = Field(description="As keys name it.")
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = Field(
        default=1.0, description="Its share of the places that come free, in proportion to the others'."
    )
    reserved: Fraction = Field(default=0.0, description="Share of `limits.concurrent` that no other class may take.")


class Tenant(Settings):
    """Limits of all keys of one tenant together."""

    name: TenantName = Field(description="As `keys[].tenant` or a token's claim says it.")
    limits: LevelLimits = Field(description="What they are allowed.")


class Key(Sparse):
    """One client's key, as itself or as its digest. `streamgate key new` makes one."""

    name: Name = Field(description="As logs call it; each its own.")
    key: Secret | None = Field(default=None, description="What the client sends as its bearer token or x-api-key.")
    sha256: Sha256 | None = Field(default=None, description="Instead of `key`: the key's SHA-256.")
    tenant: TenantName | None = Field(default=None, description="Whose key it is; null: a tenant of the key's name.")
    models: Annotated[tuple[Glob, ...], _LAX] = Field(
        default=(), description="Names or patterns of the models it may be used for; empty: all."
    )
    priority: Name | None = Field(default=None, description="Its class in the queue; null: the first of `priorities`.")
    expires: Moment | None = Field(
        default=None, description="When it ends: a date (its first moment in UTC), or a date and time with its zone."
    )
    limits: LevelLimits = Field(default=NO_LIMITS, description="What it is allowed.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Key:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("expected either `key`, a reference to it, or `sha256`, its digest")
        return self

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key."""
        if self.key is not None:
            return _sha256(self.key.get_secret_value().encode()).digest()
        return bytes.fromhex(self.sha256 or "")


def _all_different(keys: tuple[Key, ...]) -> tuple[Key, ...]:
    if len({key.digest for key in keys}) < len(keys):
        raise ValueError("expected a different key for each name")
    return keys


def _keys_tag(written: Any) -> str:
    return "<word>" if isinstance(written, str) else "<list>"


_KeyList = Annotated[tuple[Key, ...], Field(min_length=1, strict=False), AfterValidator(_all_different)]
Keys = Annotated[
    Annotated[Literal["none"], Tag("<word>")] | Annotated[_KeyList, Tag("<list>")], Discriminator(_keys_tag)
]


class KeyList(Settings):
    """A keys file: it may be empty, and then nobody has a key."""

    keys: Annotated[tuple[Key, ...], _LAX, AfterValidator(_all_different)] = ()


class Claims(Settings):
    """Which claims of a token say what."""

    tenant: Annotated[str, Field(min_length=1)] = Field(default="sub", description="Whose it is; text.")
    priority: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Its class; one that does not exist is the first of `priorities`."
    )
    models: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="A list of names or patterns, as `keys[].models`; an empty one allows none."
    )


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class Jwt(Settings):
    """Tokens of an issuer, beside keys (extra `jwt`)."""

    issuer: Annotated[str, Field(min_length=1)] = Field(description="What `iss` must be.")
    audience: Annotated[str, Field(min_length=1)] = Field(description="What `aud` must be, or contain.")
    jwks: KeySource = Field(description="URL (http, https) or path of the issuer's JSON Web Key Set.")
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1, strict=False)] = Field(
        default=("RS256", "ES256"), description="Accepted signatures."
    )
    leeway: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)] = Field(
        default=30.0, description="By which clocks may differ."
    )
    claims: Claims = Field(default=Claims(), description="Which claims say what.")
    limits: LevelLimits = Field(default=NO_LIMITS, description="What each tenant's tokens are allowed, together.")


DEFAULT_PRIORITIES = (
    PriorityClass(name="interactive", weight=9.0),
    PriorityClass(name="batch", weight=1.0),
)
