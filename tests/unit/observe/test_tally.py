"""Aggregates: folding only what is new, capping label sets."""

from __future__ import annotations

import pytest

from streamgate.observe.families import OVERFLOW, Counts, Distributions
from streamgate.observe.tally import NOBODY, OTHER, Mark, Tally, Thresholds, began, merged
from streamgate.record import GAP_BOUNDS, Outcome, StreamRecord, Usage


def streaming(upstream: str = "gpu-a") -> StreamRecord:
    record = StreamRecord(100.0)
    record.route, record.model_label, record.upstream = "/v1/chat/completions", "llama", upstream
    record.stream, record.t_read = True, 100.5
    return record


def test_a_record_folded_twice_counts_once():
    """A second fold adds only what happened since the first."""
    tally, record, mark = Tally(), streaming(), Mark()
    record.events, record.bytes_in, record.bytes_out, record.pings = 3, 30, 40, 1
    record.semantic(101.0)
    record.semantic(101.02)
    tally.fold(record, mark, 106.0)
    tally.fold(record, mark, 106.0)
    assert tally.chunks.cells == {("gpu-a",): 3}
    assert tally.bytes.cells == {("gpu-a", "in"): 30, ("gpu-a", "out"): 40}
    assert tally.pings == 1
    assert sum(tally.gaps.cells["llama", "gpu-a"].counts) == 1
    record.events, record.bytes_out = 5, 60
    record.semantic(101.04)
    tally.fold(record, mark, 106.0)
    assert tally.chunks.cells == {("gpu-a",): 5}
    assert tally.bytes.cells["gpu-a", "out"] == 60
    assert sum(tally.gaps.cells["llama", "gpu-a"].counts) == 2
    assert tally.gaps.cells["llama", "gpu-a"].total == pytest.approx(0.04)
    assert sum(tally.first_token.cells["llama", "gpu-a"].counts) == 1


def test_a_stream_that_moves_leaves_what_was_counted_where_it_was():
    """After a failover the first upstream keeps its bytes, and no counter goes back."""
    tally, record, mark = Tally(), streaming("gpu-a"), Mark()
    record.bytes_in = 100
    tally.fold(record, mark, 106.0)
    record.upstream, record.bytes_in = "gpu-b", 150
    tally.fold(record, mark, 106.0)
    assert tally.bytes.cells == {("gpu-a", "in"): 100, ("gpu-b", "in"): 50}


def test_an_answer_that_is_not_a_stream_has_no_token_times():
    """Without `stream: true` neither first token nor gaps are observed."""
    tally, record = Tally(), streaming()
    record.stream = False
    record.semantic(101.0)
    record.semantic(102.0)
    tally.fold(record, Mark(), 106.0)
    assert not tally.first_token.cells
    assert not tally.gaps.cells


def test_first_token_and_duration_are_counted_from_the_request_fully_received():
    """Uploading is the client's time."""
    tally, record = Tally(), streaming()
    record.semantic(100.7)
    record.t_end = 102.5
    tally.fold(record, Mark(), 106.0)
    tally.finished(record, Outcome.CLIENT_CLOSED)
    assert tally.first_token.cells["llama", "gpu-a"].total == pytest.approx(0.2)
    assert tally.durations.cells["llama", "client"].total == pytest.approx(2.0)
    assert tally.ended.cells == {("/v1/chat/completions", "llama", "gpu-a", "client_closed"): 1}
    record.t_read = 0.0
    assert began(record) == 100.0


def test_a_stream_without_an_upstream_is_counted_under_none():
    """No label is ever empty."""
    tally, record = Tally(), streaming("")
    record.bytes_out = 7
    tally.fold(record, Mark(), 106.0)
    tally.finished(record, Outcome.DRAINED)
    assert tally.bytes.cells == {(NOBODY, "out"): 7}
    assert next(iter(tally.ended.cells))[2] == NOBODY


