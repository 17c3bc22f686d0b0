"""A plugin's own numbers."""

from __future__ import annotations

import pytest

from streamgate.clock import monotonic, wall
from streamgate.hooks.facade import Gateway
from streamgate.hooks.figures import LABEL_SETS, Figures


def test_numbers_without_labels_are_there_from_the_start():
    """At 0 rather than absent."""
    figures = Figures()
    counter = figures.counter("hits_total", "Hits.")
    gauge = figures.gauge("level", "A level.")
    histogram = figures.histogram("wait_seconds", "Waits.", buckets=(1.0, 0.1))
    assert counter.values == gauge.values == histogram.values == {(): 0.0}
    counter.inc()
    counter.inc(2)
    gauge.set(5)
    gauge.inc(-1)
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value)
    assert (counter.values[()], gauge.values[()]) == (3, 4)
    assert histogram.buckets == (0.1, 1.0)
    assert histogram.counts[()] == [2, 1, 1] and histogram.values[()] == pytest.approx(7.65)
    assert list(figures.families) == ["hits_total", "level", "wait_seconds"]


def test_label_sets_are_bounded():
    """The hundred and first and all after it are one."""
    counter = Figures().counter("hits_total", "Hits.", ("tenant",))
    for number in range(LABEL_SETS + 10):
        counter.inc(tenant=f"t{number}")
    counter.inc(tenant="t0")
    assert len(counter.values) == LABEL_SETS + 1
    assert (counter.values[("other",)], counter.values[("t0",)]) == (10, 2)


@pytest.mark.parametrize("name, labels", [("Bad_total", ()), ("hits", ()), ("hits_total", ("no-label",)), ("", ())])
def test_names_are_judged(name, labels):
    """A counter ends in _total, and what Prometheus would not take is not a name."""
    with pytest.raises(ValueError):
        Figures().counter(name, "Text.", labels)


def test_mistakes_are_told():
    """A gauge named as a counter, one name twice, a counter that falls, labels that it has not."""
    figures = Figures()
    with pytest.raises(ValueError, match="_total"):
        figures.gauge("hits_total", "Hits.")
    counter = figures.counter("hits_total", "Hits.", ("a", "b"))
    with pytest.raises(ValueError, match="already"):
        figures.counter("hits_total", "Hits.")
    with pytest.raises(ValueError, match="grows"):
        counter.inc(-1, a="x", b="y")
    for labels in ({"a": "x"}, {"a": "x", "c": "y"}):
        with pytest.raises(ValueError, match="labels"):
            counter.inc(**labels)


def test_a_gateway_has_clocks_and_a_log():
    """Monotonic seconds, seconds since the epoch, and a log that knows the plugin's name."""
    gateway = Gateway("guard")
    assert gateway.name == "guard"
    assert abs(gateway.now() - monotonic()) < 1 and abs(gateway.wall() - wall()) < 1
    assert gateway.log._context["plugin"] == "guard"
