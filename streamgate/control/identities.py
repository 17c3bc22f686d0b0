"""From what the configuration says about keys, tenants and tokens to the identities that admission knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from streamgate.admission import claim
from streamgate.admission.identity import ANONYMOUS, Identity, smallest
from streamgate.admission.jwt import TokenSettings
from streamgate.admission.keys import StaticKey
from streamgate.control.admitting import NO_LIMITS, Jwt, Key, LevelLimits
from streamgate.control.keys_file import read_keys
from streamgate.control.problems import ConfigError
from streamgate.control.settings import Config


def limits_at(level: LevelLimits) -> claim.Limits:
    """What the ledger judges of a level's limits."""
    return claim.Limits(
        concurrent=level.concurrent,
        requests_per_minute=level.requests_per_minute,
        tokens_per_minute=level.tokens_per_minute,
    )


def priorities_of(config: Config) -> tuple[claim.Priority, ...]:
    return tuple(claim.Priority(**each.model_dump()) for each in config.priorities)


def anonymous_of(config: Config) -> Identity:
    """Everybody, where nobody needs a key."""
    return replace(ANONYMOUS, priority=config.priorities[0].name)


def static_keys(config: Config) -> list[StaticKey] | None:
    """The keys of the configuration itself; None where it asks for none at all."""
    if not config.authenticates:
        return None
    return _known(config.keys if isinstance(config.keys, tuple) else (), config)


def keys_parser(config: Config, environ: Mapping[str, str]) -> Callable[[bytes], list[StaticKey]]:
    """What makes keys of the content of `keys_file`, and ValueError of what is wrong in it."""

    def parse(content: bytes) -> list[StaticKey]:
        try:
            return _known(read_keys(config, environ, content), config)
        except ConfigError as error:
            first, *more = map(str, error.problems)
            raise ValueError(f"{first} (and {len(more)} more)" if more else first) from None

    return parse


def token_settings(jwt: Jwt) -> TokenSettings:
    return TokenSettings(
        issuer=jwt.issuer,
        audience=jwt.audience,
        algorithms=jwt.algorithms,
        leeway=jwt.leeway,
        tenant_claim=jwt.claims.tenant,
        priority_claim=jwt.claims.priority,
        models_claim=jwt.claims.models,
    )


def members_of(config: Config) -> Callable[[str, str | None], Identity]:
    """Who a token's tenant is, of which class. Its limits stand where a key's do; `:` is in no key's name."""
    limits = config.jwt.limits if config.jwt is not None else NO_LIMITS
    tenants = _tenants(config)
    classes = [each.name for each in config.priorities]

    def member(tenant: str, priority: str | None) -> Identity:
        name = priority if priority in classes else classes[0]
        return _identity(f"jwt:{tenant}", tenant, name, limits, tenants.get(tenant, NO_LIMITS))

    return member


def guests_of(config: Config) -> Callable[[str, str, Sequence[str], str], Identity]:
    """Who a plugin says is asking: a tenant, perhaps one of its people, the models and the class. Only its tenant has
    limits; `:` is in no key's name."""
    tenants = _tenants(config)
    classes = [each.name for each in config.priorities]

    def guest(tenant: str, name: str, models: Sequence[str], priority: str) -> Identity:
        named = priority if priority in classes else classes[0]
        identity = _identity(f"plugin:{name or tenant}", tenant, named, NO_LIMITS, tenants.get(tenant, NO_LIMITS))
        return replace(identity, models=tuple(models))

    return guest


def ceilings(config: Config, own: LevelLimits, upstreams: Sequence[str]) -> tuple[int, float]:
    """The largest body (bytes) and longest time (s) of a stream on a route, whoever asks; 0: no limit."""
    levels = [own, *(up.limits for up in config.upstreams if up.name in upstreams)]
    body = smallest(*(level.max_body for level in levels))
    duration = smallest(config.limits.max_duration, *(level.max_duration for level in levels))
    return int(body), float(duration)


def _known(keys: Iterable[Key], config: Config) -> list[StaticKey]:
    tenants = _tenants(config)
    default = config.priorities[0].name
    return [StaticKey(key.digest, _bearer(key, tenants, default)) for key in keys]


def _bearer(key: Key, tenants: Mapping[str, LevelLimits], default: str) -> Identity:
    tenant = key.tenant or key.name
    identity = _identity(key.name, tenant, key.priority or default, key.limits, tenants.get(tenant, NO_LIMITS))
    return replace(identity, models=key.models, expires=key.expires.timestamp() if key.expires is not None else 0.0)


def _identity(key: str, tenant: str, priority: str, own: LevelLimits, shared: LevelLimits) -> Identity:
    return Identity(
        key=key,
        tenant=tenant,
        priority=priority,
        limits=limits_at(own),
        tenant_limits=limits_at(shared),
        max_body=int(smallest(own.max_body, shared.max_body)),
        max_duration=float(smallest(own.max_duration, shared.max_duration)),
    )


def _tenants(config: Config) -> dict[str, LevelLimits]:
    return {tenant.name: tenant.limits for tenant in config.tenants}
