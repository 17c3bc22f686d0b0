"""Each request is counted exactly once, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import anyio
import pytest
from anyio.lowlevel import checkpoint
from structlog.testing import CapturingLogger

from streamgate.errors import BadStatus, ErrorEvent, Reason, Refusal, Reset
from streamgate.observe import Observer
from streamgate.observe.observer import ROWS, SLICE
from streamgate.observe.tally import COSTS
from streamgate.observe.tracing import Untraced
from streamgate.record import COMPLETED, Ending, Outcome, Phase, StreamRecord, Usage


@pytest.fixture
def log() -> CapturingLogger:
    return CapturingLogger()


@pytest.fixture
def observer(log: CapturingLogger) -> Observer:
    return Observer(log=log)


def begin(observer: Observer, record: StreamRecord) -> None:
    record.request_id, record.route, record.model, record.model_label = (
        "r1",
        "/v1/chat/completions",
        "llama-7b",
        "llama",
    )
    record.stream, record.t_read = True, record.t_received + 0.01
    observer.started(record)


def lines_of(log: CapturingLogger) -> list[tuple[str, str, dict[str, object]]]:
    return [(call.method_name, call.args[0], call.kwargs.get("fields", call.kwargs)) for call in log.calls]


def ended(observer: Observer) -> dict[str, int]:
    return {key[-1]: count for key, count in observer.tally.ended.cells.items()}


@pytest.mark.anyio
@pytest.mark.parametrize("outcome", list(Outcome))
async def test_a_stream_is_counted_and_logged_once_with_its_outcome(observer, log, outcome):
    """One increment, one line, the same word."""
    async with observer.stream() as record:
        begin(observer, record)
        observer.started(record)
        assert observer.active == 1
        record.ending = Ending(outcome)
    assert ended(observer) == {outcome.value: 1}
    assert observer.tally.started.cells == {("/v1/chat/completions", "llama"): 1}
    assert observer.active == 0
    assert not observer.live
    [(level, event, fields)] = lines_of(log)
    assert (event, fields["outcome"]) == ("stream_finished", outcome.value)
    assert level == ("warning" if outcome.klass == "error" else "info")


@pytest.mark.anyio
async def test_a_canonical_line_tells_the_whole_stream(observer, log):
    """Times are milliseconds, counts are numbers, and a fault gives code and detail."""
    async with observer.stream() as record:
        begin(observer, record)
        record.t_received, record.t_read, record.t_leased = 10.0, 11.0, 11.5
        record.semantic(12.0)
        record.semantic(12.25)
        record.t_end, record.events, record.attempts = 13.0, 2, 1
        record.usage = Usage(5, 7)
        record.ending = Ending.by(Reset("10.0.0.5:8000"))
    fields = lines_of(log)[0][2]
    expected = {
        "queue_ms": 500.0, "ttft_ms": 1000.0, "duration_ms": 2000.0, "max_gap_ms": 250.0, "chunks": 2, "attempts": 1,
        "input_tokens": 5, "output_tokens": 7, "error_type": "upstream_reset", "error_detail": "10.0.0.5:8000",
        "tenant": None,
    }  # fmt: skip
    assert {key: fields[key] for key in expected} == expected


@pytest.mark.anyio
async def test_an_error_event_gives_the_upstreams_own_words_as_detail(observer, log):
    """What an upstream said inside a 200 is for the log."""
    async with observer.stream() as record:
        begin(observer, record)
        record.ending = Ending.by(ErrorEvent("out of memory"))
    assert lines_of(log)[0][2]["error_detail"] == "out of memory"


@pytest.mark.anyio
async def test_a_refused_request_never_was_a_stream(observer, log):
    """It is counted by its reason, and nowhere else."""
    async with observer.stream() as record:
        record.route = "/v1/chat/completions"
        record.refusal = Refusal(Reason.QUEUE_FULL, 503, "Busy.")
    assert observer.tally.rejected.cells == {("/v1/chat/completions", "queue_full"): 1}
    assert not observer.tally.started.cells
    assert not observer.tally.ended.cells
    assert lines_of(log)[0][:2] == ("info", "request_rejected")
    assert lines_of(log)[0][2]["status"] == 503


@pytest.mark.anyio
async def test_a_refusal_that_escapes_is_still_a_refusal(observer):
    """Nobody answered it here, so it goes on; its reason is counted."""
    with pytest.raises(Refusal):
        async with observer.stream():
            raise Refusal(Reason.METHOD, 405, "No.")
    assert observer.tally.rejected.cells == {("", "method"): 1}


@pytest.mark.anyio
async def test_what_the_gateway_answers_itself_is_not_counted(observer, log):
    """Neither stream nor refusal: a list of models, for example."""
    async with observer.stream():
        pass
    assert observer.statistics() == {"active": 0, "live": 0, "started": 0, "ended": 0, "rejected": 0}
    assert not log.calls


@pytest.mark.anyio
async def test_a_bug_in_a_stream_is_an_internal_error_and_its_message_is_not_logged(observer, log):
    """The line names the exception's type and place; the exception goes on to the server."""
    with pytest.raises(ValueError, match="secret"):
        async with observer.stream() as record:
            begin(observer, record)
            raise ValueError("secret")
    assert ended(observer) == {"internal_error": 1}
    (level, event, fields), (_, _, line) = lines_of(log)
    assert (level, event, fields["error_type"]) == ("error", "unexpected_error", "ValueError")
    assert "test_observer.py" in fields["where"][-1]
    assert "secret" not in repr(log.calls)
    assert line["error_type"] == "ValueError"


