"""Hours, days and months of the calendar, in a named zone. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo

from streamgate_budget.amounts import PeriodName

HOUR = 3600


def span(period: PeriodName, at: float, zone: tzinfo) -> tuple[int, int]:
    """Start and end, in seconds since the epoch, of the period that `at` is in; the end belongs to the next one.

    An hour is one of UTC: where clocks are put back, a local one comes twice. A day with such a change in it has 23 or
    25 hours.
    """
    if period == "hour":
        start = int(at // HOUR) * HOUR
        return start, start + HOUR
    here = datetime.fromtimestamp(at // 1, zone)  # the fraction would be rounded, up into the next period
    first = here.day if period == "day" else 1
    begin = datetime(here.year, here.month, first, tzinfo=zone)
    return int(begin.timestamp()), int(_next(begin, period).timestamp())


def _next(begin: datetime, period: PeriodName) -> datetime:
    """Midnight of the next day or month, by the local calendar."""
    if period == "day":
        return begin + timedelta(days=1)
    year, month = divmod(begin.year * 12 + begin.month, 12)
    return begin.replace(year=year, month=month + 1)
