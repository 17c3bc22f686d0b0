"""Who is asking, as everything behind the key sees it: a name, a tenant, and what they may do. Plain values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from streamgate.admission.claim import Limits

NO_LIMITS = Limits()
NO_MODEL = ("",)  # globs that no model's name matches: an empty tuple would allow all


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One who may ask. `models` are globs, empty for all; `max_body` in bytes and `max_duration` in seconds are the
    key's or the tenant's, whichever is less, 0 for no limit; `expires` in seconds since the epoch, 0.0 for never."""

    key: str = ""
    tenant: str = ""
    models: tuple[str, ...] = ()
    priority: str = ""
    limits: Limits = NO_LIMITS
    tenant_limits: Limits = NO_LIMITS
    max_body: int = 0
    max_duration: float = 0.0
    expires: float = 0.0

    def may(self, model: str) -> bool:
        """Whether requests for this model are allowed; by the name that the client uses."""
        return not self.models or _any_of(self.models).fullmatch(model) is not None

    def may_all(self, patterns: tuple[str, ...]) -> bool:
        """The same for a request that names no model, and so may be for any that these names and globs stand for.

        A glob that matches the text of another one allows at least as much, unless its `?` stood for a `*`.
        """
        return not self.models or all(
            pattern in self.models or ("*" not in pattern and self.may(pattern)) or self._covers(pattern)
            for pattern in patterns
        )

    def _covers(self, pattern: str) -> bool:
        wide = tuple(glob for glob in self.models if "?" not in glob)
        return bool(wide) and _any_of(wide).fullmatch(pattern) is not None


ANONYMOUS = Identity()  # everybody, where no keys are set


def smallest(*limits: float) -> float:
    """The strictest of some limits, of which 0 is none; 0 when there is none at all."""
    return min((limit for limit in limits if limit), default=0)


@lru_cache(maxsize=4096)
def _any_of(globs: tuple[str, ...]) -> re.Pattern[str]:
    """`*` is any text, `?` any one character, and nothing else is special: as in routes. Matches in linear time."""
    return re.compile("|".join(translate(glob.replace("[", "[[]")) for glob in globs))
