"""Where the text of an answer is, to the byte."""

from __future__ import annotations

import json

import pytest

from streamgate.dialects.json_walk import escaped, unescaped
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.dialects.openai_completions import OPENAI_COMPLETIONS
from streamgate.dialects.plain import PLAIN_SSE
from streamgate.dialects.texts import NOTHING_TOLD, with_texts


def texts(payload: bytes, dialect=OPENAI_CHAT, **how):
    told = dialect.texts(payload, **how)
    for at in told.texts:
        assert unescaped(payload[at.start : at.end]) == at.text
    return [(at.choice, at.kind, at.field, at.text) for at in told.texts], told


@pytest.mark.parametrize(
    "payload, said",
    [
        (b'{"choices":[{"index":0,"delta":{"content":"a"}}]}', [(0, "content", "content", "a")]),
        (b'{"choices":[{"delta":{"reasoning":"a"}}]}', [(0, "reasoning", "reasoning", "a")]),
        (b'{"choices":[{"delta":{"reasoning_content":"a","content":null}}]}',
         [(0, "reasoning", "reasoning_content", "a")]),
        (b' {\n"choices" : [ {"delta":{"cont\\u0065nt" :\t"a\\n"} , "index" : 7 } ] } ',
         [(7, "content", "content", "a\n")]),
        (b'{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}',
         [(0, "content", "content", "a"), (1, "content", "content", "b")]),
        (b'{"choices":[{"delta":{"content":"\\ud83d"}}]}', [(0, "content", "content", "\ud83d")]),
        (b'{"x":{"choices":[{"delta":{"content":"no"}}]},"choices":[]}', []),
        (b'{"y":"}]\\"{","choices":[{"delta":{"tool_calls":[{"a":{}}],"content":"a"}}]}',
         [(0, "content", "content", "a")]),
        (b'{"choices":[{"delta":{"content":[{"text":"a"},7,{"thinking":[{"text":"b"}]}]}}]}',
         [(0, "content", "content", "a"), (0, "reasoning", "content.thinking", "b")]),
        (b'{"choices":[{"text":"no","delta":{}}, 7]}', []),
        (b'{"choices":[{"delta":null}],"error":null}', []),
        (b'{"choices":{}}', []),
        (b'{}', []),
        (b'[]', []),
        (b'{"choices":[{"delta":{"content":"bad \\q"}}]}', []),
        (b'{"choices":[{"delta":{"content":"open}]}', []),
        (b'{"choices":[{"delta":{"content":"a"', []),
        (b'{"choices":[{"delta":{"content":"a"}}] "b":1}', []),
        (b'{"choices":[{"delta":{"content":"a"}} 7]}', []),
        (b'{"choices":[{"index":"x","delta":{"content":"a"}}]}', []),
        (b'{"choices":[,]}', []),
        (b'{"a":}', []),
        (b'{"a":[', []),
        (b'{7:1}', []),
        (b'not json', []),
        (b'', []),
    ],
)  # fmt: skip
def test_texts_of_a_chat_event(payload, said):
    """Under which key, of which choice, whatever the spacing and the escapes; none where it is not JSON."""
    assert texts(payload)[0] == said


def test_texts_of_completions():
    """In the choice itself, streamed or whole."""
    payload = b'{"choices":[{"text":"a","index":1,"logprobs":null}]}'
    for whole in (False, True):
        assert texts(payload, OPENAI_COMPLETIONS, whole=whole)[0] == [(1, "content", "text", "a")]


def test_texts_of_a_whole_answer():
    """In its messages."""
    payload = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}'
    assert texts(payload, whole=True)[0] == [(0, "content", "content", "a")]
    assert texts(payload)[0] == []


