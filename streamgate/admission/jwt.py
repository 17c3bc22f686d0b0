"""Tokens of an issuer: JSON Web Tokens, judged by PyJWT (extra `jwt`), the only module that knows it.

A token is judged once: its identity is kept under its digest until it expires or the issuer's keys change, because an
RSA signature costs 50 us and an elliptic one 100.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from streamgate.admission.identity import NO_MODEL, Identity
from streamgate.admission.jwks import KeySet
from streamgate.admission.keys import expired, not_valid
from streamgate.errors import Reason, Refusal

REMEMBERED = 4096  # tokens; one more and all are judged anew
MAX_TOKEN = 16384  # bytes: heads are bounded below this by default
_KIND = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}  # of key, by the first letters of the algorithm

Member = Callable[[str, str | None], Identity]  # tenant, priority -> whose limits and class hold


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """What a token must say. `leeway` in seconds, for clocks that differ; claims: None is not looked for."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    leeway: float = 30.0
    tenant_claim: str = "sub"
    priority_claim: str | None = None
    models_claim: str | None = None


class JsonWebTokens:
    """Who the bearer of a token is. Raises ImportError when PyJWT is not installed."""

    def __init__(self, settings: TokenSettings, keys: KeySet, member: Member) -> None:
        import jwt  # noqa: PLC0415 - only where it is configured

        self._jwt = jwt
        self._decoder = jwt.PyJWT(options={"require": ["exp", "iss", "aud"]})
        self.settings = settings
        self.keys = keys
        self._member = member
        self._judged_with = keys.keys
        self._known: dict[bytes, Identity] = {}

    async def identify(self, token: bytes, now: float) -> Identity:
        """Raises Refusal: 401 for a token that is not good, 503 when that cannot be told yet."""
        algorithm, kid = self._head(token)
        candidates = await self.keys.candidates(kid)
        if self._judged_with is not self.keys.keys or len(self._known) >= REMEMBERED:
            self._judged_with = self.keys.keys
            self._known.clear()
        digest = sha256(token).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._judged(token, algorithm, candidates)
            self._known[digest] = known
        return known

    def _head(self, token: bytes) -> tuple[str, str | None]:
        """Algorithm and key id: what the token says of itself, so far nobody's word."""
        if len(token) > MAX_TOKEN:
            raise not_valid("The token is too long.")
        try:
            head = self._jwt.get_unverified_header(token)
        except (self._jwt.PyJWTError, ValueError, RecursionError):  # no text, or a hundred brackets
            raise not_valid("The token is not valid.") from None
        algorithm, kid = head.get("alg"), head.get("kid")
        if algorithm not in self.settings.algorithms:
            raise not_valid("The token is not signed with an algorithm that is accepted here.")
        return str(algorithm), kid

    def _judged(self, token: bytes, algorithm: str, candidates: Sequence[Mapping[str, Any]]) -> Identity:
        kind = _KIND[algorithm[:2]]
        fitting = [key for key in candidates if key["kty"] == kind and key.get("alg", algorithm) == algorithm]
        if not fitting and not self.keys.reachable:
            raise Refusal(
                Reason.AUTH,
                503,
                "The token cannot be checked now: its issuer's keys are not available.",
                code="issuer_unavailable",
                retry_after=self.keys.retry_after(),
            )
        for key in fitting:
            claims = self._claims(token, algorithm, key)
            if claims is not None:
                return self._identity(claims)
        raise not_valid("The token is not signed by a key of its issuer.")

    def _claims(self, token: bytes, algorithm: str, key: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What a token says; None when another key signed it."""
        jwt, settings = self._jwt, self.settings
        try:
            public = jwt.PyJWK(dict(key), algorithm)
            claims: Mapping[str, Any] = self._decoder.decode(
                token,
                public,
                algorithms=[algorithm],
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway,
            )
        except (jwt.InvalidSignatureError, jwt.InvalidKeyError, jwt.PyJWKError):
            return None
        except jwt.ExpiredSignatureError:
            raise expired("The token has expired.") from None
        except jwt.InvalidAudienceError:
            raise not_valid("The token is for another audience.") from None
        except jwt.InvalidIssuerError:
            raise not_valid("The token is of another issuer.") from None
        except jwt.ImmatureSignatureError:
            raise not_valid("The token is not valid yet.") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise not_valid("The token is not valid.") from None
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        settings = self.settings
        tenant = claims.get(settings.tenant_claim)
        if not isinstance(tenant, str) or not 0 < len(tenant) <= 128 or not tenant.isprintable():
            raise not_valid(f"The token's claim {settings.tenant_claim} does not name anybody.")
        priority = claims.get(settings.priority_claim) if settings.priority_claim else None
        member = self._member(tenant, priority if isinstance(priority, str) else None)
        return replace(member, models=self._models(claims), expires=float(claims["exp"]) + settings.leeway)

    def _models(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """A list of globs; an empty one allows nothing, and a token without the claim is not good."""
        claim = self.settings.models_claim
        if claim is None:
            return ()
        globs = claims.get(claim)
        if not isinstance(globs, list) or not all(isinstance(glob, str) for glob in globs):
            raise not_valid(f"The token's claim {claim} is not a list of models.")
        return tuple(globs) or NO_MODEL
