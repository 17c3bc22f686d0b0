"""What the demo upstream does for each name, as moves: no sockets here."""

from __future__ import annotations

import gzip
import json
import zlib
from itertools import islice
from typing import Any

import pytest

from streamgate.demo.bodies import ARGUMENTS, FLOOD_EVENT, WORDS, WORDS_UTF8
from streamgate.demo.grammar import parse
from streamgate.demo.moves import moves
from streamgate.demo.request import Call, Family
from streamgate.demo.turns import Act, Move

ACTS = list[Act]


def played(name: str, family: Family = Family.CHAT, **asked: Any) -> list[Move]:
    call = Call(family, rid="rid-1", number=3, model=name, **{"stream": True, **asked})
    return list(islice(moves(parse(name), call), 20_000))


def wire(made: list[Move]) -> bytes:
    return b"".join(move for move in made if isinstance(move, bytes))


def acts(made: list[Move]) -> ACTS:
    return [move for move in made if isinstance(move, Act)]


def split(made: list[Move]) -> tuple[bytes, bytes]:
    head, _, body = wire(made).partition(b"\r\n\r\n")
    return head, body


def unchunked(body: bytes) -> bytes:
    """The body without its chunks; it must end with the terminating chunk."""
    whole = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            assert body == b"\r\n"
            return whole
        whole += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


def datas(made: list[Move]) -> list[str]:
    """The data of all events of a whole chunked stream."""
    text = unchunked(split(made)[1]).decode()
    return [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]


def events(made: list[Move]) -> list[dict[str, Any]]:
    return [json.loads(data) for data in datas(made) if data != "[DONE]"]


def content(made: list[Move]) -> str:
    return "".join(choice["delta"].get("content") or "" for event in events(made) for choice in event["choices"])


# ---------------------------------------------------------------- content


