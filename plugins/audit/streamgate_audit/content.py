"""What was said, as it is kept: cut, or as a keyed hash. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any, Protocol

from streamgate.hooks import Text

CHOICES = 128  # of one answer: beyond that only their number is kept; APIs allow as many

Facts = dict[str, Any]
Key = tuple[int, str]


class Piece(Protocol):
    """One text, as it comes."""

    chars: int

    def add(self, text: str) -> None: ...
    def facts(self) -> Facts: ...


class Plain:
    """The first `limit` characters."""

    __slots__ = ("_kept", "_left", "chars")

    def __init__(self, limit: int) -> None:
        self.chars = 0
        self._left = limit
        self._kept: list[str] = []

    def add(self, text: str) -> None:
        self.chars += len(text)
        if self._left:
            self._kept.append(text[: self._left])
            self._left -= len(self._kept[-1])

    def facts(self) -> Facts:
        text = "".join(self._kept)
        return {"text": text, "chars": self.chars} | ({"cut": True} if self.chars > len(text) else {})


class Hashed:
    """HMAC-SHA-256 of the whole text in UTF-8, the same for every split."""

    __slots__ = ("_half", "_hash", "chars")

    def __init__(self, salt: bytes) -> None:
        self.chars = 0
        self._half = ""  # of a character that two events share
        self._hash = hmac.new(salt, digestmod="sha256")

    def add(self, text: str) -> None:
        self.chars += len(text)
        text = self._half + text
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        self._hash.update(utf8(text.removesuffix(self._half)))

    def facts(self) -> Facts:
        whole = self._hash.copy()
        whole.update(utf8(self._half))
        return {"hmac_sha256": whole.hexdigest(), "chars": self.chars}


class Said:
    """The answer of one stream, by choice and kind."""

    __slots__ = ("_make", "_pieces", "more")

    def __init__(self, make: Callable[[], Piece]) -> None:
        self._make = make
        self._pieces: dict[Key, Piece] = {}
        self.more = 0

    def add(self, text: Text) -> None:
        key = (text.choice, text.kind)
        piece = self._pieces.get(key)
        if piece is None:
            if not text.pending:
                return
            if len(self._pieces) == CHOICES:
                self.more += 1
                return
            piece = self._pieces[key] = self._make()
        piece.add(text.pending)

    def facts(self) -> list[Facts]:
        found = [{"choice": choice, "kind": kind, **piece.facts()} for (choice, kind), piece in self._pieces.items()]
        return found + ([{"more": self.more}] if self.more else [])


def utf8(text: str) -> bytes:
    """Halves that belong together are joined; lone ones, which have no bytes, become U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def plain_request(body: bytes, limit: int) -> Facts:
    """The request's body as text, cut; never more of it is read than is kept."""
    text = body[: 4 * limit].decode("utf-8", "replace")[:limit]
    return {"text": text, "bytes": len(body)} | ({"cut": True} if len(utf8(text)) < len(body) else {})


def hashed_request(body: bytes, salt: bytes) -> Facts:
    return {"hmac_sha256": hmac.digest(salt, body, "sha256").hex(), "bytes": len(body)}
