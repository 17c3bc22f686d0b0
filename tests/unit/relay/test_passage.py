"""One stream's frames: held, written, ended. Driven directly: it does no I/O, so there are no sockets and no waits."""

from __future__ import annotations

import asyncio
import itertools
import json
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from stage import DONE, ERROR, FINISH, delta

from streamgate import errors
from streamgate.dialects.dialect import Dialect
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.dialects.plain import PLAIN_SSE
from streamgate.errors import Fault
from streamgate.record import Ending, Outcome, Phase, StreamRecord, Usage
from streamgate.relay.answer import Kind
from streamgate.relay.attempt import HOLD, Attempt
from streamgate.relay.deadlines import Deadlines
from streamgate.relay.passage import Passage, State
from streamgate.sse.clocks import NEVER
from streamgate.sse.outlet import Lost

pytestmark = pytest.mark.anyio

SSE = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON = [(b"content-type", b"application/json")]
ROLE = delta()
ANSWER = b'{"id":"c","choices":[{"index":0}],"usage":{"prompt_tokens":3,"completion_tokens":5}}'
SAID = b'{"error":{"message":"no GPU","type":"server_error","param":null,"code":"oom"}}'
ABORT = delta(delta={}, finish_reason="abort")


class Sink:
    """Keeps what is written, frame by frame."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.failure: Exception | None = None

    def write(self, frame: bytes, now: float) -> None:
        if self.failure is not None:
            raise self.failure
        self.frames.append(frame)

    @property
    def body(self) -> bytes:
        return b"".join(self.frames)


class Head:
    """The client's response head: whether it is out, and which attempt opened it."""

    def __init__(self, sink: Sink, *, begun: bool = False) -> None:
        self.sink = sink
        self.begun = begun
        self.opened: list[tuple[int, list[tuple[bytes, bytes]], int | None]] = []
        self.source: object = None
        self.failure: Exception | None = None

    def open(self, attempt: Attempt, source: object) -> None:
        assert not self.sink.frames, "the head comes before the first frame"
        if self.failure is not None:
            raise self.failure
        self.opened.append((attempt.status, list(attempt.headers), attempt.length))
        self.source = source
        self.begun = True


class Source:
    """The exchange, as a passage may slow it down."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")


class Case:
    """A passage, and everything around it."""

    def __init__(
        self, heard: Dialect = OPENAI_CHAT, *, stream: bool = True, begun: bool = False, max_event: int = 1 << 20,
        **clocks: float,
    ) -> None:  # fmt: skip
        self.sink = Sink()
        self.head = Head(self.sink, begun=begun)
        self.record = StreamRecord(1000.0)
        self.record.stream = stream
        self.record.t_leased = 1000.0
        self.source = Source()
        self.passage = Passage(self.sink, self.head, heard, self.record, Deadlines(**clocks), max_event)

    def trying(self, *chunks: bytes, status: int = 200, headers: Any = SSE, own_key: bool = True) -> Case:
        """A try, as far as its head and these chunks."""
        self.passage.begin(own_key=own_key)
        self.passage.fed_by(self.source)
        self.passage.head(status, list(headers))
        return self.fed(*chunks)

    def fed(self, *chunks: bytes) -> Case:
        for chunk in chunks:
            self.passage.feed(chunk)
        return self

    @property
    def ended(self) -> Outcome | None:
        return self.passage.until.result().outcome if self.passage.until.done() else None

    @property
    def fault(self) -> Fault | None:
        """The stream's fault, once it has ended."""
        return self.passage.until.result().fault

    @property
    def failed(self) -> type | None:
        """The class of the fault with which this try failed, before anything of it was written."""
        first = self.passage.first
        return type(first.result()) if first.done() and first.result() is not None else None

    @property
    def committed(self) -> bool:
        return self.passage.first.done() and self.passage.first.result() is None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`clock(s)` says what time it is."""
    now = [1000.0]
    monkeypatch.setattr("streamgate.relay.passage.monotonic", lambda: now[0])

    def tell(seconds: float) -> None:
        now[0] = seconds

    return tell


# ------------------------------------------------------------------------------------------------ holding and flowing


async def test_frames_before_the_first_semantic_event_are_held() -> None:
    """Nothing is written and no head is opened, so that another try can take its place."""
    case = Case().trying(ROLE, b": ping\n\n", ROLE[:20])
    assert case.passage.state is State.HOLDING
    assert (case.sink.frames, case.head.opened) == ([], [])
    assert not case.passage.first.done() and case.ended is None
    assert case.record.bytes_in == len(ROLE) + 8 + 20
    assert (case.record.bytes_out, case.record.events, case.record.t_first) == (0, 0, 0.0)
    case.passage.close()


async def test_the_first_semantic_event_commits() -> None:
    """The head with the upstream's status and headers, then everything that was held, in one frame."""
    case = Case().trying(ROLE, ROLE, delta("a"), status=201)
    assert case.head.opened == [(201, SSE, None)]
    assert case.head.source is case.passage
    assert case.sink.frames == [ROLE + ROLE + delta("a")]
    assert case.committed and case.ended is None
    assert case.passage.state is State.FLOWING and case.record.phase is Phase.STREAMING
    assert case.record.events == 3
    assert case.record.bytes_out == len(case.sink.body)
    assert case.record.t_first == case.record.t_last > 0
    case.passage.close()


