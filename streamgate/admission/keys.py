"""Who is asking: API keys, held and compared as SHA-256 digests, and tokens where they are taken.

A digest's first 8 bytes find the keys it may be, so that 10,000 cost as much as one; the whole digests are compared in
constant time. What the time of that lookup tells is about a digest, which nobody can choose bit by bit.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from streamgate.admission.identity import ANONYMOUS, Identity
from streamgate.errors import Reason, Refusal

CHALLENGE = ((b"www-authenticate", b"Bearer"),)
PREFIX = "sg-"  # tells the key of a gateway from others, for people and for scanners of leaked secrets

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class StaticKey:
    """One key: its SHA-256 digest, 32 bytes, and who bears it."""

    digest: bytes
    identity: Identity


class Ring:
    """A set of keys, by digest."""

    _PART = 8  # bytes that find the candidates: two keys share them once in 10^11 rings of 10,000

    def __init__(self, keys: Iterable[StaticKey] = ()) -> None:
        self._candidates: dict[bytes, list[StaticKey]] = {}
        for key in keys:
            self._candidates.setdefault(key.digest[: self._PART], []).append(key)
        self._nobody = [StaticKey(bytes(32), ANONYMOUS)]  # compared when there is no candidate: as much work as for one

    def find(self, digest: bytes) -> Identity | None:
        found = None
        for key in self._candidates.get(digest[: self._PART], self._nobody):
            if hmac.compare_digest(key.digest, digest):
                found = key.identity
        return None if found is ANONYMOUS else found


class Rings(Protocol):
    """Keys that may change while the gateway runs: a file's."""

    @property
    def refusals(self) -> int:
        """How often what was there could not be used."""

    async def current(self) -> Ring: ...


class Tokens(Protocol):
    """Keys that others issue."""

    async def identify(self, token: bytes, now: float) -> Identity: ...


class Keys:
    """Everybody who may ask. `static`, `file` and `tokens` all None: whoever asks is `anonymous`."""

    def __init__(
        self,
        static: Iterable[StaticKey] | None = None,
        *,
        file: Rings | None = None,
        tokens: Tokens | None = None,
        anonymous: Identity = ANONYMOUS,
    ) -> None:
        self.open = static is None and file is None and tokens is None
        self._static = Ring(static or ())
        self._file = file
        self._tokens = tokens
        self._anonymous = anonymous

    async def identify(self, headers: Headers, now: float) -> Identity:
        """Whose key these headers carry (`Authorization: Bearer` or `x-api-key`); `now` in seconds since the epoch.

        Raises Refusal 401 when there is none, more than one, an unknown or an expired one; 503 when a token cannot be
        judged because its issuer's keys are not known.
        """
        if self.open:
            return self._anonymous
        given = set(_keys_in(headers))
        if len(given) != 1:
            raise not_valid("Several different API keys were sent." if given else "An API key is required.")
        key = given.pop()
        identity = await self._known(sha256(key).digest())
        if identity is None:
            if self._tokens is None or key.count(b".") != 2:
                raise not_valid("The API key is not valid.")
            identity = await self._tokens.identify(key, now)
        if identity.expires and now >= identity.expires:
            raise expired("The API key has expired.")
        return identity

    @property
    def refusals(self) -> int:
        """How many versions of the keys file could not be used."""
        return self._file.refusals if self._file is not None else 0

    async def _known(self, digest: bytes) -> Identity | None:
        found = self._static.find(digest)
        if found is None and self._file is not None:
            found = (await self._file.current()).find(digest)
        return found


def not_valid(message: str) -> Refusal:
    return Refusal(Reason.AUTH, 401, message, code="invalid_api_key", headers=CHALLENGE)


def expired(message: str) -> Refusal:
    return Refusal(Reason.AUTH, 401, message, code="expired_api_key", headers=CHALLENGE)


def new_key() -> str:
    """A key with 256 bits of chance in it: `sg-` and 43 characters that are safe in a URL."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """What the configuration keeps of a key: its SHA-256, as 64 hexadecimal digits."""
    return sha256(key.encode()).hexdigest()


def _keys_in(headers: Headers) -> Iterable[bytes]:
    for name, value in headers:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            yield key.strip() if scheme.lower() == b"bearer" else b""
