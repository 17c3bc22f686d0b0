"""A stream, move by move: head, events at their pace, the turn it takes or its end. Pure generators."""

from __future__ import annotations

from streamgate.demo import bodies
from streamgate.demo.grammar import Group, Script
from streamgate.demo.request import Call
from streamgate.demo.turns import TURNS, Act, Moves
from streamgate.demo.writing import SSE, Writing, head


def stream(script: Script, call: Call) -> Moves:
    """A whole stream, head to end, with what happens in the middle of it."""
    if "length" in script.options:
        writing = Writing(script, chunked=False)
        body = b"".join(move for move in events(script, call, writing) if isinstance(move, bytes))
        yield from sized(script, call, 200, SSE, body)
        return
    writing = Writing(script, chunked="http10" not in script.options)
    yield stream_head(script, call)
    if script.delay:
        yield script.delay
    body_moves = events(script, call, writing)
    if "burst" in script.options:
        body_moves = joined(body_moves)
    elif "split" in script.options:
        body_moves = in_pieces(body_moves, max(1, script.options["split"]))
    yield from body_moves


def stream_head(script: Script, call: Call, **more: str | int) -> bytes:
    framing = {} if "http10" in script.options else {"transfer-encoding": "chunked"}
    coding = {"content-encoding": "gzip"} if "gzip" in script.options else {}
    headers = {"content-type": SSE, "cache-control": "no-cache", **framing, **coding}
    return head(script, call, 200, {**headers, **{name.replace("_", "-"): value for name, value in more.items()}})


def events(script: Script, call: Call, writing: Writing) -> Moves:
    """The events at their pace, up to the end or the turn that things take."""
    turn, after = script.chosen(Group.TURN)
    gap = 0.0 if "flood" in script.options else script.gap
    paced = bodies.deltas(script, call)
    sent = 0
    for event in paced:
        if turn and sent == after:
            yield from TURNS[turn](script, writing, event)
            return
        if sent and gap:
            yield gap
        sent += 1
        yield writing.event(event)
    for event in bodies.closing(script, call):
        if turn and sent == after:
            yield from TURNS[turn](script, writing, event)
            return
        sent += 1
        yield writing.event(event)
    if turn:
        yield from TURNS[turn](script, writing, bodies.DONE)
    elif "doneopen" in script.options:
        yield Act.ANSWERED
        yield Act.HANG
    else:
        yield writing.end()


def joined(body: Moves) -> Moves:
    """All bytes in one write, no waits between them."""
    parts: list[bytes] = []
    for move in body:
        if isinstance(move, bytes):
            parts.append(move)
        elif isinstance(move, Act):
            yield b"".join(parts)
            parts.clear()
            yield move
    yield b"".join(parts)


def in_pieces(body: Moves, size: int) -> Moves:
    """Every write in writes of `size` bytes, a turn of the loop between them."""
    for move in body:
        if isinstance(move, bytes):
            for at in range(0, len(move), size):
                yield move[at : at + size]
                yield 0.0
        else:
            yield move


def sized(script: Script, call: Call, status: int, kind: str, body: bytes, **more: str | int) -> Moves:
    """A head and a body of known length (over HTTP/1.0: one that ends with the connection)."""
    framing: dict[str, str | int] = {} if "http10" in script.options else {"content-length": len(body)}
    named = {name.replace("_", "-"): value for name, value in more.items()}
    yield head(script, call, status, {"content-type": kind, **framing, **named}) + body
