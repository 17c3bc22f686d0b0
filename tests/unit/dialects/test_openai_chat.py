"""Events of `/v1/chat/completions`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamgate.dialects.bodies import UNSAID
from streamgate.dialects.dialect import Dialect, Seen, Sight
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.dialects.openai_chat import TOKEN as TOKEN_PATTERN
from streamgate.dialects.openai_choices import Choices
from streamgate.errors import Empty, ErrorEvent, Truncated
from streamgate.record import Usage

DIALECT: Dialect = OPENAI_CHAT
N, S, F, U, E, D = Sight.NOTHING, Sight.SEMANTIC, Sight.FINISH, Sight.USAGE, Sight.ERROR, Sight.END

DELTAS = [
    (b'{"content":"x"}', S),
    (b'{"content": "x"}', S),
    (b'{"role":"assistant","content":"x"}', S),
    (b'{"role":null,"content":"x","reasoning_content":null,"tool_calls":null}', S),
    (b'{"content":"\\"},{\\\\"}', S),
    (b'{"content":"{}[]"}', S),
    (b'{"content":"\\"error\\""}', S),
    (b'{"content":"error"}', S),
    (b'{"reasoning_content":"x"}', S),
    (b'{"reasoning":"x"}', S),
    (b'{"content":null,"reasoning_content":"x"}', S),
    (b'{"content":"","reasoning_content":"x"}', S),
    (b'{"refusal":"no"}', S),
    (b'{"audio":{"data":"AA=="}}', S),
    (b'{"function_call":{"name":"f"}}', S),
    (b'{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}]}', S),
    (b'{"tool_calls":[{"index":12,"function":{"arguments":"{\\"a\\":"}}]}', S),
    (b'{"content":null,"tool_calls":[{"index":0,"function":{"arguments":""}}]}', S),
    (b'{"role":"assistant"}', N),
    (b'{"role":"assistant","content":""}', N),
    (b'{"role":"assistant","content":null}', N),
    (b'{"content":null,"tool_calls":null,"function_call":null}', N),
    (b'{"tool_calls":[]}', N),
    (b"{}", N),
    (b"null", N),
    (b'"x"', N),
]


def meant(sight: int) -> int:
    """What was seen, without the hint that it was nothing out of the ordinary."""
    return sight & ~Sight.ORDINARY


@pytest.mark.parametrize(("delta", "sight"), DELTAS)
def test_delta(delta: bytes, sight: int) -> None:
    """Text, reasoning, calls, refusal and audio are progress when not empty; a role alone is not."""
    for around in (
        b'data: {"id":"c","choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":null}],"usage":null}\n\n',
        b'data: {"choices":[{"finish_reason":null,"index":0,"delta":%s}],"created":1,"object":"x"}\n\n',
        b'data:{"id": "c", "choices": [{"delta": %s, "index": 0}]}\r\n\r\n',
        b'data: {"choices":[{"index":0,"finish_reason":null,"logprobs":null,"delta":%s}]}\n\n',
        b'id: 5\n: c\nevent: message\ndata: {"choices":\ndata: [{"delta":%s}]}\n\n',
    ):
        seen = Seen()
        assert meant(DIALECT.scan(around % delta, seen)) == sight
        assert (seen.events, seen.choices, seen.finished, seen.usage_frame) == (1, {0}, {}, None)


@pytest.mark.parametrize("index", [1, 7, 99, 100])
@pytest.mark.parametrize("form", [b'{"index":%d,"delta":{"content":"x"}}', b'{"delta":{"content":"x"},"index":%d}'])
def test_choice_index(index: int, form: bytes) -> None:
    """A choice that is not the first is noted as the one it says it is."""
    seen = Seen()
    assert meant(DIALECT.scan(b'data: {"choices":[' + form % index + b"]}\n\n", seen)) == S
    assert seen.choices == {index}


def test_choices_without_index() -> None:
    """A choice that says no index, or no int, is the one at its place; what is no choice is none."""
    seen = Seen()
    frame = b'data: {"choices":[{"delta":{}},{"index":true,"delta":{"content":"x"}},5,{"finish_reason":"stop"}]}\n\n'
    assert meant(DIALECT.scan(frame, seen)) == S | F
    assert (seen.choices, seen.finished) == ({0, 1, 3}, {3: "stop"})


OTHERS = [
    (b"data: hello\n\n", N, 1),
    (b'data: {"id":"cut\n\n', N, 1),
    (b"data: 5\n\n", N, 1),
    (b"data:\n\n", N, 1),
    (b'data: {"choices":null}\n\n', N, 1),
    (b'data: {"choices":{}}\n\n', N, 1),
    (b'data: {"choices":[],"error":null}\n\n', N, 1),
    (b'event: ping\ndata: {"type":"ping"}\n\n', N, 1),
    (b": comment\n\n", N, 0),
    (b"retry: 3000\n\n", N, 0),
    (b"\n", N, 0),
    (b'data: {"choices":[{"delta":{},"finish_reason":""}]}\n\n', N, 1),
    (b'data: {"choices":[{"delta":{},"finish_reason":5}]}\n\n', N, 1),
    (b'data: {"delta":{"content":"not here"},"choices":[]}\n\n', N, 1),
    (b'data: {"choices":[{"delta":{"content":"x"},"logprobs":{"content":[{"logprob":-Infinity}]}}]}\n\n', S, 1),
    (b'data: {"choices":[{"delta":{"content":"\\ud83d"}}],"x":{}}\n\n', S, 1),
]


@pytest.mark.parametrize(("frame", "sight", "events"), OTHERS)
def test_other_events(frame: bytes, sight: int, events: int) -> None:
    """What is not JSON, or no chunk, counts as an event and as nothing else."""
    seen = Seen()
    assert meant(DIALECT.scan(frame, seen)) == sight
    assert (seen.events, seen.error, seen.usage_frame) == (events, None, None)


TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


@pytest.mark.parametrize(
    "done", [b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"data: [DONE]\r\n\r\n", b"data: [DONE]\r\r"]
)
def test_terminator(done: bytes) -> None:
    """The terminator ends the stream; what follows it in the frame is nobody's."""
    seen = Seen()
    assert meant(DIALECT.scan(TOKEN * 2 + FINISH + done + TOKEN, seen)) == S | F | D
    assert (seen.events, seen.finished) == (4, {0: "stop"})
    assert (TOKEN * 2 + FINISH + done + TOKEN)[seen.stop : seen.end] == done
    alone = Seen()
    assert meant(DIALECT.scan(done, alone)) == D
    assert (alone.stop, alone.end, alone.events) == (0, len(done), 1)