@pytest.mark.anyio
async def test_a_bug_before_the_lease_is_counted_as_a_stream_that_failed(observer):
    """Otherwise it would show nowhere, and the books must balance."""
    with pytest.raises(KeyError):
        async with observer.stream():
            raise KeyError("x")
    assert ended(observer) == {"internal_error": 1}
    assert observer.statistics()["started"] == 1


@pytest.mark.anyio
async def test_an_ending_stands_whatever_escapes_after_it(observer):
    """The first word on how a stream ended is the last."""
    with pytest.raises(OSError, match="late"):
        async with observer.stream() as record:
            begin(observer, record)
            record.ending = COMPLETED
            raise OSError("late")
    assert ended(observer) == {"completed": 1}


@pytest.mark.anyio
async def test_a_cancelled_stream_without_an_ending_is_an_internal_error(observer, log):
    """Whoever cancels says why; when nobody did, that is a fault of ours, but no traceback."""
    with pytest.raises(asyncio.CancelledError):
        async with observer.stream() as record:
            begin(observer, record)
            raise asyncio.CancelledError
    assert ended(observer) == {"internal_error": 1}
    assert [event for _, event, _ in lines_of(log)] == ["stream_finished"]


@pytest.mark.anyio
async def test_a_request_cancelled_before_its_lease_lost_its_client(observer):
    """It is a refusal with reason client_left."""
    with pytest.raises(asyncio.CancelledError):
        async with observer.stream():
            raise asyncio.CancelledError
    assert observer.tally.rejected.cells == {("", "client_left"): 1}


def test_the_edges_refusals_and_the_tries_are_counted(observer, log):
    """Refused, attempted, retried, failed over: one cell each."""
    observer.refused("/v1/models", Reason.BAD_REQUEST)
    observer.attempt("gpu-a", "2xx")
    record = StreamRecord(0.0)
    record.request_id, record.upstream, record.attempts = "r1", "gpu-a", 1
    observer.retried(record, Reset("peer"), elsewhere=False)
    observer.retried(record, BadStatus(503, (), b""), elsewhere=True)
    tally = observer.tally
    assert tally.rejected.cells == {("/v1/models", "bad_request"): 1}
    assert tally.attempts.cells == {("gpu-a", "2xx"): 1}
    assert tally.retries.cells == {("gpu-a", "reset"): 1}
    assert tally.failovers.cells == {("gpu-a", "error"): 1}
    said = {event: fields for _, event, fields in lines_of(log)}
    assert said["upstream_retry"] == {
        "request_id": "r1", "upstream": "gpu-a", "error_type": "upstream_reset", "error_detail": "peer", "attempts": 1,
    }  # fmt: skip
    assert said["upstream_failover"]["error_detail"] == "status 503"


def test_a_change_of_an_upstreams_standing_is_told(observer, log):
    """Out is a warning with the fault that did it, in again is news."""
    observer.circuit("gpu-a", "open", Reset("peer"))
    observer.circuit("gpu-a", "closed")
    assert [(level, fields["state"], fields["error_type"]) for level, _, fields in lines_of(log)] == [
        ("warning", "open", "upstream_reset"),
        ("info", "closed", None),
    ]


@pytest.mark.anyio
async def test_a_start_is_told_to_who_wants_to_hear_everything(log):
    """One line at debug, once; none otherwise."""
    for chatty in (False, True):
        observer = Observer(log=log, chatty=chatty)
        async with observer.stream() as record:
            begin(observer, record)
            observer.started(record)
            record.ending = COMPLETED
    assert [event for _, event, _ in lines_of(log)] == ["stream_finished", "stream_started", "stream_finished"]


