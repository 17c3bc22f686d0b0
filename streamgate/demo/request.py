"""What arrived: requests cut from a connection's bytes, and what each asks for. Pure.

Deliberately small: it trusts that whoever speaks to it is a gateway under test, and keeps the bytes for the tests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any


class BadRequest(ValueError):
    """Bytes that are not a request this server can read."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `raw` is every byte of it, as it arrived; header names are in lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str:
        """The first header of this name, or the empty string."""
        return next((value for known, value in self.headers if known == name), "")

    @property
    def rid(self) -> str:
        return self.header("x-request-id")

    def shortened(self, size: int) -> Request:
        """The same with at most `size` bytes of `raw` and `body`."""
        return self if len(self.raw) <= size else replace(self, body=self.body[:size], raw=self.raw[:size])

    def json(self) -> dict[str, Any]:
        """The body's object; an empty one when it is something else."""
        try:
            parsed = json.loads(self.body)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}


class Cutter:
    """Bytes in, whole requests out. `rest` is what has not become one yet."""

    __slots__ = ("_needed", "rest")

    def __init__(self) -> None:
        self.rest = bytearray()
        self._needed = 0  # do not look again before so many bytes are there: bodies may be large

    def feed(self, chunk: bytes) -> None:
        self.rest += chunk

    def take(self) -> Request | None:
        """The next whole request, or None when there is none yet; raises BadRequest."""
        if len(self.rest) < self._needed or not self.rest:
            return None
        end = self.rest.find(b"\r\n\r\n")
        if end < 0:
            return None
        method, target, headers = _head(bytes(self.rest[:end]))
        found = self._body(end + 4, headers)
        if found is None:
            return None
        body, size = found
        raw = bytes(self.rest[:size])
        del self.rest[:size]
        self._needed = 0
        return Request(method, target, headers, body, raw)

    def _body(self, start: int, headers: tuple[tuple[str, str], ...]) -> tuple[bytes, int] | None:
        """The body and where it ends."""
        named = dict(headers)
        if "chunked" in named.get("transfer-encoding", "").lower():
            return _chunked(self.rest, start)
        length = named.get("content-length", "0")
        if not length.isdecimal():
            raise BadRequest("content-length is not a number")
        size = start + int(length)
        if len(self.rest) < size:
            self._needed = size
            return None
        return bytes(self.rest[start:size]), size


def _head(head: bytes) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    request_line, *lines = head.decode("latin-1").split("\r\n")
    parts = request_line.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequest("not a request line")
    pairs = (line.partition(":") for line in lines)
    return parts[0], parts[1], tuple((name.lower(), value.strip()) for name, _, value in pairs)


def _chunked(rest: bytearray, at: int) -> tuple[bytes, int] | None:
    pieces: list[bytes] = []
    while True:
        line_end = rest.find(b"\r\n", at)
        if line_end < 0:
            return None
        try:
            size = int(rest[at:line_end].split(b";")[0], 16)
        except ValueError:
            raise BadRequest("a chunk size is not a number") from None
        at = line_end + 2
        if len(rest) < at + size + 2:
            return None
        if size == 0:
            return b"".join(pieces), at + 2
        pieces.append(bytes(rest[at : at + size]))
        at += size + 2


class Family(Enum):
    """Whose events an answer is made of."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
    MODELS = "/v1/models"
    OTHER = ""


@dataclass(frozen=True, slots=True)
class Call:
    """What one request asks for; `number` counts the requests of this server."""

    family: Family
    rid: str
    number: int
    model: str = "demo"
    stream: bool = False
    choices: int = 1
    include_usage: bool = False
    prompt_tokens: int = 1
    inputs: int = 1  # of embeddings
    size: int = 0  # of the request's body
    last: bool = False  # the client asked for the connection to be closed


def call_of(request: Request, number: int) -> Call:
    """What the request asks for; what is missing or of the wrong type has a default."""
    asked = request.json()
    families = {family.value: family for family in Family}
    family = families.get(request.path, Family.MODELS if request.path.startswith("/v1/models/") else Family.OTHER)
    options, inputs = asked.get("stream_options"), asked.get("input")
    return Call(
        family=family,
        rid=request.rid or f"request-{number}",
        number=number,
        model=str(asked.get("model", "demo")),
        stream=asked.get("stream") is True,
        choices=_count(asked.get("n")),
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        prompt_tokens=max(1, len(request.body.split())),
        inputs=len(inputs) if isinstance(inputs, list) and inputs else 1,
        size=len(request.body),
        last=request.header("connection").lower() == "close",
    )


def _count(asked: object) -> int:
    return asked if isinstance(asked, int) and 1 <= asked <= 16 else 1
