"""The facts of one stream."""

from __future__ import annotations

import itertools

import pytest

from streamgate import errors
from streamgate.record import COMPLETED, GAP_BOUNDS, OUTCOME_OF, Ending, Outcome, Phase, StreamRecord


def every(kind: type[errors.Fault]) -> list[type[errors.Fault]]:
    return [kind, *itertools.chain.from_iterable(every(below) for below in kind.__subclasses__())]


def made(kind: type[errors.Fault]) -> errors.Fault:
    return errors.BadStatus(500, (), b"") if kind is errors.BadStatus else kind()


CLASSES = {
    "ok": {Outcome.COMPLETED},
    "client": {Outcome.CLIENT_CLOSED, Outcome.SLOW_CLIENT, Outcome.KILLED, Outcome.PLUGIN_ABORT},
}
SPECIAL = {
    errors.Truncated: Outcome.TRUNCATED,
    errors.Empty: Outcome.TRUNCATED,
    errors.FirstTokenTimeout: Outcome.TIMEOUT_FIRST_TOKEN,
    errors.IdleTimeout: Outcome.TIMEOUT_IDLE,
    errors.Deadline: Outcome.DEADLINE,
    errors.Drained: Outcome.DRAINED,
    errors.Killed: Outcome.KILLED,
    errors.Internal: Outcome.INTERNAL_ERROR,
    errors.Aborted: Outcome.PLUGIN_ABORT,
    errors.PluginFailed: Outcome.INTERNAL_ERROR,
}


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_has_a_class(outcome: Outcome) -> None:
    """ok and client as the contract lists them; everything else counts against the gateway or its upstreams."""
    expected = next((name for name, members in CLASSES.items() if outcome in members), "error")
    assert outcome.klass == expected


def test_the_words_are_the_contracts() -> None:
    """The same word in metrics, spans and log lines, so renaming one breaks dashboards."""
    assert {outcome.value for outcome in Outcome} == {
        "completed", "client_closed", "client_gave_up", "slow_client", "upstream_error", "truncated",
        "timeout_first_token", "timeout_idle", "deadline", "drained", "killed", "plugin_abort", "internal_error",
    }  # fmt: skip


@pytest.mark.parametrize("kind", every(errors.Fault))
def test_every_fault_becomes_an_outcome(kind: type[errors.Fault]) -> None:
    """The gateway's own endings by name, and whatever else an upstream did wrong is its error."""
    fault = made(kind)
    assert Ending.by(fault) == (SPECIAL.get(kind, Outcome.UPSTREAM_ERROR), fault)


def test_no_fault_is_mapped_twice_over() -> None:
    """A subclass of a mapped fault would silently count as something else."""
    for kind in OUTCOME_OF:
        assert every(kind) == [kind]
    assert COMPLETED == (Outcome.COMPLETED, None)


def test_the_first_semantic_frame_is_the_first_token() -> None:
    """No gap is counted for it, and nothing is allocated for gaps before there is one."""
    record = StreamRecord(100.0)
    record.semantic(101.5)
    assert (record.t_first, record.t_last) == (101.5, 101.5)
    assert record.gap_counts is None
    assert record.max_gap == record.gap_sum == 0.0


def test_gaps_are_counted_between_semantic_frames() -> None:
    """One bucket each, their sum, and the longest; the first token stays where it was."""
    record = StreamRecord(100.0)
    moments = [101.0, 101.001, 101.011, 103.011, 303.011]
    for now in moments:
        record.semantic(now)
    assert record.t_first == 101.0 and record.t_last == 303.011
    assert record.gap_counts is not None and sum(record.gap_counts) == 4
    assert len(record.gap_counts) == len(GAP_BOUNDS) + 1
    assert record.gap_counts[0] == 1, "1 ms"
    assert record.gap_counts[-1] == 1, "200 s is above the last bound"
    assert record.gap_sum == pytest.approx(202.011)
    assert record.max_gap == pytest.approx(200.0)


@pytest.mark.parametrize(("gap", "bucket"), [(0.25, 10), (0.2500001, 11), (60.0, 17), (60.5, 18), (0.0, 0)])
def test_a_bound_belongs_to_its_bucket(gap: float, bucket: int) -> None:
    """As in Prometheus: less than or equal."""
    record = StreamRecord(1.0)
    record.semantic(64.0)
    record.semantic(64.0 + gap)
    assert record.gap_counts is not None and record.gap_counts.index(1) == bucket
    assert list(GAP_BOUNDS) == sorted(GAP_BOUNDS)


def test_a_new_record_says_that_nothing_happened() -> None:
    """Zeros and empty words, the phase is the first, and every slot has a value."""
    record = StreamRecord(5.0)
    values = {name: getattr(record, name) for name in StreamRecord.__slots__}
    assert values.pop("t_received") == 5.0
    assert values.pop("phase") is Phase.READING
    assert values.pop("model_label") == "other"
    assert all(not value for value in values.values())
    assert not hasattr(record, "__dict__")