@pytest.mark.parametrize(
    "payload, finished, last, bare",
    [
        (b"[DONE]", (), True, False),
        (b'{"error":{"message":"no"}}', (), True, False),
        (b'{"choices":[{"index":2,"delta":{},"finish_reason":"stop"}]}', (2,), False, False),
        (
            b'{"choices":[{"delta":{"content":"a"},"finish_reason":null,"stop_reason":null}],"usage":null}',
            (),
            False,
            True,
        ),
        (b'{"choices":[{"delta":{"content":"a","role":"assistant"}}]}', (), False, False),
        (b'{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1}}', (), False, False),
        (b'{"choices":[{"delta":{"content":"a"},"finish_reason":"length"}]}', (0,), False, False),
        (b'{"choices":[{"delta":{"content":"a"},"matched":"x"}]}', (), False, False),
    ],
)
def test_what_else_an_event_says(payload, finished, last, bare):
    """Whose end it is, whether anything can follow, whether without its text it would say nothing."""
    told = OPENAI_CHAT.texts(payload)
    assert (told.finished, told.last, told.bare) == (finished, last, bare)


def test_texts_are_replaced_and_nothing_else():
    """Numbers, spaces and unknown keys stay to the byte; what repeats the text goes with it."""
    payload = (
        b'{ "big":123456789012345678901, "choices":[{"delta":{"content":"secret\xf0\x9f\x98\x80"},'
        b'"logprobs":{"content":[{"token":"secret"}]},"token_ids":[1]},{"index":1,"delta":{"content":"b"}}]}'
    )
    told = OPENAI_CHAT.texts(payload)
    new = with_texts(payload, [(told.texts[0], 'say "\ud83d" \U0001f600\n')])
    assert new == (
        b'{ "big":123456789012345678901, "choices":[{"delta":{"content":"say \\"\\ud83d\\" \\ud83d\\ude00\\n"},'
        b'"logprobs":null,"token_ids":null},{"index":1,"delta":{"content":"b"}}]}'
    )
    assert json.loads(new)["choices"][0]["delta"]["content"] == 'say "\ud83d" \U0001f600\n'
    assert with_texts(payload, []) == payload


def test_text_in_an_event_of_its_own():
    """With the facts of the stream, of that choice and field, and nothing of what else the event said."""
    payload = (
        b'{"id":"c","created":7,"model":"m","usage":{"prompt_tokens":1},"choices":[{"index":1,"delta":'
        b'{"role":"assistant","reasoning":"x"},"finish_reason":"stop"}]}'
    )
    [at] = OPENAI_CHAT.texts(payload).texts
    assert json.loads(OPENAI_CHAT.text_event(payload, at, "rest")) == {
        "id": "c", "created": 7, "model": "m",
        "choices": [{"index": 1, "delta": {"reasoning": "rest"}, "logprobs": None, "finish_reason": None}],
    }  # fmt: skip
    [at] = OPENAI_COMPLETIONS.texts(b'{"choices":[{"text":"a"}]}').texts
    assert json.loads(OPENAI_COMPLETIONS.text_event(b'{"id":"c"}', at, "\ud83d"))["choices"] == [
        {"index": 0, "text": "\ud83d", "logprobs": None, "finish_reason": None}
    ]


def test_escapes_there_and_back():
    """Any text is what it was."""
    for text in ("", 'a"b\\c\n\t\x01\x7f', "d\u00e9j\u00e0 \U0001f600", "\ud83d", "\ude00 \ud83d"):
        assert unescaped(escaped(text)) == text
    assert unescaped(b"raw\ttab") == "raw\ttab"


def test_a_plain_stream_has_no_text():
    """Nobody knows where it would be."""
    assert PLAIN_SSE.texts(b'{"choices":[{"delta":{"content":"a"}}]}') is NOTHING_TOLD
    assert not PLAIN_SSE.tells and OPENAI_CHAT.tells
    with pytest.raises(NotImplementedError):
        PLAIN_SSE.text_event(b"", OPENAI_CHAT.texts(b'{"choices":[{"delta":{"content":"a"}}]}').texts[0], "")