async def test_frames_flow_as_they_come() -> None:
    """One write for each read that completes an event; what is unfinished waits for its end."""
    half, rest = delta("b")[:30], delta("b")[30:]
    case = Case().trying(delta("a"), half, rest + delta("c"), delta("d"))
    assert case.sink.frames == [delta("a"), half + rest + delta("c"), delta("d")]
    assert case.record.gap_counts is not None and sum(case.record.gap_counts) == 2
    assert case.record.events == 4
    case.passage.close()


async def test_what_is_not_semantic_flows_too_but_counts_no_gap() -> None:
    """After the commit nothing is held back; an empty delta is an event, not progress."""
    case = Case().trying(delta("a"), ROLE, delta("b"))
    assert case.sink.frames == [delta("a"), ROLE, delta("b")]
    assert case.record.gap_counts is not None and sum(case.record.gap_counts) == 1
    case.passage.close()


@pytest.mark.parametrize("comment", [b": ping\n\n", b":\r\n\r\n", b": a\n: b\n\n"])
async def test_comments_of_the_upstream_are_dropped(comment: bytes) -> None:
    """Its pings are not ours: they are neither written nor progress, before the commit and after it."""
    case = Case().trying(comment, delta("a"), comment, comment + delta("b") + comment)
    assert case.sink.frames == [delta("a"), delta("b")]
    assert case.record.events == 2
    case.passage.close()


