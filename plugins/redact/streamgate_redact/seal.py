"""What stands for a match when equal ones are to be told apart from others, and none of them is to be read."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

DIGITS: Final = 12  # of hexadecimal: 48 bits; two of a million different values are the same with one in 500


class Hashed:
    """`[email:0f3c29aa81d4]`: HMAC-SHA256 by the configured key, of all of the match."""

    __slots__ = ("_mac", "_name")

    def __init__(self, name: str, key: bytes) -> None:
        self._name = name
        self._mac = hmac.new(key, f"{name}:".encode(), hashlib.sha256)

    def feed(self, text: str) -> None:
        self._mac.update(text.encode("utf-8", "surrogatepass"))

    def text(self) -> str:
        return f"[{self._name}:{self._mac.hexdigest()[:DIGITS]}]"
