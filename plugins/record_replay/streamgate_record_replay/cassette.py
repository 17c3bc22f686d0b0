"""One recorded stream: lines of JSON, a head, an event each, an end. Pure.

A file without its last line is not whole, and is not replayed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from streamgate.hooks import ServerSentEvent

VERSION = 1
KEY = 32  # hex digits of the SHA-256: 128 bits


class BadCassette(Exception):
    """The file is not one of ours, or not whole; the message says which line."""


class Recorded(NamedTuple):
    """An event, `at` seconds after the request."""

    at: float
    data: str | None
    event: str | None = None
    id: str | None = None
    retry: int | None = None

    @classmethod
    def of(cls, at: float, event: ServerSentEvent) -> Recorded:
        return cls(at, _text(event.data), _text(event.event), _text(event.id), event.retry)

    def played(self) -> ServerSentEvent:
        return ServerSentEvent(self.data, event=self.event, id=self.id, retry=self.retry)


@dataclass(slots=True, kw_only=True)
class Cassette:
    """What was asked, and the stream that answered."""

    key: str
    asked: Mapping[str, Any]  # method, path, body without the ignored fields
    at: str = ""  # when, for people
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    events: list[Recorded] = field(default_factory=list)


def asked_of(method: str, path: str, body: Mapping[str, Any], ignore: Iterable[str]) -> dict[str, Any]:
    """What tells requests apart."""
    ignored = frozenset(ignore)
    return {"method": method, "path": path, "body": {name: body[name] for name in body if name not in ignored}}


def key_of(asked: Mapping[str, Any]) -> str:
    """The same for the same request, in whatever order its fields are written."""
    canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:KEY]


def written(cassette: Cassette) -> bytes:
    """ASCII: halves of characters survive, and every editor shows it."""
    head = {
        "cassette": VERSION, "key": cassette.key, "at": cassette.at, "request": cassette.asked,
        "status": cassette.status, "headers": dict(cassette.headers),
    }  # fmt: skip
    lines = [head, *map(_line, cassette.events), {"end": len(cassette.events)}]
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)


def read(content: bytes) -> Cassette:
    """The other way. Raises `BadCassette`."""
    lines = content.splitlines()
    if len(lines) < 2:
        raise BadCassette("it has no end")
    head, *events, end = (_parsed(line, number) for number, line in enumerate(lines, 1))
    if head.get("cassette") != VERSION:
        raise BadCassette(f"it is not a cassette of version {VERSION}")
    if end.get("end") != len(events):
        raise BadCassette("it has no end")
    try:
        return Cassette(
            key=str(head["key"]), at=str(head["at"]), asked=dict(head["request"]), status=int(head["status"]),
            headers={str(name): str(value) for name, value in head["headers"].items()},
            events=[_recorded(line, number) for number, line in enumerate(events, 2)],
        )  # fmt: skip
    except (LookupError, TypeError, ValueError, AttributeError):
        raise BadCassette("line 1 is not a head") from None


def _line(recorded: Recorded) -> dict[str, Any]:
    fields = {name: value for name, value in recorded._asdict().items() if value is not None}
    return {"t": round(fields.pop("at"), 6), **fields}


def _recorded(line: Mapping[str, Any], number: int) -> Recorded:
    at: Any = line.get("t")
    data, event, last, retry = (line.get(name) for name in ("data", "event", "id", "retry"))
    texts = all(text is None or isinstance(text, str) for text in (data, event, last))
    if (
        type(at) not in (int, float)
        or at < 0
        or not texts
        or not (retry is None or (type(retry) is int and retry >= 0))
    ):
        raise BadCassette(f"line {number} is not an event")
    return Recorded(float(at), data, event, last, retry)


def _parsed(line: bytes, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadCassette(f"line {number} is not an object")
    return found


def _text(value: object) -> str | None:
    return None if value is None else str(value)