def test_a_chat_is_role_tokens_finish_and_done() -> None:
    """A plain stream has the shape that engines give it, at the script's pace, in chunks of one event each."""
    made = played("demo-n3-t50-d100-hb200")
    head, _ = split(made)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"text/event-stream" in head
    assert b"x-request-id: demo-3" in head and b"connection" not in head
    assert [move for move in made if isinstance(move, float)] == [0.2, 0.1, 0.05, 0.05, 0.05]
    assert acts(made) == [Act.ANSWERED]
    seen = events(made)
    assert seen[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert content(made) == "A river keeps "
    assert seen[-1]["choices"][0]["finish_reason"] == "stop" and "usage" not in seen[-1]
    assert {event["id"] for event in seen} == {"chatcmpl-rid-1"}
    assert datas(made)[-1] == "[DONE]"


def test_streaming_and_not_have_the_same_text() -> None:
    """The text is deterministic, whatever the form of the answer."""
    whole = json.loads(split(played("demo-n40-t0", stream=False))[1])
    assert whole["choices"][0]["message"]["content"] == content(played("demo-n40-t0"))
    assert whole["usage"] == {"prompt_tokens": 1, "completion_tokens": 40, "total_tokens": 41}


def test_usage_comes_when_asked_for() -> None:
    """With include_usage an event without choices comes last, and all others say `usage: null`."""
    *others, last = events(played("demo-n2-t0", include_usage=True))
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 2
    assert all(event["usage"] is None for event in others[:-1])
    assert events(played("demo-n2-t0-usagefinish"))[-1]["usage"]["total_tokens"] == 3


def test_choices_interleave() -> None:
    """Each of `n` choices has its role, its tokens and its finish reason; usage counts all."""
    seen = events(played("demo-n2-t0", choices=2, include_usage=True))
    assert [event["choices"][0]["index"] for event in seen[:-1]] == [0, 1] * 4
    assert seen[-1]["usage"]["completion_tokens"] == 4
    assert len(json.loads(split(played("demo-n2-t0", stream=False, choices=2))[1])["choices"]) == 2


def test_tool_calls() -> None:
    """`tools` gives a name, then its arguments in pieces, and no text."""
    deltas = [event["choices"][0]["delta"] for event in events(played("demo-t0-tools"))]
    calls = [delta["tool_calls"][0]["function"] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["name"] == "get_weather"
    assert "".join(call["arguments"] for call in calls) == ARGUMENTS
    whole = json.loads(split(played("demo-t0-tools", stream=False))[1])["choices"][0]
    assert whole["finish_reason"] == "tool_calls"
    assert whole["message"]["tool_calls"][0]["function"]["arguments"] == ARGUMENTS


def test_reasoning_comes_first() -> None:
    """`reasoning` sends the first half of the tokens as reasoning_content."""
    deltas = [event["choices"][0]["delta"] for event in events(played("demo-n4-t0-reasoning"))]
    assert [next(iter(delta), "") for delta in deltas[1:5]] == ["reasoning_content"] * 2 + ["content"] * 2
    message = json.loads(split(played("demo-n4-t0-reasoning", stream=False))[1])["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("A river ", "keeps no ")


def test_text_options() -> None:
    """Roles, other alphabets, the request's own id, padding: each where it belongs."""
    roles = events(played("demo-n1-t0-roles"))[1]["choices"][0]["delta"]
    assert roles == {"role": "assistant", "content": "A "}
    assert content(played("demo-n3-t0-utf8")) == "".join(f"{word} " for word in WORDS_UTF8[:3])
    assert content(played("demo-n2-t0-echo")) == "rid-1:A rid-1:river "
    assert events(played("demo-n1-t0-p50"))[1]["padding"] == "p" * 50
    flooded = content(played("demo-t9-flood100000"))
    assert flooded == "x" * FLOOD_EVENT * 6
    assert not [move for move in played("demo-t9-flood100000") if isinstance(move, float)]


def test_completions() -> None:
    """/v1/completions has text and no role."""
    seen = events(played("demo-n2-t0", Family.COMPLETIONS))
    assert [event["choices"][0]["text"] for event in seen] == ["A ", "river ", ""]
    assert {event["object"] for event in seen} == {"text_completion"}
    whole = json.loads(split(played("demo-n2-t0", Family.COMPLETIONS, stream=False))[1])
    assert whole["choices"][0]["text"] == "A river " and whole["id"] == "cmpl-rid-1"


def test_embeddings_and_models_never_stream() -> None:
    """Vectors have as many numbers as the script has tokens; one for each input."""
    vectors = json.loads(split(played("demo-n3-t0", Family.EMBEDDINGS, inputs=2))[1])["data"]
    assert [item["embedding"] for item in vectors] == [[0.0, 0.0625, 0.125]] * 2
    assert json.loads(split(played("demo-t0", Family.MODELS))[1])["data"][0]["id"] == "demo"


def test_other_paths_stream_plainly() -> None:
    """A path of no known family has events of its own form and no `[DONE]`."""
    assert [event["type"] for event in events(played("demo-n2-t0", Family.OTHER))] == ["delta", "delta", "completed"]
    assert "[DONE]" not in datas(played("demo-n2-t0", Family.OTHER))
    whole = json.loads(split(played("demo-n2-t0", Family.OTHER, stream=False, size=99))[1])
    assert (whole["bytes"], whole["text"]) == (99, "A river ")


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("nonjson2", b"data: this is {not JSON\n\n"),
        ("nul2", b"\x00"),
        ("badbytes2", b"\xff\xfe"),
        ("bigevent5000", b"b" * 5000),
    ],
)
def test_odd_events_come_among_the_others(name: str, odd: bytes) -> None:
    """An odd event is inserted; the rest of the stream is as it was."""
    body = unchunked(split(played(f"demo-n3-t0-{name}"))[1])
    before, found, after = body.partition(odd)
    assert found and before.count(b"data: ") + after.count(b"data: ") >= 6
    assert body.endswith(b"data: [DONE]\n\n")


# ---------------------------------------------------------------- writing


def test_line_ends() -> None:
    """CR LF and CR replace every line end of the events, and only those."""
    plain = unchunked(split(played("demo-n2-t0"))[1])
    for name, end in (("crlf", b"\r\n"), ("cr", b"\r")):
        body = unchunked(split(played(f"demo-n2-t0-{name}"))[1])
        assert body == plain.replace(b"demo-n2-t0", b"demo-n2-t0-" + name.encode()).replace(b"\n", end)


def test_dress() -> None:
    """A byte order mark comes once, a comment before each event, and JSON may span two data lines."""
    assert unchunked(split(played("demo-n2-t0-bom"))[1]).count(b"\xef\xbb\xbf") == 1
    assert unchunked(split(played("demo-n2-t0-bom"))[1]).startswith(b"\xef\xbb\xbfdata: ")
    assert unchunked(split(played("demo-n2-t0-comments"))[1]).count(b": a comment\n\n") == 5
    first = unchunked(split(played("demo-n2-t0-multiline"))[1]).split(b"\n\n")[0].decode()
    lines = [line.removeprefix("data: ") for line in first.split("\n")]
    assert len(lines) == 2 and json.loads("\n".join(lines))["object"] == "chat.completion.chunk"


def test_writes() -> None:
    """`burst` writes all events at once; `split` writes pieces with a turn of the loop after each."""
    burst = [move for move in played("demo-n5-burst") if isinstance(move, bytes)]
    assert len(burst) == 2 and len(events(played("demo-n5-burst"))) == 7
    stalled = played("demo-n5-burst-stall2")
    assert acts(stalled)[0] is Act.HANG and wire(stalled).count(b"data: ") == 2
    pieces = played("demo-n1-t0-split7")
    sizes = {len(move) for move in pieces[1:] if isinstance(move, bytes)}
    assert max(sizes) == 7 and pieces.count(0.0) > 50
    assert content(pieces) == "A "
    assert Act.HANG in played("demo-n1-t0-split7-stall1")


def test_framing() -> None:
    """Length instead of chunks, chunks instead of length, and HTTP/1.0 that ends with the connection."""
    head, body = split(played("demo-n2-t0-length"))
    assert f"content-length: {len(body)}".encode() in head and b"chunked" not in head and b"[DONE]" in body
    whole = unchunked(split(played("demo-n2-t0-chunked", stream=False))[1])
    assert json.loads(whole)["choices"][0]["message"]["content"] == "A river "
    for stream in (True, False):
        made = played("demo-n2-t0-http10", stream=stream)
        head, _ = split(made)
        assert head.startswith(b"HTTP/1.0 200") and b"length" not in head and b"chunked" not in head
        assert acts(made)[-1] is Act.CLOSE
    assert b"chunked" not in split(played("demo-n2-t0-http10-chunked", stream=False))[0]


def test_compression() -> None:
    """`gzip` is what it says, and the bomb unpacks to the size that was asked for."""
    head, body = split(played("demo-n2-t0-gzip"))
    assert b"content-encoding: gzip" in head and gzip.decompress(unchunked(body)).endswith(b"data: [DONE]\n\n")
    head, body = split(played("demo-n2-t0-gzip", stream=False))
    assert b"content-encoding: gzip" in head and json.loads(gzip.decompress(body))
    bomb = unchunked(split(played("demo-gzipbomb3145728"))[1])
    assert len(bomb) < 10_000 and len(zlib.decompress(bomb, wbits=31)) == 3 * 1024 * 1024


# ---------------------------------------------------------------- turns and ends


@pytest.mark.parametrize(
    ("turn", "sent", "ending", "expected"),
    [
        ("stall3", 3, b"}\n\n\r\n", [Act.HANG, Act.ANSWERED]),
        ("stall0", 0, b"\r\n\r\n", [Act.HANG, Act.ANSWERED]),
        ("reset3", 3, b"}\n\n\r\n", [Act.RESET, Act.ANSWERED]),
        ("eof3", 3, b"}\n\n\r\n", [Act.CLOSE, Act.ANSWERED]),
        ("cleaneof3", 3, b"}\n\n\r\n0\r\n\r\n", [Act.ANSWERED]),
        ("badchunk3", 3, b"this is no chunk size\r\n", [Act.HANG, Act.ANSWERED]),
        ("errorevent3", 4, b"}}\n\n\r\n0\r\n\r\n", [Act.ANSWERED]),
        ("errornamed3", 4, b"}}\n\n\r\n0\r\n\r\n", [Act.ANSWERED]),
        ("errorold3", 5, b"data: [DONE]\n\n\r\n0\r\n\r\n", [Act.ANSWERED]),
        ("errorevent5", 6, b"}}\n\n\r\n0\r\n\r\n", [Act.ANSWERED]),
        ("errorevent99", 8, b"}}\n\n\r\n0\r\n\r\n", [Act.ANSWERED]),
        ("cut3", 4, b"", [Act.CLOSE, Act.ANSWERED]),
        ("half3", 4, b"\r\n0\r\n\r\n", [Act.ANSWERED]),
    ],
)
def test_turns(turn: str, sent: int, ending: bytes, expected: ACTS) -> None:
    """After k events the stream takes the turn that was asked for, and nothing more comes."""
    made = played(f"demo-n4-t0-{turn}")
    assert wire(made).count(b"data: ") == sent
    assert wire(made).endswith(ending)
    assert acts(made) == expected


def test_error_events_have_their_form() -> None:
    """An error object, the same with a name, and vLLM's own form."""
    assert b'data: {"error":{"message":' in wire(played("demo-errorevent1"))
    assert b'event: error\ndata: {"error":{' in wire(played("demo-errornamed1"))
    assert b'data: {"object":"error","message":' in wire(played("demo-errorold1"))
    injected = wire(played("demo-errorevent1-inject"))
    assert b"\\r\\n\\r\\ndata: [DONE]\\n\\n" in injected and b"\ndata: [DONE]" not in injected


def test_a_cut_is_inside_a_chunk_and_half_is_inside_an_event() -> None:
    """`cut` breaks HTTP's framing, `half` only SSE's."""
    with pytest.raises(ValueError, match="invalid literal"):
        unchunked(split(played("demo-n4-t0-cut1"))[1] + b"\r\nx")
    assert not unchunked(split(played("demo-n4-t0-half1"))[1]).endswith(b"\n\n")


def test_endless_events() -> None:
    """A giant event has no end, in one line or in many."""
    call = Call(Family.CHAT, "r", 1, stream=True)
    giant = wire(list(islice(moves(parse("demo-giant0"), call), 200)))
    assert len(giant) > 2_000_000 and giant.count(b"data: ") == 1
    lines = wire(list(islice(moves(parse("demo-giantlines0"), call), 200)))
    assert lines.count(b"data: ") > 100_000 and b"\n\n" not in lines


def test_ends() -> None:
    """The ends of a stream that differ from the usual one."""
    assert "[DONE]" not in datas(played("demo-n1-t0-nodone"))
    assert not any(event["choices"][0]["finish_reason"] for event in events(played("demo-n1-t0-nofinish")))
    assert datas(played("demo-n1-t0-nofinish"))[-1] == "[DONE]"
    opened = played("demo-n1-t0-doneopen")
    assert wire(opened).endswith(b"data: [DONE]\n\n\r\n") and acts(opened)[:2] == [Act.ANSWERED, Act.HANG]
    more = datas(played("demo-n1-t0-donemore"))
    assert more.index("[DONE]") == len(more) - 3
    for word in ("abort", "error"):
        assert events(played(f"demo-n1-t0-finish{word}"))[-1]["choices"][0]["finish_reason"] == word


@pytest.mark.parametrize(
    ("turn", "status", "half", "expected"),
    [
        ("stall1", 200, True, [Act.HANG]),
        ("stall0", 200, False, [Act.HANG]),
        ("reset1", 200, True, [Act.RESET]),
        ("eof0", 200, False, [Act.CLOSE]),
        ("cleaneof1", 200, True, []),
        ("errorevent3", 500, False, []),
    ],
)
def test_turns_of_a_single_answer(turn: str, status: int, half: bool, expected: ACTS) -> None:
    """Without streaming, the turn comes before the body or in the middle of it; an error event becomes a status."""
    made = played(f"demo-n4-t0-{turn}", stream=False)
    assert wire(made).startswith(b"HTTP/1.1 %d " % status)
    assert (b'"choices"' in wire(made)) is half and b'"usage"' not in wire(made)
    assert acts(made) == [*expected, Act.ANSWERED]


# ---------------------------------------------------------------- in place of the answer


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("name", "begins", "holds", "expected"),
    [
        ("status429-r7", b"HTTP/1.1 429 Too Many Requests", b"retry-after: 7", []),
        ("status401", b"HTTP/1.1 401 Unauthorized", b'"type":"authentication_error"', []),
        ("status599", b"HTTP/1.1 599 Unknown", b'"type":"server_error"', []),
        ("html503", b"HTTP/1.1 503 Service Unavailable", b"<!doctype html>", []),
        ("html200", b"HTTP/1.1 200 OK", b"text/html", []),
        ("jsonerror", b"HTTP/1.1 200 OK", b'{"error":{', []),
        ("redirect307", b"HTTP/1.1 307 Temporary Redirect", b"location: http://127.0.0.1:9/", []),
        ("silent", b"", b"", [Act.HANG]),
        ("resethead", b"", b"", [Act.RESET]),
        ("eofhead", b"", b"", [Act.CLOSE]),
        ("halfhead", b"HTTP/1.1 200 OK\r\ncontent-type: text/ev", b"", [Act.HANG]),
        ("garbage", b"SSH-2.0-", b"", [Act.HANG]),
        ("headerbomb200000", b"HTTP/1.1 200 OK", b"x-bomb: bbb", []),
        ("earlyhints-n1-t0", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints", b"HTTP/1.1 200 OK", []),
        ("hopheaders-n1-t0", b"HTTP/1.1 200 OK", b"x-named: secret", []),
        ("badheaders-n1-t0", b"HTTP/1.1 200 OK", b"x-bad: one\rx-two: three", []),
    ],
)
def test_other_answers(name: str, begins: bytes, holds: bytes, expected: ACTS, stream: bool) -> None:
    """What stands in place of the answer, or around it, is the same for streams and single answers."""
    made = played(f"demo-{name}", stream=stream)
    assert wire(made).startswith(begins) and holds in wire(made)
    assert acts(made) == [*expected, Act.ANSWERED]


def test_an_empty_answer() -> None:
    """An empty stream is a head and the terminating chunk; an empty single answer has length 0."""
    assert split(played("demo-empty"))[1] == b"0\r\n\r\n"
    assert b"content-length: 0" in wire(played("demo-empty", stream=False))


def test_comments_only() -> None:
    """Comments at their pace, for ever."""
    made = played("demo-commentsonly50")
    assert len(made) == 20_000 and b"data:" not in wire(made) and 0.05 in made


def test_a_dribbled_head() -> None:
    """The head comes byte by byte, the body as ever."""
    made = played("demo-n1-t0-dribble5")
    assert made[:4] == [b"H", 0.005, b"T", 0.005] and content(made) == "A "


def test_wrong_lengths() -> None:
    """Both framings at once; a length that is too small; one that is too large, and then a close."""
    head, body = split(played("demo-n1-t0-clte"))
    assert b"content-length: 5" in head and b"chunked" in head and unchunked(body)
    for stream in (True, False):
        for name, error in (("shortcl", -10), ("longcl", 10)):
            made = played(f"demo-n1-t0-{name}", stream=stream)
            head, body = split(made)
            assert f"content-length: {len(body) + error}".encode() in head
            assert (Act.CLOSE in made) is (error > 0)


def test_what_happens_after_the_answer() -> None:
    """Each of these comes when the client has all it needs."""
    assert wire(played("demo-n1-t0-twice")).count(b"HTTP/1.1 200 OK") == 2
    late = played("demo-n1-t0-twicelate30")
    assert late[late.index(Act.ANSWERED) + 1] == 0.03 and b"nobody's" in wire(late)
    assert acts(played("demo-n1-t0-stale")) == [Act.ANSWERED, Act.STALE]
    assert played("demo-n1-t0-hangup40")[-2:] == [0.04, Act.CLOSE]
    for made in (played("demo-n1-t0-closeafter"), played("demo-n1-t0", last=True)):
        assert b"connection: close" in wire(made) and acts(made) == [Act.ANSWERED, Act.CLOSE]
    assert acts(played("demo-n1-t0-nonotify")) == [Act.ABRUPT, Act.ANSWERED]


def test_text_is_words() -> None:
    """Tokens begin again when the text is over."""
    assert content(played(f"demo-n{len(WORDS) + 1}-t0")).endswith("given. A ")
