"""Aggregates: folding only what is new, capping label sets."""

from __future__ import annotations

import pytest

from streamgate.observe.tally import NOBODY, OVERFLOW, Counts, Distributions, Mark, Tally, began
from streamgate.record import GAP_BOUNDS, Outcome, StreamRecord


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
    tally.fold(record, mark)
    tally.fold(record, mark)
    assert tally.chunks.cells == {("gpu-a",): 3}
    assert tally.bytes.cells == {("gpu-a", "in"): 30, ("gpu-a", "out"): 40}
    assert tally.pings == 1
    assert sum(tally.gaps.cells["llama", "gpu-a"].counts) == 1
    record.events, record.bytes_out = 5, 60
    record.semantic(101.04)
    tally.fold(record, mark)
    assert tally.chunks.cells == {("gpu-a",): 5}
    assert tally.bytes.cells["gpu-a", "out"] == 60
    assert sum(tally.gaps.cells["llama", "gpu-a"].counts) == 2
    assert tally.gaps.cells["llama", "gpu-a"].total == pytest.approx(0.04)
    assert sum(tally.first_token.cells["llama", "gpu-a"].counts) == 1


def test_a_stream_that_moves_leaves_what_was_counted_where_it_was():
    """After a failover the first upstream keeps its bytes, and no counter goes back."""
    tally, record, mark = Tally(), streaming("gpu-a"), Mark()
    record.bytes_in = 100
    tally.fold(record, mark)
    record.upstream, record.bytes_in = "gpu-b", 150
    tally.fold(record, mark)
    assert tally.bytes.cells == {("gpu-a", "in"): 100, ("gpu-b", "in"): 50}


def test_an_answer_that_is_not_a_stream_has_no_token_times():
    """Without `stream: true` neither first token nor gaps are observed."""
    tally, record = Tally(), streaming()
    record.stream = False
    record.semantic(101.0)
    record.semantic(102.0)
    tally.fold(record, Mark())
    assert not tally.first_token.cells
    assert not tally.gaps.cells


def test_first_token_and_duration_are_counted_from_the_request_fully_received():
    """Uploading is the client's time."""
    tally, record = Tally(), streaming()
    record.semantic(100.7)
    record.t_end = 102.5
    tally.fold(record, Mark())
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
    tally.fold(record, Mark())
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
        "started", "ended", "rejected", "first_token", "gaps", "durations", "chunks", "bytes", "attempts", "retries",
        "failovers",
    }  # fmt: skip