PASSED = [
    (b'data: {"error":{"message":"m","type":"t","code":"c"}}\n\n', ("m", "c")),
    (b'data: {"error":{"message":"m","code":500}}\r\n\r\n', ("m", "500")),
    (b'data: {"error":"text"}\n\n', ("text", None)),
    (b'data: {"error": true}\n\n', (UNSAID, None)),
    (b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"}}],"error":"late"}\n\n', ("late", None)),
    (b'data: {"id":"c","error":{"message":"m"},"choices":[{"delta":{},"finish_reason":"error"}]}\n\n', ("m", None)),
    (b'event: error\ndata: {"error":{"message":"m"}}\n\n', ("m", None)),
    (b'event: error\ndata: {"type":"error","error":{"type":"t","message":"m"}}\n\n', ("m", None)),
    (b': c\nid: 7\ndata: {"error":\ndata: {"message":"m"}}\n\n', ("m", None)),
    (b'data: {"error":{"message":"data: [DONE]\\r\\n\\r\\n"}}\n\n', ("data: [DONE]\r\n\r\n", None)),
]


@pytest.mark.parametrize(("event", "said"), PASSED)
def test_error_passes_unchanged(event: bytes, said: tuple[str, str | None]) -> None:
    """An error event with an `error` key ends the stream and is relayed as its own bytes."""
    seen = Seen()
    assert meant(DIALECT.scan(TOKEN + event + TOKEN, seen)) == S | E
    assert (seen.stop, seen.end, seen.events) == (len(TOKEN), len(TOKEN + event), 2)
    assert seen.error is not None
    assert (seen.error.said, seen.error.said_code, seen.error.frame) == (*said, event)
    assert DIALECT.verdict(seen, terminated=False) is seen.error
    alone = Seen()
    assert meant(DIALECT.scan(event, alone)) == S | E
    assert (alone.stop, alone.end) == (0, len(event))


REWRITTEN: list[tuple[bytes, dict[str, object]]] = [
    (
        b'data: {"object":"error","message":"m","type":"BadRequestError","param":"p","code":400}\n\n',
        {"message": "m", "type": "BadRequestError", "param": "p", "code": "400"},
    ),
    (b'event: error\ndata: {"message":"m"}\n\n', {"message": "m", "type": "server_error", "param": None, "code": None}),
    (
        b'event: error\ndata: {"error":null}\n\n',
        {"message": UNSAID, "type": "server_error", "param": None, "code": None},
    ),
    (
        b"event: error\ndata: out of memory\ndata: data: [DONE]\n\n",
        {"message": "out of memory\ndata: [DONE]", "type": "server_error", "param": None, "code": None},
    ),
    (b'event: error\ndata: "text"\n\n', {"message": "text", "type": "server_error", "param": None, "code": None}),
    (
        b'data: {"id":"c",\nevent: error\ndata: "choices":[{"index":0,"delta":{"content":"x"}}]}\n\n',
        {"message": UNSAID, "type": "server_error", "param": None, "code": None},
    ),
    (b"event: error\r\r", {"message": UNSAID, "type": "server_error", "param": None, "code": None}),
    (b"event: error\ndata: \xff\n\n", {"message": "�", "type": "server_error", "param": None, "code": None}),
]


@pytest.mark.parametrize(("event", "error"), REWRITTEN)
def test_error_is_rewritten(event: bytes, error: dict[str, object]) -> None:
    """Any other form of error becomes the one on which every SDK raises, its words an inert string on one line."""
    seen = Seen()
    assert meant(DIALECT.scan(event, seen)) == S | E
    assert seen.error is not None
    assert seen.error.said == error["message"]
    frame = seen.error.frame
    assert frame is not None
    assert frame.startswith(b"data: {")
    assert frame.count(b"\n") == 2
    assert b"\r" not in frame
    assert json.loads(frame[6:]) == {"error": error}


def test_no_error_without_cause() -> None:
    """`object: "error"` beside choices is no error, nor is an empty `error`."""
    seen = Seen()
    assert meant(DIALECT.scan(b'data: {"object":"error","choices":[],"error":{}}\n\n', seen)) == N
    assert seen.error is None


VERDICTS = [
    ({0}, {0: "stop"}, 5, True, type(None)),
    ({0}, {0: "stop"}, 5, False, type(None)),
    ({0, 1}, {1: "stop"}, 5, True, type(None)),  # the terminator, and at least one finish reason
    ({0, 1}, {1: "stop"}, 5, False, Truncated),
    ({0, 1}, {1: "stop", 0: "length"}, 5, False, type(None)),
    ({0}, {}, 5, True, Truncated),
    ({0}, {}, 5, False, Truncated),
    (set(), {}, 1, True, Truncated),
    (set(), {}, 3, False, Truncated),
    (set(), {}, 0, False, Empty),
    ({0}, {0: "abort"}, 5, True, ErrorEvent),
    ({0}, {0: "error"}, 5, False, ErrorEvent),
    ({0, 1}, {0: "stop", 1: "abort"}, 5, True, ErrorEvent),
]


@pytest.mark.parametrize(("choices", "finished", "events", "terminated", "fault"), VERDICTS)
def test_verdict(choices: set[int], finished: dict[int, str], events: int, terminated: bool, fault: type) -> None:
    """Whole: the terminator after a finish reason, or one for every choice that spoke and a clean end."""
    seen = Seen()
    seen.choices, seen.finished, seen.events = choices, finished, events
    verdict = DIALECT.verdict(seen, terminated=terminated)
    assert type(verdict) is fault
    if isinstance(verdict, ErrorEvent):
        assert verdict.frame is None
        assert verdict.said_code in finished.values()


USAGES = [
    (b'"usage":{"prompt_tokens":3,"completion_tokens":5}', Usage(3, 5)),
    (b'"usage":{"prompt_tokens":3}', Usage(3, 0)),
    (b'"usage":{"prompt_tokens":null,"completion_tokens":5}', Usage(0, 5)),
    (b'"usage":{"prompt_tokens":"3","completion_tokens":true}', None),
    (b'"usage":{"prompt_tokens":-1,"completion_tokens":1.5}', None),
    (b'"usage":{"tokens":1}', None),
    (b'"usage":{"tokens":1},"timings":{"prompt_n":5,"predicted_n":16}', Usage(5, 16)),
    (b'"usage":null,"timings":{"cache_n":13,"prompt_n":5,"predicted_n":16}', Usage(18, 16, cached_input=13)),
    (
        (
            b'"usage":{"prompt_tokens":9,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4},'
            b'"completion_tokens_details":{"reasoning_tokens":6}}'
        ),
        Usage(9, 7, cached_input=4, reasoning=6),
    ),
    (
        (
            b'"usage":{"prompt_tokens":9,"completion_tokens":7,"prompt_tokens_details":null,'
            b'"completion_tokens_details":{"reasoning_tokens":-1}}'
        ),
        Usage(9, 7),
    ),
    (b'"timings":{"prompt_n":null}', None),
    (b'"timings":5', None),
    (b'"usage":5', None),
    (b'"usage":{}', None),
    (b'"usage":null', None),
]


@pytest.mark.parametrize(("stated", "usage"), USAGES)
def test_usage(stated: bytes, usage: Usage | None) -> None:
    """Tokens as stated, whatever is missing or of a wrong type; llama.cpp's own counts when there are no others."""
    for choices in (b"[]", b'[{"index":0,"delta":{"content":"x"}}]'):
        seen = Seen()
        sight = DIALECT.scan(b'data: {"choices":' + choices + b"," + stated + b"}\n\n", seen)
        assert DIALECT.usage(seen) == usage
        assert bool(sight & U) == stated.startswith((b'"usage":{"p', b'"usage":{"t'))


def test_last_usage_wins() -> None:
    """Usage on every chunk is remembered, never added up; timings do not replace it."""
    seen, event = (
        Seen(),
        b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"completion_tokens":%d}}\n\n',
    )
    assert meant(DIALECT.scan(event % 1 + event % 2, seen)) == S | U
    assert meant(DIALECT.scan(event % 3, seen)) == S | U
    assert seen.usage_frame == event % 3
    DIALECT.scan(b'data: {"choices":[],"timings":{"predicted_n":9}}\n\n', seen)
    assert DIALECT.usage(seen) == Usage(0, 3)


