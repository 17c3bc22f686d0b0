"""Newcomers are refused while the loop is late or memory short, and for a while after."""

from __future__ import annotations

import pytest

from streamgate.admission.pressure import CALM, Pressure, ShedSettings
from streamgate.errors import Reason, Refusal


def late(pressure: Pressure, *lags: float) -> list[bool]:
    said = []
    for lag in lags:
        pressure.tick(lag, 0)
        said.append(pressure.overloaded)
    return said


def test_two_late_ticks_in_a_row_begin_it():
    """One is a hiccup."""
    pressure = Pressure(ShedSettings(lag=0.2))
    assert late(pressure, 0.3, 0.1, 0.3, 0.2) == [False, False, False, True]


def test_it_ends_after_two_seconds_below_half():
    """Between half and the limit nothing changes, and the calm must be unbroken."""
    pressure = Pressure(ShedSettings(lag=0.2))
    late(pressure, 0.3, 0.3)
    assert all(late(pressure, *[0.15] * 20))
    assert all(late(pressure, *[0.05] * (CALM - 1), 0.15, *[0.05] * (CALM - 1)))
    assert late(pressure, 0.05) == [False]


def test_memory_has_its_own_limit_and_relief():
    """Over at the limit, in again below nine tenths of it."""
    pressure = Pressure(ShedSettings(memory=1000))
    said = []
    for memory in (999, 1000, 950, 900, 899, 950, 1001):
        pressure.tick(9.0, memory)
        said.append(pressure.overloaded)
    assert said == [False, True, True, True, False, False, True]


def test_what_has_no_limit_is_not_looked_at():
    """Zero turns each of them off."""
    pressure = Pressure(ShedSettings())
    for _ in range(5):
        pressure.tick(60.0, 1 << 60)
    pressure.check()
    assert not pressure.overloaded


@pytest.mark.parametrize(("settings", "word"), [({"lag": 0.1}, "overloaded"), ({"memory": 5}, "memory")])
def test_the_refusal(settings, word):
    """503 overload, with a time to come back."""
    pressure = Pressure(ShedSettings(**settings))
    for _ in range(2):
        pressure.tick(1.0, 10)
    with pytest.raises(Refusal, match=word) as refused:
        pressure.check()
    assert (refused.value.reason, refused.value.status, refused.value.retry_after) == (Reason.OVERLOAD, 503, 2.0)
