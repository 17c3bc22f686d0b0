"""Recognising raw bytes gives the answer that parsing everything gives, for every server's shapes and every split."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgate.dialects.dialect import Dialect, Seen, Sight
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.dialects.openai_completions import OPENAI_COMPLETIONS
from streamgate.sse.event import ServerSentEvent
from streamgate.sse.frames import FrameCutter
from streamgate.sse.parser import EventStreamParser

N, S, F, U, E, D = Sight.NOTHING, Sight.SEMANTIC, Sight.FINISH, Sight.USAGE, Sight.ERROR, Sight.END
SPOKEN = ("content", "reasoning_content", "reasoning", "tool_calls", "refusal", "audio", "function_call")


# The reference: every event parsed by the standard's rules, its data by the standard library, nothing clever.


def reference(stream: bytes, chat: bool) -> tuple[int, dict[str, Any], ServerSentEvent | None]:
    flags = N
    facts: dict[str, Any] = {"events": 0, "choices": set(), "finished": {}, "error": False, "usage": None}
    for event in EventStreamParser().feed(stream):
        facts["events"] += 1
        sight = meaning(event, facts, chat)
        flags |= sight
        if sight & (E | D):
            return flags, facts, event
    return flags, facts, None


def meaning(event: ServerSentEvent, facts: dict[str, Any], chat: bool) -> int:
    text = str(event.data)
    if text.strip() == "[DONE]" and event.event != "error":
        return D
    try:
        payload = json.loads(text)
    except ValueError:
        payload = text if event.event == "error" else None
    error = payload.get("error") if isinstance(payload, dict) else None
    if event.event == "error" or error or (isinstance(payload, dict) and payload.get("object") == "error"):
        facts["error"] = True
        return S | E
    return chunk(payload, facts, chat) if isinstance(payload, dict) else N


def chunk(payload: dict[str, Any], facts: dict[str, Any], chat: bool) -> int:
    sight, choices = N, payload.get("choices") or []
    for choice in choices:
        index = choice.get("index", 0)
        facts["choices"].add(index)
        if choice.get("finish_reason"):
            facts["finished"][index] = choice["finish_reason"]
            sight |= S | F
        delta = choice.get("delta") or {}
        if any(delta.get(key) for key in SPOKEN) if chat else choice.get("text"):
            sight |= S
    if payload.get("usage"):
        facts["usage"] = payload["usage"]
        sight |= U if choices and payload["usage"]["completion_tokens"] == 0 else U | S
    return sight


# The shapes: what llama.cpp, vLLM, transformers, OpenAI and the rest write, in any order and spelling of theirs.

TEXT = st.text(max_size=8) | st.sampled_from(
    ["", '"error"', '"},{"', "}]}\n\ndata: [DONE]\n\n", "\\", '\\"', "[DONE]", "{", "]", "\r", '"choices":[{', "🙂"]
)
COUNT = st.integers(0, 5)
COUNTS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"prompt_tokens": COUNT, "completion_tokens": COUNT},
    optional={"total_tokens": COUNT, "prompt_tokens_details": st.none() | st.just({"cached_tokens": 0})},
)
EMPTY: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({})
USAGE = st.none() | EMPTY | COUNTS
CALL = st.fixed_dictionaries(
    {"index": COUNT, "function": st.fixed_dictionaries({"arguments": TEXT}, optional={"name": st.just("f")})},
    optional={"id": st.just("call_1"), "type": st.just("function")},
)
LOGPROBS = st.none() | st.builds(lambda text: {"content": [{"token": text, "logprob": -0.5, "content": text}]}, TEXT)
DELTA = st.fixed_dictionaries(
    {},
    optional={
        "role": st.none() | st.just("assistant"),
        "content": st.none() | TEXT,
        "reasoning_content": st.none() | TEXT,
        "reasoning": st.none() | TEXT,
        "refusal": st.none() | TEXT,
        "tool_calls": st.none() | st.lists(CALL, max_size=2),
        "function_call": st.none() | st.just({"name": "f", "arguments": "{"}),
    },
) | st.builds(lambda text: {"content": text}, TEXT)
REASON = st.none() | st.sampled_from(["", "stop", "length", "abort", "error"])
AROUND = {
    "logprobs": LOGPROBS,
    "finish_reason": REASON,
    "stop_reason": st.none(),
    "token_ids": st.none() | st.just([1, 2]),
}
INDEX = st.sampled_from([0, 0, 0, 1, 2, 10, 100])
CHOICE = {
    True: st.fixed_dictionaries({"delta": DELTA}, optional=AROUND)
    | st.fixed_dictionaries({"index": INDEX, "delta": DELTA}, optional=AROUND),
    False: st.fixed_dictionaries({"index": INDEX, "text": st.none() | TEXT}, optional=AROUND),
}
ENVELOPE: dict[str, st.SearchStrategy[Any]] = {
    "id": st.just("chatcmpl-1"),
    "object": st.sampled_from(["chat.completion.chunk", "text_completion"]),
    "created": st.just(1795249203),
    "model": TEXT,
    "usage": USAGE,
    "obfuscation": TEXT,
    "timings": st.just({"prompt_n": 5, "predicted_n": 16}),
    "error": st.sampled_from([None, None, None, "", "late"]),
    "prompt_token_ids": st.none() | st.just([5]),
}
# The commonest event of all, with little beside it: what the raw bytes are searched for, and its near misses.
ORDINARY = {
    True: st.builds(lambda text: {"index": 0, "delta": {"content": text}, "finish_reason": None}, TEXT),
    False: st.builds(lambda text: {"index": 0, "text": text, "finish_reason": None}, TEXT),
}
BESIDE = st.sampled_from(sorted(ENVELOPE)).flatmap(lambda key: st.fixed_dictionaries({key: ENVELOPE[key]}))
ERROR: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"error": {"message": "m\r\n\r\ndata: [DONE]", "code": 500}},
        {"error": "text"},
        {"error": None, "choices": []},
        {"object": "error", "message": "m"},
        {"error": {"message": "m"}, "choices": [{"index": 0, "delta": {"content": "x"}}]},
    ]
)


@st.composite
def shuffled(draw: st.DrawFn, payload: dict[str, Any]) -> dict[str, Any]:
    """The same object with its keys in another order, and so for what it holds."""
    keys = draw(st.permutations(list(payload)))
    return {key: draw(rearranged(payload[key])) for key in keys}


def rearranged(value: Any) -> st.SearchStrategy[Any]:
    if isinstance(value, dict):
        return shuffled(value)
    return st.tuples(*map(rearranged, value)).map(list) if isinstance(value, list) else st.just(value)


@st.composite
def payloads(draw: st.DrawFn, chat: bool) -> str:
    """One event's data."""
    kind = draw(st.sampled_from(["chunk"] * 5 + ["ordinary"] * 5 + ["decoy", "error", "text", "done"]))
    if kind == "done":
        return draw(st.sampled_from(["[DONE]", " [DONE] "]))
    if kind == "text":
        return draw(st.sampled_from(["", "hello", '{"id":"cut', "5", "null", '["choices"]', '"error"']))
    choices = st.lists(CHOICE[chat], min_size=1, max_size=1) | st.lists(CHOICE[chat], max_size=2) | st.none()
    chunks = st.fixed_dictionaries({"choices": choices}, optional=ENVELOPE)
    if kind == "ordinary":
        payload = {**draw(BESIDE), "choices": [draw(ORDINARY[chat])], **draw(BESIDE), **draw(BESIDE)}
    elif kind == "decoy":
        payload = {"history": [draw(ORDINARY[chat])], "choices": draw(st.sampled_from([[], None]))}
    else:
        payload = draw(ERROR if kind == "error" else chunks)
    for at, choice in enumerate(payload.get("choices") or []):
        if at:
            choice["index"] = draw(INDEX)  # only the first one's index may be left out
    if kind != "ordinary" and draw(st.booleans()):
        payload = draw(shuffled(payload))
    spaces = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    return json.dumps(payload, separators=spaces, ensure_ascii=draw(st.booleans()))


