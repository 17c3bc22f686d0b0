"""The turns a stream can take after k events; and what a move is.

bytes    write them
float    let so many seconds pass (0.0: one turn of the event loop)
Act      see `Act`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import TypeAlias

from streamgate.demo import bodies
from streamgate.demo.grammar import Script
from streamgate.demo.writing import Writing


class Act(Enum):
    """What is neither bytes nor time."""

    ANSWERED = "answered"  # the client has all it needs: from here on, its leaving is no abort
    HANG = "hang"  # until the client leaves
    CLOSE = "close"
    RESET = "reset"
    ABRUPT = "abrupt"  # from here on, close without a word (over TLS: without close_notify)
    STALE = "stale"  # the connection's next request gets a close


Move: TypeAlias = bytes | float | Act
Moves: TypeAlias = Iterator[Move]

# A reset makes the peer's kernel forget nothing that was delivered, but what is still on its way is lost.
SETTLE = 0.02
# An endless event ends here if the client never leaves.
ENDLESS = 1024 * 1024 * 1024
PIECE = 16 * 1024

Turn: TypeAlias = Callable[[Script, Writing, bytes], Moves]


def _stall(script: Script, writing: Writing, event: bytes) -> Moves:
    yield Act.HANG


def _reset(script: Script, writing: Writing, event: bytes) -> Moves:
    yield SETTLE
    yield Act.RESET


def _eof(script: Script, writing: Writing, event: bytes) -> Moves:
    yield Act.CLOSE


def _cut(script: Script, writing: Writing, event: bytes) -> Moves:
    framed = writing.event(event)
    yield framed[: len(framed) // 2]
    yield Act.CLOSE


def _clean_eof(script: Script, writing: Writing, event: bytes) -> Moves:
    yield writing.end()


def _half(script: Script, writing: Writing, event: bytes) -> Moves:
    yield writing.event(event[: len(event) // 2])
    yield writing.end()


def _error(form: str) -> Turn:
    def turn(script: Script, writing: Writing, event: bytes) -> Moves:
        yield writing.event(bodies.error_event(script, form))
        yield writing.end()

    return turn


def _bad_chunk(script: Script, writing: Writing, event: bytes) -> Moves:
    yield b"this is no chunk size\r\n"
    yield Act.HANG


def _endless(beginning: bytes, piece: bytes) -> Turn:
    def turn(script: Script, writing: Writing, event: bytes) -> Moves:
        yield writing.framed(beginning)
        framed = writing.framed(piece)
        for _ in range(ENDLESS // len(framed)):
            yield framed
        yield Act.CLOSE

    return turn


TURNS: dict[str, Turn] = {
    "stall": _stall,
    "reset": _reset,
    "eof": _eof,
    "cut": _cut,
    "cleaneof": _clean_eof,
    "half": _half,
    "errorevent": _error("errorevent"),
    "errornamed": _error("errornamed"),
    "errorold": _error("errorold"),
    "badchunk": _bad_chunk,
    "giant": _endless(b'data: {"choices":[{"index":0,"delta":{"content":"', b"x" * PIECE),
    "giantlines": _endless(b"", b"data: xxxxxxxxx\n" * (PIECE // 16)),
}
