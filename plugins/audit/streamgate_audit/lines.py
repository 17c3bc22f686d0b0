"""One line for each request: JSON, its fields in a fixed order. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from streamgate.hooks import Ended

VERSION = 1
_TEXTS = ("id", "tenant", "client", "method", "path", "model", "upstream", "outcome", "reason", "code", "finish_reason")
_COUNTS = ("status", "attempts", "events", "bytes_in", "bytes_out")
_TIMES = ("duration", "queued", "first_token", "max_gap")  # in seconds


def facts_of(record: Ended) -> dict[str, Any]:
    """What is known of every request; texts that are empty are left out."""
    facts: dict[str, Any] = {"v": VERSION, "kind": "request", "at": moment(record.at)}
    facts |= {name: value for name in _TEXTS if (value := getattr(record, name))}
    facts |= {name: getattr(record, name) for name in _COUNTS}
    facts |= {name: round(value, 6) for name in _TIMES if (value := getattr(record, name)) is not None}
    if record.usage is not None:
        facts["usage"] = record.usage._asdict()
    return facts


def dropped(count: int, at: float) -> dict[str, Any]:
    """So that a gap in the file is seen in the file."""
    return {"v": VERSION, "kind": "dropped", "at": moment(at), "count": count}


def line(facts: dict[str, Any]) -> bytes:
    """ASCII, so that no text can break a line or a reader."""
    return json.dumps(facts, separators=(",", ":")).encode() + b"\n"


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(moment: str) -> float:
    """The other way. Raises ValueError."""
    return datetime.fromisoformat(moment).timestamp()