def test_too_many_names_are_counted_under_overflow_and_their_outcome_is_kept():
    """The cap bounds configured names; labels of a closed set survive it."""
    counts = Counts(1, cap=2)
    for name in ("a", "b", "c", "d", "a"):
        counts.add((name, "in"))
    counts.add(("e", "out"), 5)
    assert counts.cells == {("a", "in"): 2, ("b", "in"): 1, (OVERFLOW, "in"): 2, (OVERFLOW, "out"): 5}
    assert counts.overflowed == 3


def test_a_bound_is_inclusive_and_the_last_bucket_has_no_end():
    """A value equal to a bound falls below it, as Prometheus has it."""
    family = Distributions((1.0, 2.0), 1)
    for value in (1.0, 1.5, 2.0, 9.0):
        family.observe(("x",), value)
    cell = family.cells["x",]
    assert cell.counts == [1, 2, 1]
    assert cell.total == 13.5
    other = cell.copy()
    family.observe(("x",), 0.5)
    assert other.counts == [1, 2, 1]


def test_every_capped_family_is_listed():
    """What `families` lists is what overflows can be reported for."""
    tally = Tally()
    assert len(tally.gaps.bounds) == len(GAP_BOUNDS)
    assert set(tally.families()) == {
        "started", "ended", "rejected", "requests", "first_token", "first_chunk", "gaps", "per_token", "durations",
        "overhead", "chunks", "bytes", "tokens", "queue_wait", "attempts", "retries", "failovers", "connects", "lag",
        "plugin_calls", "plugin_chunks", "plugin_errors",
    }  # fmt: skip


TRACE = "0af7651916cd43dd8448eb211c80319c"


def over(record: StreamRecord, outcome: Outcome = Outcome.COMPLETED) -> Tally:
    tally = Tally()
    tally.fold(record, Mark(), 106.0)
    tally.finished(record, outcome)
    return tally


def test_lease_first_request_and_answer_are_counted_once_each_when_they_have_happened():
    """A fold before them counts nothing of them, two folds after them count one."""
    tally, record, mark = Tally(), streaming(), Mark()
    record.method = "POST"
    tally.fold(record, mark, 106.0)
    assert not tally.queue_wait.cells and sum(tally.overhead.cells["request",].counts) == 0
    assert not tally.requests.cells
    record.t_queued, record.t_leased, record.t_sent, record.dialled = 100.501, 102.501, 102.534, 0.03
    record.status, record.priority = 200, "batch"
    tally.fold(record, mark, 106.0)
    tally.fold(record, mark, 106.0)
    assert tally.queue_wait.cells["batch",].total == pytest.approx(2.0)
    assert tally.overhead.cells["request",].total == pytest.approx(0.004)
    assert sum(tally.overhead.cells["request",].counts) == 1
    assert tally.requests.cells == {("/v1/chat/completions", "POST", "200"): 1}


def test_a_wait_without_a_class_is_counted_under_none():
    """No label is ever empty."""
    tally, record = Tally(), streaming()
    record.t_queued = record.t_leased = 101.0
    tally.fold(record, Mark(), 106.0)
    assert set(tally.queue_wait.cells) == {(NOBODY,)}


@pytest.mark.parametrize(
    ("route", "method", "key"),
    [("/v1/x", "POST", ("/v1/x", "POST", "404")), ("", "BREW", (OTHER, OTHER, "404"))],
)
def test_what_a_client_made_up_is_no_label(route, method, key):
    """Paths and methods that nobody configured are counted as other."""
    tally = Tally()
    tally.answered(route, method, 404)
    assert tally.requests.cells == {key: 1}


def test_the_first_chunk_is_counted_from_the_last_request_to_an_upstream():
    """Together with the first token, so that the try is the one that became the stream; not for a body."""
    record = streaming()
    record.t_issued, record.t_chunk = 101.0, 101.25
    tally, mark = Tally(), Mark()
    tally.fold(record, mark, 106.0)
    assert not tally.first_chunk.cells
    record.semantic(102.0)
    tally.fold(record, mark, 106.0)
    assert tally.first_chunk.cells["llama", "gpu-a"].total == pytest.approx(0.25)
    body = streaming()
    body.semantic(101.0)
    assert not over(body).first_chunk.cells