@st.composite
def events(draw: st.DrawFn, chat: bool) -> bytes:
    """One event as bytes: mostly the plain form, sometimes every liberty that the standard gives."""
    text = draw(payloads(chat)).encode("utf-8", "replace")
    plain = draw(st.sampled_from([True, True, True, False]))
    if plain:
        return b"data: " + text + b"\n\n"
    end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    colon = draw(st.sampled_from([b"data:", b"data: "]))
    lines = [colon + text]
    if b", " in text and draw(st.booleans()):
        first, _, rest = text.partition(b", ")
        lines = [colon + first + b",", colon + rest]
    extra = [b": c", b": data: [DONE]", b"id: 7", b"event: message", b"event: error", b"retry: 5", b"x: y"]
    for line in draw(st.lists(st.sampled_from(extra), max_size=2)):
        lines.insert(draw(st.integers(0, len(lines))), line)
    blank = draw(st.sampled_from([end, end, b"\n"])) + draw(st.sampled_from([b"", b"", b"\n", b": ping\n\n"]))
    return end.join(lines) + end + blank


def streams(chat: bool) -> st.SearchStrategy[bytes]:
    return st.lists(events(chat), max_size=8).map(b"".join)


def scanned(dialect: Dialect, pieces: list[bytes]) -> tuple[int, Seen, bytes]:
    """Flags, facts, and the bytes of the event that ended the stream."""
    cutter, seen, flags = FrameCutter(1 << 20), Seen(), N
    for frame in [*map(cutter.cut, pieces), cutter.end()]:
        flags |= dialect.scan(frame, seen) & ~Sight.ORDINARY if frame else N
        if flags & (E | D):
            return flags, seen, frame[seen.stop : seen.end]
    return flags, seen, b""


@pytest.mark.parametrize("chat", [True, False])
@settings(max_examples=300, deadline=None)
@given(picks=st.data())
def test_scan_agrees_with_parsing_everything(chat: bool, picks: st.DataObject) -> None:
    """Flags, counts, choices, finish reasons, usage, error and where the stream stops, under any split."""
    dialect: Dialect = OPENAI_CHAT if chat else OPENAI_COMPLETIONS
    stream = picks.draw(streams(chat))
    edges = [0, *sorted(picks.draw(st.lists(st.integers(0, len(stream)), max_size=6))), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    expected, facts, last = reference(stream, chat)
    flags, seen, stopped_by = scanned(dialect, pieces)
    assert flags == expected
    assert (seen.events, seen.choices, seen.finished) == (facts["events"], facts["choices"], facts["finished"])
    assert (seen.error is not None) == facts["error"]
    if last is not None:
        (event,) = EventStreamParser().feed(stopped_by)
        assert (event.data, event.event) == (last.data, last.event)
    if facts["usage"]:
        tokens = facts["usage"]
        used = dialect.usage(seen)
        assert used is not None
        assert (used.input, used.output) == (tokens["prompt_tokens"], tokens["completion_tokens"])
    if seen.error is not None:
        assert seen.error.frame is not None
        (relayed,) = EventStreamParser().feed(seen.error.frame)
        assert json.loads(str(relayed.data))["error"]
