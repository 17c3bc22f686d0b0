"""The plugin on scripted streams: what the client and the upstream get."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streamgate_redact import Redact

from streamgate.testing import Delta, PluginHarness, say

pytestmark = pytest.mark.anyio

DELTAS = ["jo", "hn@", "ex", ".com", " 4111", "1111", " ", "\U0001f600", "\n", "Bearer ", "A1"]
KEYED = {"replacement": "hash", "hash_key": "0123456789abcdef"}


def asked(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


async def test_what_tokens_cut_is_hidden():
    """An address and a card number in many deltas; the words around them as they were."""
    async with PluginHarness(Redact) as gateway:
        received = await gateway.stream(
            ["Write to jo", "hn", "@exam", "ple.com", ", pay ", "4111 1111", " 1111 11", "11 soon"]
        )
        assert received.text == "Write to [email], pay [card] soon"
        assert b"john" not in received.body and b"4111" not in received.body
        assert received.outcome == "completed" and gateway.failures == []
        assert (
            gateway.metric("redacted_total", pattern="email") == gateway.metric("redacted_total", pattern="card") == 1
        )


async def test_each_choice_and_kind_is_a_text_of_its_own():
    """Halves in two choices, or in the answer and its reasoning, are no match."""
    script = [
        Delta("a@exam", 0), Delta("a@exam", 1), Delta("a@exam", 0, "reasoning"), Delta("ple.com x", 1),
        Delta("!", 0), Delta("ple.com", 0, "reasoning"),
    ]  # fmt: skip
    async with PluginHarness(Redact) as gateway:
        received = await gateway.stream(script)
        assert received.texts() == {0: "a@exam!", 1: "[email] x"}
        assert received.texts("reasoning") == {0: "[email]"}


async def test_a_whole_answer_is_looked_at():
    """One JSON body is one text."""
    async with PluginHarness(Redact) as gateway:
        received = await gateway.answer("Key: ghp_abcdefghij0123456789abcdefghij0123.")
        assert received.json["choices"][0]["message"]["content"] == "Key: [key]."


async def test_what_is_held_when_the_upstream_breaks_off_goes_out():
    """A word that could have become an address is text when nothing follows."""
    async with PluginHarness(Redact) as gateway:
        received = await gateway.stream(["mail a@b.com or jo", "hn"], ends=False)
        assert received.text == "mail [email] or john"
        assert received.outcome == "truncated"


async def test_the_request_is_looked_at():
    """The upstream gets the request without them; one without any goes on as it came."""
    async with PluginHarness(Redact) as gateway:
        received = await gateway.stream(["ok"], json=asked("I am a@b.com"))
        assert received.request is not None and received.upstream_request is not None
        assert received.upstream_request.json["messages"][0]["content"] == "I am [email]"
        assert gateway.metric("redacted_total", pattern="email") == 1
        plain = await gateway.stream(["ok"], json=asked("I am 4"))
        assert plain.request is not None and plain.request.json == {"model": "m", "stream": True, **asked("I am 4")}


async def test_a_long_request_is_read_in_a_thread():
    """The event loop goes on meanwhile; the result is the same, and is counted."""
    long = "word " * 20_000
    async with PluginHarness(Redact) as gateway:
        received = await gateway.stream(["ok"], json=asked(f"{long}a@b.com"))
        assert received.upstream_request is not None
        assert received.upstream_request.json["messages"][0]["content"] == f"{long}[email]"
        assert gateway.metric("redacted_total", pattern="email") == 1
        assert gateway.failures == []


async def test_trusted_upstreams_come_first_and_see_the_request_as_it_came():
    """Where there is something to hide; the others get it redacted."""
    async with PluginHarness(Redact, {"trusted": ["own-*"]}) as gateway:
        received = await gateway.stream(["ok"], json=asked("a@b.com"), upstreams=["far", "own-1", "own-2"])
        assert list(received.upstreams) == ["own-1", "own-2", "far"]
        assert received.upstream_request is not None
        assert received.upstream_request.json["messages"][0]["content"] == "a@b.com"
        assert gateway.metric("redacted_total", pattern="email") == 0
        received = await gateway.stream(["ok"], json=asked("a@b.com"), upstreams=["far", "near"])
        assert list(received.upstreams) == ["far", "near"]
        assert received.upstream_request is not None
        assert received.upstream_request.json["messages"][0]["content"] == "[email]"
        assert gateway.metric("redacted_total", pattern="email") == 1
        received = await gateway.stream(["ok"], json=asked("hi"), upstreams=["far", "own-1"])
        assert list(received.upstreams) == ["far", "own-1"]


async def test_a_prompt_of_token_ids_is_refused():
    """It cannot be looked at, so it does not leave."""
    async with PluginHarness(Redact) as gateway:
        received = await gateway.stream([], json={"prompt": [1, 2]}, path="/v1/completions")
        assert (received.status, received.code) == (400, "unreadable_prompt")
        assert gateway.failures == []


@pytest.mark.parametrize("direction", ["in", "out"])
async def test_one_direction_leaves_the_other_alone(direction: str):
    """`direction: [in]` hides in requests, `[out]` in answers."""
    async with PluginHarness(Redact, {"direction": [direction]}) as gateway:
        received = await gateway.stream(["a@b.com"], json=asked("a@b.com"))
        assert received.upstream_request is not None
        sent = received.upstream_request.json["messages"][0]["content"]
        assert (sent, received.text) == (("[email]", "a@b.com") if direction == "in" else ("a@b.com", "[email]"))


async def test_labels_and_custom_patterns():
    """As they are configured."""
    custom = {"name": "employee", "regex": "(?i:emp)-[0-9]{4}", "longest": 8}
    given = {"patterns": ["email"], "custom": [custom], "labels": {"email": "<hidden>"}}
    async with PluginHarness(Redact, given) as gateway:
        received = await gateway.stream(["EM", "P-00", "07 is a@b.com ", "sk-ABCDEFGHIJKLMNOPQRSTUV"])
        assert received.text == "[employee] is <hidden> sk-ABCDEFGHIJKLMNOPQRSTUV"


async def test_hashes_tell_equal_ones_from_others():
    """The same value has the same hash in requests and answers, wherever it is cut, with a last word or without."""
    async with PluginHarness(Redact, KEYED) as gateway:
        received = await gateway.stream(["a@b.com, c@d.com and ", "a@b", ".co", "m"], json=asked("a@b.com"))
        first, other, _, again = received.text.replace(",", "").split(" ")
        assert first == again != other
        assert first.startswith("[email:") and len(first) == 20
        assert received.upstream_request is not None
        assert received.upstream_request.json["messages"][0]["content"] == first


async def test_log_probabilities_tell_nothing():
    """What repeats the tokens of a hidden text is left out."""
    logprobs = {"content": [{"token": "a@b.com", "logprob": -1, "bytes": [97]}]}
    choice = {"index": 0, "delta": {"content": "a@b.com "}, "logprobs": logprobs, "finish_reason": None}
    async with PluginHarness(Redact) as gateway:
        received = await gateway.stream([b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"])
        assert b"a@b" not in received.body
        assert received.text == "[email] "


async def test_half_of_a_character_in_each_of_two_events_survives():
    """Surrogates as JSON writes them, beside what is hidden."""
    script = [say("a@b.com "), say("\ud83d"), say("\ude00"), say(" \u00e9\u4e16\u754c")]
    async with PluginHarness(Redact) as gateway:
        received = await gateway.stream(script)
        assert received.text == "[email] \U0001f600 \u00e9\u4e16\u754c"


@settings(max_examples=60, deadline=None)
@given(
    deltas=st.lists(st.sampled_from(DELTAS), max_size=25),
    split=st.integers(0, 50),
)  # fmt: skip
async def test_deltas_and_chunks_do_not_matter(deltas: list[str], split: int):
    """The client reads what it would have read in one delta, however events and bytes are cut."""
    async with PluginHarness(Redact) as gateway:
        parts = await gateway.stream([*deltas, "."], split=split)
        whole = await gateway.stream(["".join(deltas) + "."])
        assert parts.text == whole.text
        assert gateway.failures == []