@pytest.mark.anyio
async def test_phases_hold_every_stream_and_the_queue(observer):
    """A request being read is in no phase; a stream is in one, even before the path says which."""
    phases = [Phase.READING, Phase.QUEUED, Phase.READING, Phase.WAITING, Phase.STREAMING, Phase.ENDED]
    leased = [False, False, True, True, True, True]
    requests = [observer.stream() for _ in phases]
    for request, phase, lease in zip(requests, phases, leased, strict=True):
        record = await request.__aenter__()
        record.phase = phase
        if lease:
            observer.started(record)
            record.ending = COMPLETED
        else:
            record.refusal = Refusal(Reason.CLIENT_LEFT, 499, "Gone.")
    assert observer.phases() == {"queued": 1, "waiting_first_token": 2, "streaming": 1, "ending": 1}
    assert observer.active == 4
    for request in requests:
        await request.__aexit__(None, None, None)
    assert observer.statistics() == {"active": 0, "live": 0, "started": 4, "ended": 4, "rejected": 2}


@pytest.mark.anyio
async def test_the_snapshot_lists_the_oldest_first_and_is_bounded(observer):
    """What an operator sees of a stream, without a prompt or a key."""
    requests = [observer.stream() for _ in range(ROWS + 3)]
    for number, request in enumerate(requests):
        record = await request.__aenter__()
        record.request_id = str(number)
    first = requests[0].record
    first.semantic(first.t_received + 0.5)
    rows = observer.snapshot()
    assert len(rows) == ROWS
    assert [row["id"] for row in rows[:2]] == ["0", "1"]
    assert rows[0]["ttft_ms"] == 500.0
    assert rows[0]["last_event_age_s"] is not None
    assert rows[1]["ttft_ms"] is None
    assert rows[1]["last_event_age_s"] is None
    await observer.fold()
    for request in requests:
        await request.__aexit__(None, None, None)
    assert not observer.live


@pytest.mark.anyio
async def test_tracing_is_told_of_both_ends(log):
    """The seam sees every request, and its outcome when it was a stream."""
    told: list[object] = []

    class Spans(Untraced):
        def began(self, record: StreamRecord, headers: Sequence[tuple[bytes, bytes]]) -> None:
            told.append(list(headers))

        def ended(self, record: StreamRecord, outcome: Outcome | None) -> None:
            told.append(outcome)
            record.trace_id, record.span_id = "t", "s"

    observer = Observer(log=log, tracing=Spans())
    async with observer.stream([(b"a", b"b")]) as record:
        begin(observer, record)
        record.ending = COMPLETED
    async with observer.stream():
        pass
    assert told == [[(b"a", b"b")], Outcome.COMPLETED, [], None]
    [(_, _, fields)] = lines_of(log)
    assert (fields["trace_id"], fields["span_id"]) == ("t", "s"), "what a trace is called is known before its line"


@pytest.mark.anyio
async def test_a_stream_that_ends_while_others_are_folded_is_no_longer_live(observer):
    """A scrape takes a turn of the loop for each slice of the streams; who left meanwhile was folded at the end."""
    requests = []
    for _ in range(SLICE + 1):
        requests.append(observer.stream())
        begin(observer, await requests[-1].__aenter__())
    async with anyio.create_task_group() as group:
        group.start_soon(observer.fold)
        await checkpoint()  # the first slice was folded in this turn
        last = requests.pop()
        last.record.events = 3
        last.record.ending = Ending(Outcome.COMPLETED)
        await last.__aexit__(None, None, None)
    assert sum(observer.tally.chunks.cells.values()) == 3
    for request in requests:
        await request.__aexit__(None, None, None)


@pytest.mark.anyio
async def test_samples_of_single_events_are_bounded_without_a_ticker(observer):
    """The end of a stream folds them when nobody else did."""
    for samples, left in ((COSTS, COSTS), (1, 0)):
        async with observer.stream() as record:
            begin(observer, record)
            record.costs.extend([0.001] * samples)
            record.ending = Ending(Outcome.COMPLETED)
        assert len(observer.tally.costs) == left
    observer.tally.costs.append(0.001)
    observer.lagged(0.002)
    assert not observer.tally.costs
    assert sum(observer.tally.overhead.cells["chunk",].counts) == COSTS + 2
    assert observer.tally.lag.cells[()].total == 0.002
