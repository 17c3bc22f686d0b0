"""Plugins' own metrics on the page: whatever a plugin does, the page stays readable and bounded."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from structlog.testing import CapturingLogger

from streamgate.hooks.figures import LABEL_SETS, Figure, Figures
from streamgate.observe import Observer, Readings
from streamgate.observe.figures import FAMILIES_SHOWN, LONGEST, PluginReadings
from streamgate.observe.live import Pressure
from streamgate.observe.metrics import copied
from streamgate.observe.render import Renderer

pytestmark = pytest.mark.anyio


class Page:
    """Some plugins' metrics, and what a scraper reads of them."""

    def __init__(self, *names: str) -> None:
        self.log = CapturingLogger()
        self.plugins = {name: Figures() for name in names or ("budget",)}
        self.observer = Observer(log=self.log, readings=self.readings)
        self.renderer = Renderer()

    def __getitem__(self, name: str) -> Figures:
        return self.plugins[name]

    def readings(self) -> Readings:
        figures = {name: each.families.values() for name, each in self.plugins.items()}
        return Readings(plugins=[PluginReadings(name, figures=each) for name, each in figures.items()])

    def text(self, *, openmetrics: bool = False) -> str:
        pieces = self.renderer.render(copied(self.observer, Pressure()), openmetrics=openmetrics)
        return b"".join(pieces).decode()

    def samples(self, *, openmetrics: bool = False) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        text = self.text(openmetrics=openmetrics)
        families = parse_openmetrics(text + "# EOF\n") if openmetrics else parse_text(text)
        found = [sample for family in families for sample in family.samples]
        read = {(each.name, frozenset(each.labels.items())): each.value for each in found}
        assert len(read) == len(found), "a series is there twice"
        own = {key: number for key, number in read.items() if key[0].startswith("streamgate_plugin_")}
        return {
            key: number for key, number in own.items() if "plugin" not in dict(key[1])
        }  # else they are the gateway's

    def left_out(self) -> list[tuple[str, str]]:
        return [(call.kwargs["metric"], call.kwargs["why"]) for call in self.log.calls]


BOTH = pytest.mark.parametrize("openmetrics", [False, True], ids=["text", "openmetrics"])


def key(name: str, /, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"streamgate_plugin_{name}", frozenset(labels.items())


@BOTH
def test_a_plugins_metrics_are_there_under_its_name(openmetrics):
    """Counter, gauge and histogram, in both formats, at 0 before anything happened where there are no labels."""
    page = Page()
    refused = page["budget"].counter("refused_total", "Refused.", ["tenant"])
    page["budget"].gauge("open", 'Books with a "quote",\n a back\\slash and two lines.')
    asked = page["budget"].histogram("ask_seconds", "Asking.", buckets=(1, 0.5))
    page["budget"].histogram("idle_seconds", "Nothing.")
    refused.inc(tenant="acme")
    refused.inc(2.5, tenant='a"b\\c\nd')
    asked.observe(0.7)
    asked.observe(3)
    seen = page.samples(openmetrics=openmetrics)
    assert seen[key("budget_refused_total", tenant="acme")] == 1
    assert seen[key("budget_refused_total", tenant='a"b\\c\nd')] == 2.5
    assert seen[key("budget_open")] == 0
    buckets = [seen[key("budget_ask_seconds_bucket", le=le)] for le in ("0.5", "1.0", "+Inf")]
    assert buckets == [0, 1, 2]
    assert seen[key("budget_ask_seconds_count")] == 2
    assert seen[key("budget_ask_seconds_sum")] == 3.7
    assert seen[key("budget_idle_seconds_count")] == 0
    assert page.left_out() == []


def test_a_scrape_is_a_copy():
    """What a plugin counts after it does not change it."""
    page = Page()
    asked = page["budget"].histogram("ask_seconds", "Asking.")
    taken = page.observer.shelf.copied(page.readings().plugins)
    asked.observe(1.0)
    ((_, cells),) = taken.distributions.items()
    assert sum(cells[()].counts) == 0


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (("a", "gauge", "b_c"), ("a_b", "gauge", "c"), "streamgate_plugin_a_b_c"),
        (("a", "counter", "x_total"), ("a", "gauge", "x"), "streamgate_plugin_a_x"),
        (("a", "histogram", "x"), ("a", "gauge", "x_count"), "streamgate_plugin_a_x_count"),
        (("a", "gauge", "x_sum"), ("a", "histogram", "x"), "streamgate_plugin_a_x_sum"),
        (("a", "gauge", "x"), ("errors", "gauge", "total"), "streamgate_plugin_errors_total"),
        (("a", "gauge", "x"), ("chunk", "counter", "seconds_total"), "streamgate_plugin_chunk_seconds"),
        (("a", "gauge", "x"), ("seconds", "gauge", "bucket"), "streamgate_plugin_seconds_bucket"),
        (("a", "gauge", "x"), ("breaker", "gauge", "state"), "streamgate_plugin_breaker_state"),
    ],
)
def test_of_two_metrics_of_one_name_the_first_is_shown(first, second, clash):
    """Another plugin's, the same one's, or the gateway's own; said once, not at each scrape."""
    page = Page(*dict.fromkeys((first[0], second[0])))
    for plugin, kind, name in (first, second):
        getattr(page[plugin], kind)(name, "The same text.")
    for openmetrics in (False, True, False):
        seen = page.samples(openmetrics=openmetrics)
        assert any(name.startswith(f"streamgate_plugin_{first[0]}_{first[2]}") for name, _ in seen)
    assert page.left_out() == [(f"streamgate_plugin_{second[0]}_{second[2]}", f"there already is a {clash}")]


