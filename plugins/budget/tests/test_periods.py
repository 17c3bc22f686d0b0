"""Periods of the calendar."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamgate_budget.periods import span

ZONES = ["UTC", "Europe/Zurich", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Cairo"]
# 1990 to 2035: what zones did with their clocks is known for these years.
MOMENTS = st.floats(min_value=631_152_000, max_value=2_051_222_400, allow_nan=False)


@given(at=MOMENTS, zone=st.sampled_from(ZONES), period=st.sampled_from(["hour", "day", "month"]))
def test_any_moment_is_in_its_period_and_the_next_one_begins_where_it_ends(at: float, zone: str, period: str):
    """Periods follow each other without a gap or an overlap, whatever clocks do."""
    start, end = span(period, at, ZoneInfo(zone))
    assert start <= at < end
    assert span(period, start, ZoneInfo(zone)) == (start, end)
    assert span(period, end - 0.001, ZoneInfo(zone)) == (start, end)
    assert span(period, end, ZoneInfo(zone))[0] == end


@pytest.mark.parametrize(
    ("period", "zone", "start", "end"),
    [
        ("hour", "Europe/Zurich", "2026-03-29T00:00Z", "2026-03-29T01:00Z"),
        ("day", "UTC", "2026-03-29T00:00Z", "2026-03-30T00:00Z"),
        ("day", "Europe/Zurich", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),  # 23 hours: clocks are put forward
        ("month", "Europe/Zurich", "2026-02-28T23:00Z", "2026-03-31T22:00Z"),
        ("month", "UTC", "2026-03-01T00:00Z", "2026-04-01T00:00Z"),
    ],
)
def test_a_period_is_one_of_the_zone_s_own_calendar(period: str, zone: str, start: str, end: str):
    """A day begins at local midnight, a month at that of its first day, an hour with one of UTC."""
    at = datetime(2026, 3, 29, 0, 30, tzinfo=UTC).timestamp()
    found = [f"{datetime.fromtimestamp(each, UTC):%Y-%m-%dT%H:%MZ}" for each in span(period, at, ZoneInfo(zone))]
    assert found == [start, end]


def test_a_december_ends_with_the_year():
    """The month after the twelfth is the next year's first."""
    start, end = span("month", datetime(2026, 12, 31, 23, 59, tzinfo=UTC).timestamp(), UTC)
    assert datetime.fromtimestamp(end, UTC) == datetime(2027, 1, 1, tzinfo=UTC)
    assert datetime.fromtimestamp(start, UTC) == datetime(2026, 12, 1, tzinfo=UTC)