def test_tokens_are_counted_by_type_and_never_mixed_with_guesses():
    """What the upstream counted is `usage`; without it each event is a guess, and an answer at once has none."""
    counted = streaming()
    counted.usage, counted.events = Usage(9, 7, 4, 0, 6), 50
    pair = ("llama", "gpu-a")
    assert over(counted).tokens.cells == {
        (*pair, "input", "usage"): 9, (*pair, "output", "usage"): 7, (*pair, "cached_input", "usage"): 4,
        (*pair, "reasoning", "usage"): 6,
    }  # fmt: skip
    cut = streaming()
    cut.events = 12
    assert over(cut, Outcome.TRUNCATED).tokens.cells == {(*pair, "output", "estimated"): 12}
    cut.stream = False
    assert not over(cut).tokens.cells


@pytest.mark.parametrize(("output", "stream", "seconds"), [(5, True, 0.5), (1, True, None), (5, False, None)])
def test_time_per_token_is_one_value_per_stream(output, stream, seconds):
    """First to last token over the tokens after the first, where the upstream counted more than one."""
    record = streaming()
    record.stream, record.usage = stream, Usage(3, output)
    record.semantic(101.0)
    record.semantic(103.0)
    cells = over(record).per_token.cells
    assert [cell.total for cell in cells.values()] == ([] if seconds is None else [pytest.approx(seconds)])


def test_a_kept_trace_is_the_exemplar_of_first_token_and_duration():
    """Set at the end, when it is known that the trace is kept, in the bucket that its value was counted in."""
    record = streaming()
    record.semantic(100.7)
    record.t_end, record.trace_id = 102.5, TRACE
    tally = over(record)
    for cell, value in ((tally.first_token.cells["llama", "gpu-a"], 0.2), (tally.durations.cells["llama", "ok"], 2.0)):
        [(bucket, exemplar)] = cell.copy().exemplars.items()
        assert (exemplar.trace_id, exemplar.value) == (TRACE, pytest.approx(value))
        assert cell.counts[bucket] == 1
    tally.finished(record, Outcome.COMPLETED)
    assert [each.trace_id for each in tally.durations.cells["llama", "ok"].exemplars.values()] == [TRACE]
    record.stream, record.t_first, record.trace_id = False, 0.0, TRACE
    assert over(record).durations.cells["llama", "ok"].exemplars
    record.trace_id = ""
    assert not over(record).durations.cells["llama", "ok"].exemplars


class Side:
    """An outlet, as a record sees it."""

    pings, blocked_at, blocked_for, buffered = 2, 101.0, 3.0, 0


def test_a_client_that_does_not_read_is_counted_while_it_does_not():
    """Blocked time and heartbeats come from the outlet, the wait that is under way included, and never twice."""
    tally, record, mark = Tally(), streaming(), Mark()
    record.outlet = Side()
    tally.fold(record, mark, 102.0)
    assert (tally.pings, tally.blocked) == (2, pytest.approx(4.0))
    tally.fold(record, mark, 105.0)
    assert (tally.pings, tally.blocked) == (2, pytest.approx(7.0))
    record.outlet.blocked_at, record.outlet.blocked_for = 0.0, 7.5
    tally.fold(record, mark, 106.0)
    assert tally.blocked == pytest.approx(7.5)


def test_thresholds_become_bounds():
    """A promise that is no bound could never be read off; one that is already changes nothing."""
    tally = Tally(thresholds=Thresholds(0.42, 0.1, 45.0))
    assert 0.42 in tally.first_token.bounds
    assert tally.per_token.bounds == Tally().per_token.bounds
    assert 45.0 in tally.durations.bounds
    assert merged((1.0, 3.0), 2.0) == (1.0, 2.0, 3.0)
    assert merged((1.0, 3.0), 0.0) == (1.0, 3.0)


def test_samples_of_single_events_are_folded_and_forgotten():
    """They wait in a bounded queue that every record shares."""
    tally = Tally()
    tally.costs.extend([0.00001, 0.0003, 0.2])
    tally.fold_costs()
    assert not tally.costs
    assert tally.overhead.cells["chunk",].counts == [1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
