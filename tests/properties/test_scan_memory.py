"""What a dialect remembers of the event before only makes it faster: each event is judged as if it were the first."""

from __future__ import annotations

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamgate.dialects.dialect import Seen, Sight
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.dialects.openai_completions import OPENAI_COMPLETIONS

TEXTS = st.text(st.sampled_from('ab "\\\n\r{}[]:,é\u2028error'), max_size=6) | st.sampled_from(["error", "[DONE]", ""])
RAW = st.lists(
    st.sampled_from(
        [b'"', b"\\", b"\n", b"\r", b"\n\n", b"a", b"error", b"}", b"]}", b"data: [DONE]", b"event: error\n"]
    ),
    max_size=4,
).map(b"".join)


def chat(text: str, key: str = "content") -> bytes:
    choice = {"index": 0, "delta": {key: text}, "finish_reason": None}
    return b"data: " + json.dumps({"id": "c", "choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"


def completion(text: str, reason: str | None = None) -> bytes:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"


def damaged(raw: bytes) -> bytes:
    """The bytes of a token with anything at all where its text should be."""
    before, after = chat("#").split(b"#")
    return before + raw + after


FRAMES = (
    TEXTS.map(chat)
    | TEXTS.map(lambda text: chat(text, "reasoning_content"))
    | RAW.map(damaged)
    | st.tuples(TEXTS, TEXTS).map(lambda two: chat(two[0]) + chat(two[1]))
    | st.just(chat("a") + b"data: [DONE]\n\n")
)


@settings(max_examples=400, deadline=None)
@given(st.lists(FRAMES, min_size=2, max_size=8))
@example([chat("a"), damaged(b'a"},"finish_reason":"stop"}]}\n\ndata: {"choices":[{"delta":{"content":"b')])
@example([chat("a"), damaged(b"a\\")])
@example([chat("a"), damaged(b"")])
def test_chat(frames: list[bytes]) -> None:
    """Flags, counts, choices and ends are those of an event scanned with nothing remembered."""
    seen = Seen()
    for frame in frames:
        events, alone = seen.events, Seen()
        sight = OPENAI_CHAT.scan(frame, alone) & ~Sight.ORDINARY
        assert OPENAI_CHAT.scan(frame, seen) & ~Sight.ORDINARY == sight
        assert seen.events - events == alone.events
        assert seen.finished.keys() >= alone.finished.keys() and seen.choices >= alone.choices
        if sight & (Sight.ERROR | Sight.END):
            assert (seen.stop, seen.end) == (alone.stop, alone.end)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS.map(completion) | TEXTS.map(lambda text: completion(text, "stop")), min_size=2, max_size=8))
def test_completions(frames: list[bytes]) -> None:
    """The same, where a finish reason may come with the text."""
    seen = Seen()
    for frame in frames:
        alone = Seen()
        assert OPENAI_COMPLETIONS.scan(frame, seen) & ~Sight.ORDINARY == (
            OPENAI_COMPLETIONS.scan(frame, alone) & ~Sight.ORDINARY
        )


def test_it_gives_up_where_nothing_repeats() -> None:
    """Events that differ in more than their text are not compared for ever."""
    seen = Seen()
    for number in range(40):
        OPENAI_CHAT.scan(chat("a").replace(b'"c"', b'"c%d"' % number), seen)
    assert seen.patience == 0 and seen.events == 40
