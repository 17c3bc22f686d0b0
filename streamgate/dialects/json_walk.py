"""JSON walked rather than parsed: where each value is, to the byte. Lenient: judges no more than it needs to go on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json.encoder import encode_basestring
from typing import Final

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
# A key and, when that is a string or a scalar, its value and what comes after it: most members in one match.
_MEMBER = re.compile(
    rb'\s*"([^"\\]*+(?:\\.[^"\\]*+)*+)"\s*:\s*(?:(' + _STRING + rb'|[^\s,:"\[\]{}]++)\s*([,}]))?', re.DOTALL
).match
_SIMPLE = re.compile(_STRING + rb'|[^\s,:"\[\]{}]++', re.DOTALL).match
_NESTING = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL).finditer
_BEGIN = re.compile(rb"[\[{]\s*([\]}])?").match
_NEXT = re.compile(rb"\s*([,}\]])\s*").match
_EMPTY: Final = frozenset((b"null", b'""', b"[]", b"{}"))
_DECODE = json.JSONDecoder(strict=False).decode  # not strict: a raw tab in a string is a tab

OBJECT, LIST, QUOTE = b'{["'


class Malformed(ValueError):
    """Not JSON, as far as it was walked."""


class Walk:
    """Where one has got to in a payload. `begin` is where the value begins that was reached last."""

    __slots__ = ("at", "begin", "payload")

    def __init__(self, payload: bytes, at: int) -> None:
        self.payload = payload
        self.at = at
        self.begin = at

    def members(self) -> Iterator[str]:
        """The keys of the object at this place. Each value may be walked, or is passed by; then this is behind all."""
        payload = self.payload
        if self._empty():
            return
        while True:
            member = _MEMBER(payload, self.at)
            if member is None:
                raise Malformed
            key, value, following = member.groups()
            self.begin = self.at = member.start(2) if value is not None else member.end()
            begin = self.begin
            yield key.decode("utf-8", "replace") if b"\\" not in key else unescaped(key)
            if value is not None:
                self.at = member.end()
            else:
                following = self._following(begin)
            if following == b"}":
                return

    def elements(self) -> Iterator[int]:
        """The positions of the elements of the array at this place; as `members`."""
        if self._empty():
            return
        position = 0
        while True:
            begin = self.begin = self.at
            yield position
            if self._following(begin) == b"]":
                return
            position += 1

    @property
    def mark(self) -> int:
        """The first byte of the value."""
        return self.payload[self.begin]

    def span(self) -> tuple[int, int]:
        """Where the value is."""
        return self.begin, self._end(self.begin)

    def says(self) -> bool:
        """The value is anything but null or empty."""
        begin, end = self.span()
        return self.payload[begin:end] not in _EMPTY

    def _empty(self) -> bool:
        begin = _BEGIN(self.payload, self.at)
        if begin is None:
            raise Malformed
        self.at = begin.end()
        return begin[1] is not None

    def _following(self, begin: int) -> bytes:
        """Pass by the value that begins here, unless it was walked, and what comes after it."""
        if self.at == begin:
            self.at = self._end(begin)
        following = _NEXT(self.payload, self.at)
        if following is None:
            raise Malformed
        self.at = following.end()
        return following[1]

    def _end(self, begin: int) -> int:
        payload = self.payload
        if payload[begin] not in (OBJECT, LIST):
            value = _SIMPLE(payload, begin)
            if value is None:
                raise Malformed
            return value.end()
        depth = 0
        for token in _NESTING(payload, begin):
            mark = payload[token.start()]
            if mark in (OBJECT, LIST):
                depth += 1
            elif mark != QUOTE:
                depth -= 1
                if not depth:
                    return token.end()
        raise Malformed


def escaped(text: str) -> bytes:
    """What stands between the quotes of a JSON string. A lone surrogate, which UTF-8 has no bytes for, is escaped."""
    try:
        return encode_basestring(text)[1:-1].encode()
    except UnicodeEncodeError:
        return json.dumps(text)[1:-1].encode()


def unescaped(raw: bytes) -> str:
    """The text of what stands between the quotes. Raises ValueError for escapes that there are none of."""
    text = raw.decode("utf-8", "replace")
    if b"\\" not in raw:
        return text
    value: str = _DECODE(f'"{text}"')
    return value
