"""What a scripted upstream says: chat completion events, as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from streamgate.hooks import Kind, ServerSentEvent

FACTS = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1767225600, "model": "m"}
DONE = b"data: [DONE]\n\n"


class Delta(NamedTuple):
    """Text of a choice."""

    text: str
    choice: int = 0
    kind: Kind = "content"


def say(text: str, choice: int = 0, kind: Kind = "content") -> bytes:
    """The event of one delta."""
    return _chunk(choice, {"content" if kind == "content" else "reasoning_content": text}, None)


def finish(choice: int = 0, reason: str = "stop") -> bytes:
    """The event that ends a choice."""
    return _chunk(choice, {}, reason)


def written(script: Iterable[str | Delta | ServerSentEvent | bytes], *, ends: bool) -> bytes:
    """The bytes of a script; with `ends` each choice that spoke gets its finish reason, and the stream its [DONE]."""
    pieces: list[bytes] = []
    choices: dict[int, None] = {}
    for item in script:
        if isinstance(item, bytes):
            pieces.append(item)
        elif isinstance(item, ServerSentEvent):
            pieces.append(item.encode())
        else:
            delta = Delta(item) if isinstance(item, str) else item
            choices[delta.choice] = None
            pieces.append(say(*delta))
    if ends:
        pieces += [*map(finish, choices or [0]), DONE]
    return b"".join(pieces)


def answer(text: str) -> bytes:
    """A whole answer of one JSON body."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return _json(FACTS | {"object": "chat.completion", "choices": [choice]})


def _chunk(choice: int, delta: dict[str, str], reason: str | None) -> bytes:
    choices = [{"index": choice, "delta": delta, "finish_reason": reason}]
    return b"data: " + _json(FACTS | {"choices": choices}) + b"\n\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
