"""Who is asking: a static list of keys, held and compared as SHA-256 digests.

Every digest is compared, in constant time, whichever matches first: how long an answer takes says nothing of a key.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from streamgate.errors import Reason, Refusal

_CHALLENGE = ((b"www-authenticate", b"Bearer"),)


class Keys:
    """`names` maps a key's name (the tenant) to the key itself; empty: everybody may ask, as nobody in particular."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._digests = [(sha256(key.encode()).digest(), name) for name, key in names.items()]

    def tenant(self, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """The tenant whose key these headers carry (`Authorization: Bearer` or `x-api-key`).

        Raises Refusal 401 when there is none, more than one, or an unknown one.
        """
        if not self._digests:
            return ""
        given = set(_keys_in(headers))
        if len(given) != 1:
            what = "Several different API keys were sent." if given else "An API key is required."
            raise Refusal(Reason.AUTH, 401, what, code="invalid_api_key", headers=_CHALLENGE)
        digest = sha256(given.pop()).digest()
        found = ""
        for known, name in self._digests:
            if hmac.compare_digest(known, digest):
                found = name
        if not found:
            raise Refusal(Reason.AUTH, 401, "The API key is not valid.", code="invalid_api_key", headers=_CHALLENGE)
        return found


def _keys_in(headers: Sequence[tuple[bytes, bytes]]) -> Iterable[bytes]:
    for name, value in headers:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            yield key.strip() if scheme.lower() == b"bearer" else b""