def figure(name: str, kind: Any = "gauge", labels: tuple[str, ...] = (), buckets: tuple[Any, ...] = ()) -> Figure:
    """One that hooks would not have made."""
    made = Figure("gauge", "fine", "Text.", ())
    made.name, made.kind, made.labels, made.buckets = name, kind, labels, buckets
    return made


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (figure("no name"), "not a name for a metric, or for one of its labels"),
        (figure("x", labels=("a b",)), "not a name for a metric, or for one of its labels"),
        (figure("x", labels=("a", "a")), "a label twice"),
        (figure("x", "histogram", ("le",), (1.0,)), "a label twice"),
        (figure("x", "histogram", buckets=(1.0, 1.0)), "its buckets do not increase"),
        (figure("x", "histogram", buckets=(1.0, inf)), "its buckets do not increase"),
        (figure("x", "histogram", buckets=("many",)), "its buckets do not increase"),
    ],
)
def test_a_metric_that_would_spoil_the_page_is_left_out(made, why):
    """The rest of the page is as it was."""
    page = Page()
    page["budget"].gauge("good", "Good.")
    page["budget"].families["bad"] = made
    assert set(page.samples()) == set(page.samples(openmetrics=True)) == {key("budget_good")}
    assert [said for _, said in page.left_out()] == [why]


@BOTH
def test_a_value_that_is_no_number_is_left_out(openmetrics):
    """True is 1; a text, None, and what a counter cannot be are not shown; a gauge may be infinite."""
    page = Page()
    gauge = page["budget"].gauge("level", "Level.", ["of"])
    for of, value in {"bool": True, "text": "many", "none": None, "inf": inf, "digits": "3", "huge": 10**400}.items():
        gauge.set(value, of=of)
    page["budget"].counter("spent_total", "Spent.").inc(nan)
    gauge.values["too", "long"] = 1.0
    seen = page.samples(openmetrics=openmetrics)
    assert {dict(labels)["of"]: number for (_, labels), number in seen.items()} == {"bool": 1, "inf": inf, "digits": 3}


@BOTH
def test_label_values_are_cut_and_made_utf8(openmetrics):
    """A lone surrogate would break the page, a long prompt would fill it; values that are alike then are added up."""
    page = Page()
    counter = page["budget"].counter("spent_total", "Spent.\ud800", ["tenant"])
    histogram = page["budget"].histogram("ask_seconds", "Asking.", ["tenant"], buckets=(1.0,))
    for tenant in ("\udcff", "x" * 1000 + "1", "x" * 1000 + "2"):
        counter.inc(tenant=tenant)
        histogram.observe(0.5, tenant=tenant)
    histogram.set(1.0, tenant="only set")
    histogram.counts["odd",] = [1]
    seen = page.samples(openmetrics=openmetrics)
    tenants = {"\\udcff": 1, "x" * LONGEST: 2}
    assert {dict(labels)["tenant"]: n for (name, labels), n in seen.items() if name.endswith("spent_total")} == tenants
    assert {dict(labels)["tenant"]: n for (name, labels), n in seen.items() if name.endswith("_count")} == tenants
    assert {dict(labels)["tenant"]: n for (name, labels), n in seen.items() if name.endswith("_sum")} == {
        "\\udcff": 0.5,
        "x" * LONGEST: 1.0,
    }


def test_a_plugin_has_so_many_series_and_no_more():
    """Neither a metric for each request nor a label for each user makes the page grow."""
    page = Page()
    by_user = page["budget"].counter("asked_total", "Asked.", ["user"])
    for number in range(FAMILIES_SHOWN * 3):
        by_user.inc(user=str(number))
        page["budget"].gauge(f"request_{number}", "Why not.")
    seen = page.samples()
    assert page.samples() == seen
    assert len(seen) == LABEL_SETS + 1 + FAMILIES_SHOWN - 1
    assert seen[key("budget_asked_total", user="other")] == 50
    assert page.left_out() == [(f"streamgate_plugin_budget_request_{FAMILIES_SHOWN - 1}", "a plugin has 50 at most")]


anything = st.text(st.characters(), max_size=20)


@given(st.dictionaries(anything, st.floats() | st.booleans() | st.integers(), max_size=5), anything, st.booleans())
def test_whatever_a_plugin_says_the_page_can_be_read(values, text, openmetrics):
    """No text, label value or number makes a line that a scraper stumbles over."""
    page = Page()
    gauge = page["budget"].gauge("level", text, ["of"])
    for of, value in values.items():
        gauge.set(value, of=of)
    page["budget"].histogram("ask_seconds", text).observe(1.0)
    buckets = page["budget"].families["ask_seconds"].buckets
    assert len(page.samples(openmetrics=openmetrics)) == len(values) + len(buckets) + 3