@pytest.mark.parametrize(
    ("choices", "tokens", "sight"),
    [
        (b'[{"index":0,"delta":{"role":"assistant","content":""}}]', 0, U),
        (b'[{"index":0,"delta":{}}]', 5, U | S),
        (b"[]", 0, U | S),
        (b"null", 5, U | S),
    ],
)
def test_usage_as_progress(choices: bytes, tokens: int, sight: int) -> None:
    """A usage chunk is progress, but not beside a role when it says that nothing was generated yet."""
    frame = b'data: {"choices":%s,"usage":{"prompt_tokens":1,"completion_tokens":%d}}\n\n' % (choices, tokens)
    assert meant(DIALECT.scan(frame, Seen())) == sight


@pytest.mark.parametrize("frame", [None, b"data: nonsense\n\n", b"event: x\n\n", b"data: []\n\n"])
def test_no_usage(frame: bytes | None) -> None:
    """No count is better than a wrong one."""
    seen = Seen()
    seen.usage_frame = frame
    assert DIALECT.usage(seen) is None


def test_error_event() -> None:
    """The gateway's own error is one event with all four fields."""
    event = DIALECT.error_event("a\r\n\ndata: [DONE]", type="t", code=None)
    assert event.startswith(b"data: ")
    assert event.endswith(b"}\n\n")
    error = {"message": "a\r\n\ndata: [DONE]", "type": "t", "param": None, "code": None}
    assert json.loads(event[6:]) == {"error": error}


def test_ordinary_tokens_are_not_parsed() -> None:
    """The commonest events, alone and several in a frame, are recognised without looking into their JSON."""

    def asked(choice: dict[str, Any]) -> bool:
        raise AssertionError(choice)

    dialect = Choices("unparsed", TOKEN_PATTERN, asked)
    for frame in (
        TOKEN,
        TOKEN * 5,
        TOKEN.replace(b'":', b'": ').replace(b",", b", "),
        TOKEN.replace(b"\n", b"\r\n"),
        TOKEN.replace(b'"index":0', b'"index":1'),
        TOKEN.replace(b'"content"', b'"reasoning_content"'),
        TOKEN.replace(b"}\n\n", b',"usage":{"completion_tokens":5,"details":{"cached":0}}}\n\n'),
    ):
        seen = Seen()
        assert dialect.scan(frame, seen) & S
        assert seen.events == frame.count(b"data:")
    with pytest.raises(AssertionError):
        dialect.scan(FINISH, Seen())