async def test_invalid_utf8_is_made_valid() -> None:
    """What no client can decode becomes U+FFFD; what is valid stays byte for byte."""
    good = delta("caf\u00e9").replace(b"\\u00e9", b"\xc3\xa9")
    case = Case().trying(good, b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n')
    assert case.sink.frames == [good, b'data: {"choices":[{"index":0,"delta":{"content":"\xef\xbf\xbd"}}]}\n\n']
    case.passage.close()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_byte_order_mark_is_one_only_at_the_very_start(begun: bool) -> None:
    """After an early commit with its heartbeats it would be part of a field's name."""
    bom = b"\xef\xbb\xbf"
    case = Case(begun=begun).trying(bom + ROLE, delta("a"))
    assert case.sink.body == (b"" if begun else bom) + ROLE + delta("a")
    case.passage.close()


async def test_what_is_held_is_bounded() -> None:
    """Beyond 64 KiB the stream flows although nothing semantic came, and nothing is lost."""
    many = HOLD // len(ROLE)
    case = Case().trying(*[ROLE] * many)
    assert case.sink.frames == []
    case.fed(ROLE)
    assert case.sink.body == ROLE * (many + 1)
    assert case.committed and case.passage.state is State.FLOWING
    assert case.record.t_first == 0.0, "no token came yet"
    case.fed(delta("a"))
    assert case.record.t_first > 0
    case.passage.close()


async def test_a_large_json_answer_flows() -> None:
    """It is held only while it could be an error in disguise, and that is never so large."""
    half = b" " * (HOLD // 2)
    case = Case(stream=False).trying(b"{", half, headers=JSON)
    assert case.sink.frames == []
    case.fed(half, b"}")
    assert case.sink.body == b"{" + half + half + b"}"
    assert case.head.opened == [(200, JSON, None)], "its length is not known"
    case.passage.end(None)
    assert case.ended is Outcome.COMPLETED


async def test_an_error_body_is_kept_up_to_a_bound() -> None:
    """What is longer cannot be passed on, and is not kept."""
    case = Case().trying(b"x" * 1000, b"y" * HOLD, b"z" * 10, status=500, headers=JSON)
    case.passage.end(None)
    fault = case.passage.first.result()
    assert isinstance(fault, errors.BadStatus) and fault.body == b"x" * 1000
    case.passage.close()


# ------------------------------------------------------------------------------------------------ kinds of answers


@pytest.mark.parametrize(
    ("status", "headers", "body", "outcome", "failed"),
    [
        (200, SSE, delta("a") + FINISH + DONE, Outcome.COMPLETED, None),
        (200, SSE, delta("a") + FINISH, Outcome.COMPLETED, None),
        (200, SSE, b"", None, errors.Empty),
        (200, SSE, b": ping\n\n", None, errors.Empty),
        (200, SSE, ROLE, None, errors.Truncated),
        (200, SSE, ROLE + DONE, None, errors.Truncated),
        (200, SSE, ROLE + b"data: [DONE]", None, errors.Truncated),
        (200, SSE, ERROR, None, errors.ErrorEvent),
        (200, SSE, ROLE + ERROR, None, errors.ErrorEvent),
        (200, JSON, ANSWER, Outcome.COMPLETED, None),
        (201, [(b"content-type", b"Application/JSON ; charset=utf-8")], ANSWER, Outcome.COMPLETED, None),
        (200, JSON, SAID, None, errors.ErrorEvent),
        (200, JSON, b"", None, errors.Empty),
        (200, JSON, b" \n", None, errors.Empty),
        (200, [(b"content-type", b"audio/mpeg")], b"\0\1", Outcome.COMPLETED, None),
        (200, [(b"content-type", b"audio/mpeg")], b"", None, errors.Empty),
        (200, [], b"text", Outcome.COMPLETED, None),
        (200, [(b"content-type", b"text/html")], b"<html>", None, errors.WrongContent),
        (301, JSON, b"", None, errors.Redirected),
        (404, JSON, SAID, None, errors.BadStatus),
        (500, [(b"content-type", b"text/html")], b"<html>", None, errors.BadStatus),
        (401, JSON, SAID, None, errors.KeyRejected),
        (403, JSON, SAID, None, errors.KeyRejected),
    ],
)
async def test_every_kind_of_answer(
    status: int, headers: Any, body: bytes, outcome: Outcome | None, failed: type | None
) -> None:
    """Written whole, or failed with nothing written: whatever the bytes, the try is decided when its body is whole."""
    case = Case().trying(*([body] if body else []), status=status, headers=headers)
    case.passage.end(None)
    assert (case.ended, case.failed) == (outcome, failed)
    assert case.sink.body == (body if outcome is not None else b"")
    assert len(case.head.opened) == (outcome is not None)
    case.passage.close()


async def test_the_clients_own_key_is_the_clients_business() -> None:
    """401 for a key of the client's is an answer like any other 4xx, with its words."""
    case = Case().trying(SAID, status=401, headers=JSON, own_key=False)
    case.passage.end(None)
    fault = case.passage.first.result()
    assert isinstance(fault, errors.BadStatus)
    assert (fault.answered, fault.body) == (401, SAID)
    case.passage.close()


async def test_a_json_answer_has_its_length_and_its_usage() -> None:
    """Held to its end it goes out with a content-length, and its tokens are counted."""
    case = Case(stream=False).trying(ANSWER[:10], ANSWER[10:], headers=JSON)
    assert case.sink.frames == []
    case.passage.end(None)
    assert case.sink.frames == [ANSWER]
    assert case.head.opened == [(200, JSON, len(ANSWER))]
    assert case.ended is Outcome.COMPLETED
    case.passage.close()
    assert case.record.usage == Usage(3, 5)
    assert case.record.bytes_out == len(ANSWER)


@pytest.mark.parametrize(
    ("headers", "body", "failed"),
    [
        (JSON, SAID, errors.ErrorEvent),
        (JSON, ANSWER, errors.WrongContent),
        ([(b"content-type", b"text/plain")], b"x", errors.WrongContent),
        ([], b"x", errors.WrongContent),
    ],
)
async def test_after_an_early_commit_only_events_can_be_relayed(headers: Any, body: bytes, failed: type) -> None:
    """The client was promised them; anything else fails the try, with the upstream's words where it said some."""
    case = Case(begun=True).trying(body, headers=headers)
    case.passage.end(None)
    assert case.failed is failed
    assert case.sink.frames == [] and case.ended is None
    case.passage.close()


async def test_an_early_commit_does_not_open_again() -> None:
    """The opening is told all the same, and knows that the head is out."""
    case = Case(begun=True).trying(delta("a"))
    assert case.committed and case.sink.frames == [delta("a")]
    case.passage.close()


# ------------------------------------------------------------------------------------------------ ends


async def test_the_terminator_ends_the_stream() -> None:
    """What comes after it belongs to nobody, and the transport's end adds nothing."""
    case = Case().trying(delta("a") + FINISH, DONE + delta("stray"))
    assert case.ended is Outcome.COMPLETED and case.passage.settled
    assert case.sink.body == delta("a") + FINISH + DONE
    received = case.record.bytes_in
    case.fed(delta("b"))
    case.passage.end(errors.Reset())
    assert case.sink.body == delta("a") + FINISH + DONE
    assert (case.ended, case.record.bytes_in, case.record.events) == (Outcome.COMPLETED, received, 3)
    assert case.record.phase is Phase.ENDED


async def test_a_whole_answer_in_one_read() -> None:
    """It commits and ends in the same call."""
    case = Case().trying(ROLE + delta("a") + FINISH + DONE)
    assert case.committed and case.ended is Outcome.COMPLETED
    assert case.sink.frames == [ROLE + delta("a") + FINISH + DONE]
    assert case.record.t_first > 0 and case.record.events == 4


@pytest.mark.parametrize("last", [b"data: [DONE]", b"data:[DONE]\n", b"data: [DONE]\r\n", b"\ndata: [DONE]"])
async def test_a_terminator_whose_blank_line_never_came(last: bytes) -> None:
    """It is one, when the body is whole, and it is given the blank line."""
    case = Case().trying(delta("a") + FINISH, last)
    assert case.ended is None
    case.passage.end(None)
    assert case.ended is Outcome.COMPLETED
    assert case.sink.body == delta("a") + FINISH + last.rstrip() + b"\n\n"


async def test_an_event_that_lacked_the_last_lf() -> None:
    """Where lines end in CRLF a body may end in the CR: that event is whole."""
    crlf = (delta("a") + FINISH).replace(b"\n", b"\r\n")
    case = Case().trying(crlf[:-1])
    case.passage.end(None)
    assert case.ended is Outcome.COMPLETED
    assert case.sink.body == crlf[:-1]


@pytest.mark.parametrize(
    ("rest", "outcome"),
    [
        (FINISH, Outcome.COMPLETED),
        (FINISH + b": bye", Outcome.COMPLETED),
        (FINISH + b"\n", Outcome.COMPLETED),
        (b"", Outcome.TRUNCATED),
        (FINISH[:-1], Outcome.TRUNCATED),
        (FINISH + b"data: {", Outcome.TRUNCATED),
        (delta("b", index=1) + FINISH, Outcome.TRUNCATED),
    ],
)
async def test_a_clean_end_without_a_terminator(rest: bytes, outcome: Outcome) -> None:
    """Whole if every choice that spoke has a finish reason and no event is unfinished; nothing is added."""
    case = Case().trying(delta("a"), *([rest] if rest else []))
    case.passage.end(None)
    assert case.ended is outcome
    assert case.passage.told is False
    assert case.sink.body == (delta("a") + rest)[: len(case.sink.body)]


async def test_a_terminator_that_is_a_lie_is_not_passed_on() -> None:
    """Without any finish reason it is a truncation, which the client must not take for success."""
    case = Case().trying(delta("a"), ROLE + DONE)
    assert case.ended is Outcome.TRUNCATED
    assert case.sink.body == delta("a") + ROLE
    assert not case.passage.told


@pytest.mark.parametrize("together", [False, True])
async def test_an_upstreams_own_error_is_told_in_its_words(together: bool) -> None:
    """What came before it is written, the error as it came, and nothing after: the client has been told."""
    case = Case().trying(delta("a"), *([delta("b") + ERROR + DONE] if together else [delta("b"), ERROR, DONE]))
    assert case.sink.body == delta("a") + delta("b") + ERROR
    assert case.ended is Outcome.UPSTREAM_ERROR and isinstance(case.fault, errors.ErrorEvent)
    assert case.passage.told and case.passage.settled


async def test_an_error_that_sdks_would_not_see_is_rewritten() -> None:
    """An event without an `error` key becomes one with it, and the client has been told."""
    case = Case().trying(delta("a"), b'event: error\ndata: {"message": "no GPU"}\n\n')
    written = case.sink.frames[1]
    assert json.loads(written.removeprefix(b"data: "))["error"]["message"] == "no GPU"
    assert case.passage.told and case.ended is Outcome.UPSTREAM_ERROR


@pytest.mark.parametrize("terminator", [DONE, b""])
async def test_a_finish_reason_that_says_failed_is_relayed_as_it_came(terminator: bytes) -> None:
    """Nothing is added to it, and it counts as the upstream's error."""
    case = Case().trying(delta("a"), ABORT + terminator)
    case.passage.end(None)
    assert case.sink.body == delta("a") + ABORT + terminator
    assert case.ended is Outcome.UPSTREAM_ERROR and case.passage.told


@pytest.mark.parametrize("fault", [errors.Reset(), errors.Truncated(), errors.Garbled(), errors.Internal()])
async def test_a_transport_that_fails(fault: Fault) -> None:
    """Before anything was written it fails the try; after it, the stream, and the client is still to be told."""
    holding = Case().trying(ROLE)
    holding.passage.end(fault)
    assert holding.passage.first.result() is fault
    assert holding.ended is None and holding.passage.kind is Kind.FAILED
    flowing = Case().trying(delta("a"))
    flowing.passage.end(fault)
    assert flowing.passage.until.result() == Ending.by(fault)
    assert not flowing.passage.told and not flowing.passage.settled
    holding.passage.close()


async def test_an_event_that_is_too_large() -> None:
    """It fails the try before the commit and ends the stream after it; it is never held or written in part."""
    large = b"data: " + b"x" * 2000
    holding = Case(max_event=1024).trying(ROLE, large)
    assert holding.failed is errors.EventTooLarge and holding.ended is None
    flowing = Case(max_event=1024).trying(delta("a"), large)
    assert flowing.ended is Outcome.UPSTREAM_ERROR and isinstance(flowing.fault, errors.EventTooLarge)
    assert flowing.sink.body == delta("a")
    holding.passage.close()


async def test_a_plain_stream_ends_with_its_transport() -> None:
    """No terminator is looked for, and nothing is an error but an end that is not clean."""
    case = Case(PLAIN_SSE).trying(b"data: a\n\n", DONE, ERROR)
    assert case.ended is None
    case.passage.end(None)
    assert case.ended is Outcome.COMPLETED
    assert case.sink.body == b"data: a\n\n" + DONE + ERROR
    assert case.record.events == 3


ENDS: dict[str, tuple[Callable[[Case], object], Outcome]] = {
    "upstream": (lambda case: case.fed(FINISH + DONE), Outcome.COMPLETED),
    "reset": (lambda case: case.passage.end(errors.Reset()), Outcome.UPSTREAM_ERROR),
    "client": (lambda case: case.passage.client_lost(Lost.CLOSED), Outcome.CLIENT_CLOSED),
    "slow": (lambda case: case.passage.client_lost(Lost.SLOW), Outcome.SLOW_CLIENT),
    "drain": (lambda case: case.passage.drained(), Outcome.DRAINED),
    "clock": (lambda case: case.passage.look(5000.0), Outcome.DEADLINE),
    "operator": (lambda case: case.passage.finish(Ending.by(errors.Killed())), Outcome.KILLED),
    "bug": (lambda case: case.passage.crash(ValueError("x")), Outcome.INTERNAL_ERROR),
}


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(ENDS, 2)))
async def test_the_first_end_wins(first: str, second: str, clock: Callable[[float], None]) -> None:
    """Whoever it is; whatever comes later changes nothing, is not written, and raises nothing."""
    case = Case(total=100).trying(delta("a"))
    end, outcome = ENDS[first]
    end(case)
    written = list(case.sink.frames)
    ENDS[second][0](case)
    assert case.ended is outcome
    assert case.sink.frames == written
    assert case.passage.state is State.ENDED and case.passage.look(9999.0) == NEVER
    case.passage.close()


