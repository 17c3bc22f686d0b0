"""The public keys of a token issuer, kept and fetched again: by age, and when a token names one that is not known.

An issuer that cannot be reached leaves the known keys as they are. Nobody can make us ask more often than every 30 s:
anybody can write a token that names an unknown key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from streamgate.admission.errand import Errand
from streamgate.clock import monotonic

KEPT = 300.0  # s: a key that its issuer withdrew is taken for so long, and by the next request after it
SPACING = 30.0  # s between two fetches
PATIENCE = 5.0  # s for one fetch
MAX_SIZE = 1024 * 1024  # bytes of a key set: real ones have a few thousand

Key = Mapping[str, Any]  # one JSON Web Key
Fetch = Callable[[], bytes]  # blocking; raises OSError or ValueError


class KeySet:
    """The keys of one issuer. `failures` counts fetches that brought nothing; `failed` hears why, in a thread."""

    def __init__(self, fetch: Fetch, *, failed: Callable[[str], None]) -> None:
        self.keys: tuple[Key, ...] = ()
        self.failures = 0
        self.reachable = False  # the last fetch brought keys
        self._fetch = fetch
        self._failed = failed
        self._asked_at = -SPACING
        self._fresh_until = 0.0
        self._errand = Errand(self._ask)

    async def candidates(self, kid: str | None) -> Sequence[Key]:
        """The keys that a token with this key id may be signed with. Without one: the only key there is.

        Waits for a fetch only when there is none; known keys that are old are good until newer ones have come.
        """
        found = self._named(kid)
        if self._errand.running or self._due(known=bool(found)):
            if not self._errand.running:
                self._asked_at = monotonic()
            await self._errand.run(0.0 if found else PATIENCE)
        return self._named(kid)

    def _due(self, *, known: bool) -> bool:
        now = monotonic()
        return (not known or now >= self._fresh_until) and now - self._asked_at >= SPACING

    def retry_after(self) -> float:
        """Seconds until the issuer may be asked again."""
        return max(1.0, self._asked_at + SPACING - monotonic())

    def _named(self, kid: str | None) -> Sequence[Key]:
        if kid is None:
            return self.keys if len(self.keys) == 1 else ()
        return [key for key in self.keys if key.get("kid") == kid]

    def _ask(self) -> None:
        """In a thread: the keys are exchanged by one assignment."""
        self.reachable = False
        try:
            keys = keys_in(self._fetch())
        except (OSError, ValueError) as error:
            self.failures += 1
            self._failed(type(error).__name__)  # its text may hold whatever the issuer said
            return
        if keys != self.keys:
            self.keys = keys
        self.reachable = True
        self._fresh_until = monotonic() + KEPT


def keys_in(text: bytes) -> tuple[Key, ...]:
    """The signing keys of a JSON Web Key Set; symmetric ones and those for encryption left out. Raises ValueError."""
    try:
        said = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    listed = said.get("keys") if isinstance(said, dict) else None
    if not isinstance(listed, list):
        raise ValueError("expected a JSON Web Key Set")  # noqa: TRY004 - one kind of error for whatever is wrong
    keys = (key for key in listed if isinstance(key, dict))
    return tuple(key for key in keys if key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig")


def from_file(path: str) -> bytes:
    return Path(path).read_bytes()


def from_url(url: str) -> bytes:
    """What a URL answers, within `PATIENCE` seconds; a redirect is an error: it could lead anywhere."""
    until = monotonic() + PATIENCE
    request = Request(url, headers={"accept": "application/json"})  # noqa: S310 - http or https: the settings say so
    pieces: list[bytes] = []
    try:
        with build_opener(_NoRedirects).open(request, timeout=PATIENCE) as answer:
            while piece := answer.read1(65536):
                pieces.append(piece)
                if monotonic() > until or sum(map(len, pieces)) > MAX_SIZE:
                    raise ValueError("too slow, or too large")
    except HTTPException as error:
        raise ValueError(type(error).__name__) from None
    return b"".join(pieces)


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        raise HTTPError(req.full_url, code, "redirected", headers, fp)
