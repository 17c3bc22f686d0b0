"""Gauges of the live streams, summed from their records."""

from __future__ import annotations

import pytest

from streamgate.observe.live import Pressure
from streamgate.record import Phase, StreamRecord


class Side:
    """An outlet, as a record sees it."""

    def __init__(self, blocked_at: float = 0.0, buffered: int = 0) -> None:
        self.pings, self.blocked_for = 0, 0.0
        self.blocked_at, self.buffered = blocked_at, buffered


def streaming(read: float = 1.0, leased: float = 0.0, first: float = 0.0, last: float = 0.0) -> StreamRecord:
    record = StreamRecord(0.5)
    record.stream, record.t_read, record.t_leased, record.t_first, record.t_last = True, read, leased, first, last
    return record


def test_the_oldest_wait_is_of_those_without_a_first_token():
    """From the request fully received, the queue included; one that is still being uploaded does not wait."""
    pressure = Pressure(100.0, 10.0)
    for record in (streaming(read=40.0), streaming(read=90.0), streaming(read=2.0, first=3.0), streaming(read=0.0)):
        pressure.add(record)
    assert pressure.oldest_wait == 60.0


@pytest.mark.parametrize(
    ("record", "stalled"),
    [
        (streaming(leased=80.0), 1),  # hung before its first token
        (streaming(leased=95.0), 0),
        (streaming(leased=1.0, first=2.0, last=95.0), 0),
        (streaming(leased=1.0, first=2.0, last=89.0), 1),
        (streaming(read=1.0), 0),  # in the queue: no upstream has been asked
    ],
)
def test_a_stream_is_stalled_when_its_upstream_has_been_silent_for_too_long(record, stalled):
    """Since its last semantic event, or its lease; while the client reads; and not with the clock off."""
    pressure, off = Pressure(100.0, 10.0), Pressure(100.0, 0.0)
    pressure.add(record)
    off.add(record)
    assert (pressure.stalled, off.stalled) == (stalled, 0)
    blocked = Pressure(100.0, 10.0)
    record.outlet = Side(blocked_at=99.0)
    blocked.add(record)
    assert (blocked.stalled, blocked.slow) == (0, 1)
    record.outlet = None


def test_an_answer_that_is_no_stream_or_is_ending_does_not_wait():
    """Its bytes and its client are counted all the same."""
    pressure = Pressure(100.0, 10.0)
    for record in (streaming(leased=1.0), streaming(leased=1.0)):
        record.outlet = Side(blocked_at=50.0, buffered=700)
        pressure.add(record)
        record.stream = False
        pressure.add(record)
        record.stream, record.phase = True, Phase.ENDED
        pressure.add(record)
    assert (pressure.buffered, pressure.slow, pressure.stalled) == (4200, 6, 0)
    assert pressure.oldest_wait == 99.0
