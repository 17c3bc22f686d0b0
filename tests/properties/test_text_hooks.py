"""However an answer is cut into deltas, events and reads, plugins see the same text and clients get the same."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamgate.hooks import Kept, Plugin, ServerSentEvent, Stream, Text
from streamgate.hooks.chain import Plugins
from streamgate.hooks.member import Member
from streamgate.hooks.watchdog import Running
from streamgate.testing.harness import Books
from streamgate.testing.received import Received
from streamgate.testing.relayed import Relayed

ROLE = (
    b'data: {"id":"c","n":12345678901234567890,"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
)
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1e0}}\n\n'
DONE = b"data: [DONE]\n\n"
TOOL = b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"secret"}}]}}]}\n\n'
HIGH, LOW = re.compile("[\ud800-\udbff]\\Z"), re.compile("[\udc00-\udfff]")
BETWEEN = (b"", b": a comment inside\n", b"id: 7\n", b"event: message\n", b"x-unknown: secret\n")


def kept(pending: str, word: str) -> int:
    """The longest end of this text with which the word could begin."""
    return next((size for size in range(len(word) - 1, 0, -1) if pending.endswith(word[:size])), 0)


class Replacing(Plugin):
    """Replaces one word, wherever it was cut."""

    word, by = "secret", "***"
    window = 5

    def on_text(self, text: Text, stream: Stream) -> str | Kept:
        stream.state = stream.state or {}
        was, keep = stream.state.get((text.choice, text.kind), ("", 0))
        new = text.pending[keep:]
        assert not (HIGH.search(was) and LOW.match(new)), "a character in two halves"
        done = text.pending.replace(self.word, self.by)
        keep = 0 if text.final else kept(done, self.word)
        stream.state[text.choice, text.kind] = (text.pending, keep)
        return Kept(done[: len(done) - keep], keep) if keep else done


class Second(Replacing):
    word, by = "*!", "\u2728"
    window = 1


class Looking(Plugin):
    def on_text(self, text: Text, stream: Stream) -> str:
        return text.pending

    def on_event(self, event: ServerSentEvent, stream: Stream) -> ServerSentEvent:
        return event


class Waiting(Replacing):
    waits = True

    async def on_text(self, text: Text, stream: Stream) -> str | Kept:
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop
        return Replacing.on_text(self, text, stream)


class Delta(NamedTuple):
    choice: int
    field: str
    text: str  # may be half a surrogate pair at either end


def event(delta: Delta, style: tuple[bool, str, bytes, bytes]) -> bytes:
    ascii_only, space, before, line_end = style
    choice = {"index": delta.choice, "delta": {delta.field: delta.text}, "finish_reason": None}
    value = {"id": "c", "big": 12345678901234567890123, "choices": [choice]}
    separators = ("," + space, ":" + space)
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode()
    except UnicodeEncodeError:
        text = json.dumps(value, separators=separators).encode()
    return (before + b"data: " + text + b"\n\n").replace(b"\n", line_end)


STYLES = st.tuples(
    st.booleans(), st.sampled_from(["", " ", " \t"]), st.sampled_from(BETWEEN), st.sampled_from([b"\n", b"\r\n", b"\r"])
)
PIECES = st.sampled_from(
    ["secret", "sec", "ret", "s", "\U0001f600", "\u00e9", "\ud83d", "\ude00", '"', "\\", "\n", "*", "!", "a b"]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)
CUTS = st.sets(st.integers(0, 400), max_size=8)


def units(text: str) -> str:
    """As UTF-16 has it, one lone surrogate for each half."""
    raw = text.encode("utf-16-le", "surrogatepass")
    return "".join(chr(int.from_bytes(raw[at : at + 2], "little")) for at in range(0, len(raw), 2))


def whole(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def split(text: str, at: set[int]) -> list[str]:
    places = sorted({place % (len(text) + 1) for place in at})
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True) if text[a:b]]


@st.composite
def streams(draw: st.DrawFn) -> tuple[dict[tuple[int, str], str], bytes]:
    """Texts by choice and field, and a body that says them, interleaved and in many styles."""
    texts: dict[tuple[int, str], str] = {}
    deltas: list[list[Delta]] = []
    for key in [(0, "content"), (1, "content"), (0, "reasoning_content")][: draw(st.integers(1, 3))]:
        text = texts[key] = draw(TEXTS)
        deltas.append([Delta(*key, piece) for piece in split(units(text), draw(CUTS))])
    body = ROLE
    style = st.just(draw(STYLES)) if draw(st.booleans()) else STYLES  # of one form, or each of another
    while any(deltas):
        queue = draw(st.sampled_from([queue for queue in deltas if queue]))
        body += event(queue.pop(0), draw(style)) + draw(st.sampled_from([b"", b"", TOOL, b": ping\n\n"]))
    for choice in sorted({choice for choice, _ in texts}):
        body += b'data: {"choices":[{"index":%d,"delta":{},"finish_reason":"stop"}]}\n\n' % choice
    return texts, body + draw(st.sampled_from([USAGE + DONE, USAGE, DONE, b""]))


def run(body: bytes, at: set[int], *plugins: type[Plugin]) -> tuple[Received, Books]:
    async def relayed() -> Received:
        running = Running()
        members = [Member(kind.__name__.lower(), kind(None, None), books, running, fail="closed") for kind in plugins]
        asked = {"model": "m", "stream": True}
        stream = Relayed(Plugins(members, books, running), "/v1/chat/completions", asked, {}, "", ("up",))
        places = sorted(place % (len(body) + 1) for place in at)
        pieces = [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]
        return await stream.run(
            [piece for piece in pieces if piece], [(b"content-type", b"text/event-stream")], ends=True
        )

    books = Books()
    with asyncio.Runner() as runner:
        return runner.run(relayed()), books


def texts_of(received: Received) -> dict[tuple[int, str], str]:
    content = {(choice, "content"): text for choice, text in received.texts().items()}
    return content | {(choice, "reasoning_content"): text for choice, text in received.texts("reasoning").items()}


def others(body: bytes) -> list[bytes]:
    """What is no text: by its bytes, in order."""
    marks = (b"tool_calls", b"usage", b"[DONE]", b'"finish_reason":"stop"')
    blocks = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")
    return [block for block in blocks if any(mark in block for mark in marks)]


READS = st.sets(st.integers(0, 8000), max_size=10)


@settings(max_examples=150, deadline=None)
@given(streams(), READS, st.sampled_from([Replacing, Waiting]))
def test_any_split_gives_the_same_text(stream: Any, at: set[int], kind: type[Plugin]) -> None:
    """A replaced word is replaced wherever deltas, surrogates, events and reads were cut; the rest keeps its order."""
    texts, body = stream
    received, books = run(body, at, kind)
    assert received.outcome == "completed", books.failures
    assert books.failures == []
    expected = {key: whole(text).replace("secret", "***") for key, text in texts.items()}
    got = texts_of(received)
    assert {key: got.get(key, "") for key in expected} == expected
    assert others(received.body) == others(body)


@settings(max_examples=60, deadline=None)
@given(streams(), READS)
def test_plugins_in_a_row(stream: Any, at: set[int]) -> None:
    """What the first gives out is the second's text."""
    texts, body = stream
    received, _ = run(body, at, Replacing, Second)
    expected = {key: whole(text).replace("secret", "***").replace("*!", "\u2728") for key, text in texts.items()}
    got = texts_of(received)
    assert {key: got.get(key, "") for key in expected} == expected


