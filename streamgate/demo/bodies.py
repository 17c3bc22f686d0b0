"""The content of answers as bytes: events with LF line ends, and whole JSON bodies. Pure and deterministic.

Shapes as vLLM and llama.cpp send them: the role first, `choices: []` on the usage event, `[DONE]` last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

from streamgate.demo.grammar import Script
from streamgate.demo.request import Call, Family

CREATED = 1_700_000_000  # the same answer every time
FLOOD_EVENT = 16 * 1024
ARGUMENTS = '{"city": "Paris", "unit": "celsius"}'
DONE = b"data: [DONE]\n\n"
TEXT = (
    "A river keeps no record of the rain that made it. It takes what comes, carries it a while, and gives it to the "
    "next bend as it was given."
)
WORDS = TEXT.split()
WORDS_UTF8 = ("Grüße", "aus", "東京", "und", "São", "Paulo", "—", "naïve", "Ελλάδα", "🚲", "мост", "עיר")

_IDS = {Family.CHAT: "chatcmpl", Family.COMPLETIONS: "cmpl"}
_OBJECTS = {Family.CHAT: "chat.completion", Family.COMPLETIONS: "text_completion"}


def compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def event(value: Any) -> bytes:
    return b"data: %b\n\n" % compact(value)


def texts(script: Script, call: Call) -> Iterator[str]:
    """The answer's tokens, a word and a space each."""
    if "flood" in script.options:
        return ("x" * FLOOD_EVENT for _ in range(max(1, script.options["flood"] // FLOOD_EVENT)))
    words = WORDS_UTF8 if "utf8" in script.options else WORDS
    echo = f"{call.rid}:" if "echo" in script.options else ""
    return (f"{echo}{words[i % len(words)]} " for i in range(script.tokens))


def usage(script: Script, call: Call) -> dict[str, int]:
    output = script.tokens * call.choices
    return {
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": output,
        "total_tokens": call.prompt_tokens + output,
    }


# ---------------------------------------------------------------- events


def deltas(script: Script, call: Call) -> Iterator[bytes]:
    """The events that come at the script's pace: role, tokens, and what odd ones it asks for."""
    plain = _PLAIN_DELTAS.get(call.family, _openai_deltas)(script, call)
    for word, odd in ODD.items():
        if word in script.options:
            # `bigevent` counts bytes and comes second; the others count the events before them.
            number = script.options[word]
            after = 1 if word == "bigevent" else number
            plain = chain(islice(plain, after), [odd(number)], plain)
    return plain


def closing(script: Script, call: Call) -> Iterator[bytes]:
    """The events that end an answer: finish reasons, usage, `[DONE]`."""
    if call.family is Family.OTHER:
        yield b"event: completed\n" + event({"type": "completed", "usage": usage(script, call)})
        return
    if "nofinish" not in script.options:
        for choice in range(call.choices):
            more = {"usage": usage(script, call)} if "usagefinish" in script.options else {}
            yield event({**_fields(call), "choices": [_finish(script, call, choice)], **more})
    if call.include_usage and "usagefinish" not in script.options:
        yield event({**_fields(call), "choices": [], "usage": usage(script, call)})
    if "nodone" not in script.options:
        yield DONE
    if "donemore" in script.options:
        yield from islice(_openai_deltas(script, call), 3)


def _openai_deltas(script: Script, call: Call) -> Iterator[bytes]:
    """Each event is the same but for its delta, so all else is written once: a busy demo sends 10,000 a second."""
    around = [_around(script, call, choice) for choice in range(call.choices)]
    for delta in _delta_values(script, call):
        value = compact(delta)
        for before, after in around:
            yield before + value + after


def _around(script: Script, call: Call, choice: int) -> tuple[bytes, bytes]:
    """What stands before and after the delta (of completions: the text) in each event."""
    key = "delta" if call.family is Family.CHAT else "text"
    more: dict[str, Any] = {"usage": None} if call.include_usage else {}
    if script.padding:
        more["padding"] = "p" * script.padding
    body = {"index": choice, key: "\x00", "logprobs": None, "finish_reason": None}
    before, _, after = event({**_fields(call), "choices": [body], **more}).rpartition(rb'"\u0000"')
    return before, after


def _delta_values(script: Script, call: Call) -> Iterator[Any]:
    if call.family is Family.COMPLETIONS:
        yield from texts(script, call)
        return
    yield {"role": "assistant", "content": ""}
    if "tools" in script.options:
        yield from _tool_deltas()
        return
    role = {"role": "assistant"} if "roles" in script.options else {}
    reasoning = (script.tokens + 1) // 2 if "reasoning" in script.options else 0
    for nth, text in enumerate(texts(script, call)):
        yield {**role, "reasoning_content" if nth < reasoning else "content": text}


def _tool_deltas() -> Iterator[Any]:
    function = {"name": "get_weather", "arguments": ""}
    yield {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}
    for at in range(0, len(ARGUMENTS), 8):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": ARGUMENTS[at : at + 8]}}]}


def _other_deltas(script: Script, call: Call) -> Iterator[bytes]:
    for text in texts(script, call):
        yield b"event: delta\n" + event({"type": "delta", "delta": text})


_PLAIN_DELTAS: dict[Family, Callable[[Script, Call], Iterator[bytes]]] = {Family.OTHER: _other_deltas}

ODD: dict[str, Callable[[int], bytes]] = {
    "bigevent": lambda size: event({"choices": [{"index": 0, "delta": {"content": "b" * size}}]}),
    "nonjson": lambda _: b"data: this is {not JSON\n\n",
    "nul": lambda _: b'data: {"choices":[{"index":0,"delta":{"content":"\x00"}}]}\n\n',
    "badbytes": lambda _: b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe\xc3("}}]}\n\n',
}


def _fields(call: Call) -> dict[str, Any]:
    return {
        "id": f"{_IDS[call.family]}-{call.rid}",
        "object": "chat.completion.chunk" if call.family is Family.CHAT else "text_completion",
        "created": CREATED,
        "model": call.model,
    }


def _finish(script: Script, call: Call, choice: int) -> dict[str, Any]:
    empty: dict[str, Any] = {"delta": {}} if call.family is Family.CHAT else {"text": ""}
    return {"index": choice, **empty, "logprobs": None, "finish_reason": finish_reason(script, call)}


def finish_reason(script: Script, call: Call) -> str:
    reasons = {"finishabort": "abort", "finisherror": "error", "tools": "tool_calls"}
    return next((reason for word, reason in reasons.items() if word in script.options), "stop")


# ---------------------------------------------------------------- whole answers


def whole(script: Script, call: Call) -> bytes:
    """The answer to a request without `stream: true`."""
    match call.family:
        case Family.CHAT | Family.COMPLETIONS:
            choices = [_choice(script, call, choice) for choice in range(call.choices)]
            named = {**_fields(call), "object": _OBJECTS[call.family]}
            return compact({**named, "choices": choices, "usage": usage(script, call)})
        case Family.EMBEDDINGS:
            vector = [nth / 16 for nth in range(script.tokens)]
            listed = [{"object": "embedding", "index": at, "embedding": vector} for at in range(call.inputs)]
            counted = {"prompt_tokens": call.prompt_tokens, "total_tokens": call.prompt_tokens}
            return compact({"object": "list", "data": listed, "model": call.model, "usage": counted})
        case Family.MODELS:
            model = {"id": "demo", "object": "model", "created": CREATED, "owned_by": "streamgate"}
            return compact({"object": "list", "data": [model]})
        case Family.OTHER:
            told = {"object": "demo", "bytes": call.size, "text": "".join(texts(script, call))}
            return compact({**told, "usage": usage(script, call)})


def _choice(script: Script, call: Call, choice: int) -> dict[str, Any]:
    told = {"index": choice, "logprobs": None, "finish_reason": finish_reason(script, call)}
    words = list(texts(script, call))
    if call.family is Family.COMPLETIONS:
        return {**told, "text": "".join(words)}
    message: dict[str, Any] = {"role": "assistant"}
    if "tools" in script.options:
        function = {"name": "get_weather", "arguments": ARGUMENTS}
        message |= {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
    elif "reasoning" in script.options:
        half = (script.tokens + 1) // 2
        message |= {"reasoning_content": "".join(words[:half]), "content": "".join(words[half:])}
    else:
        message["content"] = "".join(words)
    return {**told, "message": message}


# ---------------------------------------------------------------- errors


def message_of(script: Script) -> str:
    """The words of an error; with `inject`, words that try to end the stream for whoever copies them unescaped."""
    text = "The demo upstream was asked to fail."
    return f"{text}\r\n\r\ndata: [DONE]\n\n" if "inject" in script.options else text


def error_body(message: str, code: str = "demo_error", type: str = "server_error") -> bytes:
    return compact({"error": {"message": message, "type": type, "param": None, "code": code}})


def error_event(script: Script, form: str) -> bytes:
    """An error in the stream: `errorevent`, `errornamed` or `errorold` (as vLLM sends it)."""
    message = message_of(script)
    if form == "errorold":
        old = {"object": "error", "message": message, "type": "InternalServerError", "param": None, "code": 500}
        return event(old) + DONE
    named = b"event: error\n" if form == "errornamed" else b""
    return b"%bdata: %b\n\n" % (named, error_body(message))