@pytest.mark.parametrize("name", [name for name in ENDS if name not in {"upstream", "reset"}])
async def test_an_end_while_holding_releases_both_waits(name: str, clock: Callable[[float], None]) -> None:
    """The try has no fault of its own: the stream is over, and nothing was written."""
    case = Case(total=100).trying(ROLE)
    ENDS[name][0](case)
    assert case.committed and case.ended is not None
    assert case.sink.frames == []
    case.fed(delta("a"))
    case.passage.end(None)
    assert case.sink.frames == [] and case.head.opened == []
    case.passage.close()


@pytest.mark.parametrize(
    ("last", "left", "outcome"),
    [
        (None, 1001.0, Outcome.CLIENT_GAVE_UP),
        (1001.0, 1010.9, Outcome.CLIENT_CLOSED),
        (1001.0, 1011.1, Outcome.CLIENT_GAVE_UP),
    ],
)
async def test_what_a_client_that_leaves_had_waited_for(
    last: float | None, left: float, outcome: Outcome, clock: Callable[[float], None]
) -> None:
    """Before the first token, or after `stall` seconds without one, it gave up; else it just left."""
    case = Case(stall=10).trying(ROLE)
    if last is not None:
        clock(last)
        case.fed(delta("a"))
    clock(left - 0.5)
    case.fed(ROLE, b": ping\n\n")
    clock(left)
    case.passage.client_lost(Lost.CLOSED)
    assert case.ended is outcome


