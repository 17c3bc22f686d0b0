"""What the server does for one request, move by move: the answer, or what stands in its place. Pure generators."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from streamgate.demo import bodies
from streamgate.demo.grammar import Group, Script
from streamgate.demo.request import Call, Family
from streamgate.demo.streams import events, sized, stream, stream_head
from streamgate.demo.turns import TURNS, Act, Move, Moves
from streamgate.demo.writing import JSON, SSE, Writing, bomb, ends_connection, head


def moves(script: Script, call: Call) -> Moves:
    """Everything that is done for one request."""
    word, number = script.chosen(Group.ANSWER)
    if "nonotify" in script.options:
        yield Act.ABRUPT
    if script.head_delay:
        yield script.head_delay
    if "earlyhints" in script.options:
        yield b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"
    if word:
        yield from ANSWERS[word](script, call, number)
    else:
        yield from answer(script, call)
    yield Act.ANSWERED
    yield from afterwards(script, call)


def plainly(call: Call, status: int, body: bytes) -> Moves:
    """An answer that no script asked for."""
    yield from sized(Script(), call, status, JSON, body)
    yield from afterwards(Script(), call)


def answer(script: Script, call: Call) -> Moves:
    streams = call.stream and call.family not in (Family.EMBEDDINGS, Family.MODELS)
    return stream(script, call) if streams else single(script, call)


def afterwards(script: Script, call: Call) -> Moves:
    """What happens on the connection once the answer is out."""
    options = script.options
    second = sized(script, call, 200, JSON, bodies.error_body("This is nobody's answer."))
    if "twice" in options:
        yield from second
    if "twicelate" in options:
        yield options["twicelate"] / 1000
        yield from second
    if "stale" in options:
        yield Act.STALE
    if "hangup" in options:
        yield options["hangup"] / 1000
        yield Act.CLOSE
    if ends_connection(script, call):
        yield Act.CLOSE


# ---------------------------------------------------------------- answers that are no streams


def single(script: Script, call: Call) -> Moves:
    """The answer to a request without `stream: true`, after the time that its tokens take."""
    busy = script.delay + script.tokens * script.gap
    if busy:
        yield busy
    turn, after = script.chosen(Group.TURN)
    body = bodies.whole(script, call)
    if turn.startswith("error"):
        yield from _status(script, call, 500)
    elif turn or "chunked" in script.options:
        yield from _single_chunked(script, call, body, after)
    elif "gzip" in script.options:
        writing = Writing(script, chunked=False)
        packed = writing.event(body) + writing.end()
        yield from sized(script, call, 200, JSON, packed, content_encoding="gzip")
    else:
        yield from sized(script, call, 200, JSON, body)


def _single_chunked(script: Script, call: Call, body: bytes, after: int) -> Moves:
    """A body in two chunks; with a turn, what happens after the first one (`k` 0: before it)."""
    turn, _ = script.chosen(Group.TURN)
    writing = Writing(script, chunked="http10" not in script.options)
    framing = {"transfer-encoding": "chunked"} if writing.chunked else {}
    yield head(script, call, 200, {"content-type": JSON, **framing})
    half = len(body) // 2
    if after or not turn:
        yield writing.framed(body[:half])
    if turn:
        yield from TURNS[turn](script, writing, body[half:])
    else:
        yield writing.framed(body[half:])
        yield writing.end()


# ---------------------------------------------------------------- in place of the answer

Answer: TypeAlias = Callable[[Script, Call, int], Moves]


def _status(script: Script, call: Call, status: int) -> Moves:
    body = bodies.error_body(bodies.message_of(script), type=_ERROR_TYPES.get(status, "server_error"))
    more: dict[str, str | int] = {"retry_after": script.options["r"]} if "r" in script.options else {}
    return sized(script, call, status, JSON, body, **more)


_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


def _html(script: Script, call: Call, status: int) -> Moves:
    page = b"<!doctype html><title>It went wrong</title><h1>Not here</h1><p>upstream-17.internal</p>"
    return sized(script, call, status, "text/html; charset=utf-8", page)


def _empty(script: Script, call: Call, status: int) -> Moves:
    if not call.stream:
        return sized(script, call, status, JSON, b"")
    framing = {"content-type": SSE, "transfer-encoding": "chunked"}
    return iter([head(script, call, status, framing) + b"0\r\n\r\n"])


def _redirect(script: Script, call: Call, status: int) -> Moves:
    return sized(script, call, status, "text/plain", b"elsewhere", location="http://127.0.0.1:9/elsewhere")


def _dribble(script: Script, call: Call, gap_ms: int) -> Moves:
    played = answer(script, call)
    first = next(move for move in played if isinstance(move, bytes))
    end = first.find(b"\r\n\r\n") + 4
    for at in range(end):
        yield first[at : at + 1]
        yield gap_ms / 1000
    yield first[end:]
    yield from played


def _half_head(script: Script, call: Call, _: int) -> Moves:
    yield b"HTTP/1.1 200 OK\r\ncontent-type: text/ev"
    yield Act.HANG


def _garbage(script: Script, call: Call, _: int) -> Moves:
    yield b"SSH-2.0-OpenSSH_9.9\r\n\x00\x00\x01\x14\x07\x14 not HTTP at all\r\n\r\n"
    yield Act.HANG


def _header_bomb(script: Script, call: Call, size: int) -> Moves:
    line = b"x-bomb: " + b"b" * 1000 + b"\r\n"
    yield b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n"
    for _ in range(max(1, size // (64 * len(line)))):
        yield line * 64
    yield b"\r\n"


def _comments_only(script: Script, call: Call, gap_ms: int) -> Moves:
    writing = Writing(script, chunked="http10" not in script.options)
    yield stream_head(script, call)
    while True:
        yield gap_ms / 1000
        yield writing.framed(b": still here\n\n")


def _gzip_bomb(script: Script, call: Call, size: int) -> Moves:
    writing = Writing(script, chunked=True)
    yield stream_head(script, call, content_encoding="gzip")
    for piece in bomb(size):
        yield writing.framed(piece)
    yield writing.end()


def _both_lengths(script: Script, call: Call, _: int) -> Moves:
    yield stream_head(script, call, content_length=5)
    yield from events(script, call, Writing(script, chunked=True))


def _wrong_length(error: int) -> Answer:
    def answered(script: Script, call: Call, _: int) -> Moves:
        body = bodies.whole(script, call)
        if call.stream:
            played = events(script, call, Writing(script, chunked=False))
            body = b"".join(move for move in played if isinstance(move, bytes))
        kind = SSE if call.stream else JSON
        yield head(script, call, 200, {"content-type": kind, "content-length": len(body) + error}) + body
        if error > 0:
            yield Act.CLOSE

    return answered


def _only(*acts: Move) -> Answer:
    def acted(script: Script, call: Call, _: int) -> Moves:
        return iter(acts)

    return acted


ANSWERS: dict[str, Answer] = {
    "status": _status,
    "html": _html,
    "jsonerror": _status,
    "empty": _empty,
    "redirect": _redirect,
    "silent": _only(Act.HANG),
    "resethead": _only(Act.RESET),
    "eofhead": _only(Act.CLOSE),
    "halfhead": _half_head,
    "dribble": _dribble,
    "garbage": _garbage,
    "headerbomb": _header_bomb,
    "commentsonly": _comments_only,
    "gzipbomb": _gzip_bomb,
    "clte": _both_lengths,
    "shortcl": _wrong_length(-10),
    "longcl": _wrong_length(10),
}