@settings(max_examples=100, deadline=None)
@given(streams(), READS)
def test_what_nobody_changes_passes_byte_for_byte(stream: Any, at: set[int]) -> None:
    """Hooks that only look leave every byte as it was, unless an event ended within a character."""
    _, body = stream
    halves = any(f"\\u{mark}" in body.decode().lower() for mark in ("d83d", "de00"))
    received, _ = run(body, at, Looking)
    plain, _ = run(body, at)
    if not halves:
        assert received.body == plain.body
    assert texts_of(received) == texts_of(plain)


@settings(max_examples=60, deadline=None)
@given(streams(), READS)
def test_an_upstream_that_breaks_off(stream: Any, at: set[int]) -> None:
    """What was held comes before the error event; nothing of it is lost."""
    texts, body = stream
    body = body[: body.index(b'"finish_reason":"stop"')]
    body = body[: body.rindex(b"data:")]
    received, _ = run(body, at, Replacing)
    expected = {key: whole(text).replace("secret", "***") for key, text in texts.items() if text}
    got = texts_of(received)
    assert {key: got.get(key, "") for key in expected} == expected
    if any(expected.values()):
        assert received.outcome == "truncated"
        assert b'"error"' in received.body.strip().splitlines()[-1]


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.booleans())
@example("secret\ud83d", True)
def test_a_whole_answer(text: str, ascii_only: bool) -> None:
    """An answer in one JSON body has no hole either, and its length is right."""

    async def relayed() -> Received:
        running = Running()
        plugins = Plugins([Member("r", Replacing(None, None), Books(), running)], Books(), running)
        stream = Relayed(plugins, "/v1/chat/completions", {"model": "m"}, {}, "", ("up",))
        return await stream.run([body], [(b"content-type", b"application/json")], ends=True)

    value = {"choices": [{"index": 0, "message": {"content": whole(text)}}], "big": 12345678901234567890}
    body = json.dumps(value, ensure_ascii=True if not whole(text).isascii() else ascii_only).encode()
    with asyncio.Runner() as runner:
        received = runner.run(relayed())
    assert received.text == whole(text).replace("secret", "***")
    assert received.headers["content-length"] == str(len(received.body))
    assert b"12345678901234567890" in received.body