async def test_a_client_that_did_not_read_did_not_wait_either(clock: Callable[[float], None]) -> None:
    """While it does not drain the upstream is paused: that silence is the client's own, and no reason to give up."""
    case = Case(stall=10).trying(delta("a"))
    case.passage.pause()
    clock(1025.0)
    case.passage.client_lost(Lost.CLOSED)
    assert case.ended is Outcome.CLIENT_CLOSED
    resumed = Case(stall=10).trying(delta("a"))
    resumed.passage.pause()
    clock(1050.0)
    resumed.passage.resume()
    clock(1055.0)
    resumed.passage.client_lost(Lost.CLOSED)
    assert resumed.ended is Outcome.CLIENT_CLOSED


@pytest.mark.parametrize("where", ["scan", "write", "open", "verdict"])
async def test_a_bug_is_not_the_upstreams_fault(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What raises inside is the gateway's own error, with its name for the log; the exchange hears nothing of it."""

    class Buggy:
        name, ping = "buggy", b""

        def __getattr__(self, name: str) -> Any:
            def method(*arguments: Any, **named: Any) -> Any:
                if name == where:
                    raise ZeroDivisionError("here")
                return getattr(OPENAI_CHAT, name)(*arguments, **named)

            return method

    case = Case(Buggy())  # type: ignore[arg-type]
    bug = ZeroDivisionError("here")
    if where == "write":
        case.sink.failure = bug
    elif where == "open":
        case.head.failure = bug
    case.trying(ROLE, delta("a"))
    case.passage.end(None)
    assert case.ended is Outcome.INTERNAL_ERROR
    assert case.fault is not None and case.fault.detail == "ZeroDivisionError: here"
    assert case.fault.message == errors.Internal.message
    assert case.passage.first.done()
    case.passage.close()


async def test_futures_that_a_cancelled_owner_took_along() -> None:
    """A task that is cancelled cancels what it waits for: what comes after that raises nothing."""
    case = Case().trying(ROLE)
    case.passage.first.cancel()
    case.passage.until.cancel()
    case.fed(delta("a"), FINISH + DONE)
    assert case.sink.body == ROLE + delta("a") + FINISH + DONE
    assert case.passage.state is State.ENDED and case.passage.until.cancelled()
    failing = Case().trying(ROLE)
    failing.passage.first.cancel()
    failing.passage.end(errors.Reset())
    assert failing.passage.kind is Kind.FAILED


# ------------------------------------------------------------------------------------------------ clocks


async def test_the_first_token_clock_runs_per_try(clock: Callable[[float], None]) -> None:
    """It fails the try, not the stream; role-only deltas and pings do not stop it, and the next try has its own."""
    case = Case(first_token=10)
    assert case.passage.look(2000.0) == NEVER, "nothing is tried yet"
    case.trying()
    assert case.passage.look(1009.0) == 1010.0
    clock(1009.0)
    case.fed(ROLE, b": ping\n\n")
    assert case.passage.look(1009.9) == 1010.0 and case.failed is None
    assert case.passage.look(1010.0) == NEVER
    assert case.failed is errors.FirstTokenTimeout and case.ended is None
    case.fed(delta("late"))
    assert case.sink.frames == [], "a try that failed is not heard any more"
    clock(1015.0)
    case.trying()
    assert not case.passage.first.done()
    assert case.passage.look(1016.0) == 1025.0
    case.fed(delta("a"))
    assert case.committed
    case.passage.close()


async def test_the_idle_clock_runs_between_semantic_events(clock: Callable[[float], None]) -> None:
    """Each one starts it anew; comments, role-only and empty deltas do not."""
    case = Case(idle=5).trying()
    clock(1002.0)
    case.fed(delta("a"))
    assert case.passage.look(1002.0) == 1007.0
    clock(1006.0)
    case.fed(delta("b"), b": ping\n\n", ROLE)
    assert case.passage.look(1007.5) == 1011.0
    clock(1010.0)
    case.fed(b": ping\n\n", ROLE, delta("c")[:10])
    assert case.passage.look(1010.9) == 1011.0
    assert case.passage.look(1011.0) == NEVER
    assert case.ended is Outcome.TIMEOUT_IDLE


async def test_a_stream_that_flows_without_a_token_is_idle_from_then(clock: Callable[[float], None]) -> None:
    """When what was held grew too large, the first-token clock is over and the idle clock begins."""
    case = Case(first_token=10, idle=5).trying()
    clock(1009.0)
    case.fed(*[ROLE] * (HOLD // len(ROLE) + 1))
    assert case.passage.state is State.FLOWING
    assert case.passage.look(1013.0) == 1014.0
    case.passage.look(1014.0)
    assert case.ended is Outcome.TIMEOUT_IDLE


@pytest.mark.parametrize("flowing", [False, True])
async def test_the_total_clock_ends_everything(flowing: bool, clock: Callable[[float], None]) -> None:
    """From the lease on, whatever is going on; it goes before the others when both are due."""
    case = Case(total=50, first_token=10, idle=10)
    case.record.t_leased = 990.0
    case.trying(*([delta("a")] if flowing else []))
    assert case.passage.look(1009.0) == 1010.0
    assert case.passage.look(1040.0) == NEVER
    assert case.ended is Outcome.DEADLINE and isinstance(case.fault, errors.Deadline)
    case.passage.close()


async def test_an_answer_that_is_no_stream_has_one_clock(clock: Callable[[float], None]) -> None:
    """From the lease to its last byte; there is no first token and no idling."""
    case = Case(stream=False, answer=600, first_token=1, idle=1, total=5).trying(b"{", headers=JSON)
    assert case.passage.look(1599.0) == 1600.0
    assert case.passage.look(1600.0) == NEVER
    assert case.ended is Outcome.DEADLINE
    case.passage.close()


async def test_clocks_that_are_turned_off(clock: Callable[[float], None]) -> None:
    """0 is never."""
    case = Case(first_token=0, idle=0, total=0).trying()
    assert case.passage.look(9e9) == NEVER
    case.fed(delta("a"))
    assert case.passage.look(9e9) == NEVER
    assert case.ended is None
    case.passage.close()


async def test_before_the_lease_no_clock_runs(clock: Callable[[float], None]) -> None:
    """A stream in the queue has not started."""
    case = Case(total=1, first_token=1)
    case.record.t_leased = 0.0
    assert case.passage.look(9e9) == NEVER and case.ended is None
    case.passage.close()


async def test_time_in_which_the_client_does_not_drain_is_not_the_upstreams(clock: Callable[[float], None]) -> None:
    """Paused, no token clock runs; resumed, the idle clock begins anew; the total clock runs on."""
    case = Case(idle=5, total=100).trying(delta("a"))
    case.passage.pause()
    assert case.passage.look(1050.0) == 1100.0 and case.ended is None
    clock(1050.0)
    case.passage.resume()
    assert case.passage.look(1054.9) == 1055.0 and case.ended is None
    case.passage.pause()
    case.passage.look(1100.0)
    assert case.ended is Outcome.DEADLINE
    case.passage.close()


async def test_pausing_reaches_whoever_feeds() -> None:
    """Also one that comes while it is paused; without one nothing happens; after `close` none is told."""
    case = Case()
    case.passage.pause()
    case.passage.resume()
    case.passage.pause()
    case.trying(delta("a"))
    assert case.source.told == ["pause"]
    case.passage.resume()
    case.passage.pause()
    assert case.source.told == ["pause", "resume", "pause"]
    case.passage.close()
    case.passage.resume()
    assert case.source.told == ["pause", "resume", "pause"]


async def test_a_looks_deadline_is_told_to_the_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real loop, without anybody looking by hand."""
    case = Case(first_token=0.05).trying(ROLE)
    fault = await asyncio.wait_for(case.passage.first, 5)
    assert isinstance(fault, errors.FirstTokenTimeout)
    case.passage.begin(own_key=True)
    case.passage.finish(Ending(Outcome.KILLED))
    case.passage.close()


# ------------------------------------------------------------------------------------------------ tries and close


async def test_a_new_try_takes_the_place_of_the_last() -> None:
    """Nothing that the last one said is written or counted as seen."""
    case = Case().trying(ROLE, delta("lost", index=3)[:50])
    case.passage.end(errors.Reset())
    assert case.failed is errors.Reset
    case.trying(delta("a") + FINISH + DONE)
    assert case.sink.body == delta("a") + FINISH + DONE
    assert case.ended is Outcome.COMPLETED, "choice 3 of the first try need not finish"
    assert case.record.events == 3


async def test_a_try_that_never_answered_leaves_nothing_to_forget() -> None:
    """`first` is the same future until it was used: whoever waits for it waits for the right one."""
    case = Case()
    case.passage.begin(own_key=True)
    first = case.passage.first
    case.passage.begin(own_key=True)
    assert case.passage.first is first
    case.passage.close()


async def test_a_second_head_is_not_heard() -> None:
    """One per try; none once the stream flows or has ended."""
    case = Case().trying(ROLE)
    case.passage.head(500, [])
    case.fed(delta("a"))
    assert case.head.opened == [(200, SSE, None)]
    case.passage.begin(own_key=True)
    case.passage.head(500, [])
    assert case.passage.kind is Kind.NOTHING
    case.passage.close()


async def test_after_a_bad_head_the_body_is_not_heard() -> None:
    """The try has failed; neither its bytes nor its end say anything more."""
    case = Case().trying(b"<html>", b"</html>", headers=[(b"content-type", b"text/html")])
    assert case.failed is errors.WrongContent
    case.passage.end(errors.Reset())
    assert case.failed is errors.WrongContent
    assert case.sink.frames == [] and case.ended is None
    case.passage.close()


async def test_closing_writes_down_what_the_events_said() -> None:
    """Usage, and the finish reasons of all choices, each once."""
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9}}\n\n'
    other = delta(delta={}, finish_reason="length", index=1)
    third = delta(delta={}, finish_reason="stop", index=2)
    case = Case().trying(delta("a"), FINISH + other + third, usage + DONE)
    case.passage.close()
    assert case.record.usage == Usage(7, 9)
    assert case.record.finish_reason == "stop,length"


async def test_a_closed_passage_keeps_nobody_alive() -> None:
    """Neither the exchange nor the clocks refer to it or through it."""
    case = Case().trying(delta("a"))
    source = weakref.ref(case.source)
    case.source = None  # type: ignore[assignment]
    case.passage.close()
    assert source() is None
    case.passage.close()
