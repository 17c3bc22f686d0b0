"""What a request claims of admission: which limits hold for it, and how it stands among the others. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Where a limit stands."""

    GLOBAL = "global"
    TENANT = "tenant"
    KEY = "key"
    MODEL = "model"
    UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one level allows; 0: no limit. Tokens are those of prompts and answers together."""

    concurrent: int = 0
    requests_per_minute: int = 0
    tokens_per_minute: int = 0


@dataclass(frozen=True, slots=True)
class Bound:
    """The limits of one level, and whose they are: the name of a tenant, key, route or upstream, "" for the global."""

    level: Level
    name: str
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What all requests of one key for one route have in common: made once, kept, compared by identity.

    `own` limits belong to who asks: one that is reached is refused at once (429). `shared` ones and one of `upstreams`
    (empty: none of them has a limit) are waited for in the queue (503 when that is in vain). Requests of the same
    priority, tenant and route wait in one line.
    """

    own: tuple[Bound, ...] = ()
    shared: tuple[Bound, ...] = ()
    upstreams: tuple[Bound, ...] = ()
    tenant: str = ""
    priority: str = ""
    route: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Priority:
    """A class of requests. While several wait, `weight` is its share of the slots that come free, in proportion to the
    others'; `reserved` is the share (0 to 1) of `limits.concurrent` that no other class may take."""

    name: str
    weight: float = 1.0
    reserved: float = 0.0
