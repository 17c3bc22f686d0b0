"""What plugins did, as a scraper and a reader of the log see it."""

from __future__ import annotations

import threading

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from structlog.testing import CapturingLogger

from streamgate.hooks.breaker import State
from streamgate.hooks.facade import Gateway
from streamgate.hooks.member import Member
from streamgate.hooks.spec import Plugin
from streamgate.hooks.watchdog import Running
from streamgate.observe import Observer, Readings
from streamgate.observe.exposition import Exposition
from streamgate.observe.figures import PluginReadings
from streamgate.observe.plugins import SAID, WRONGS, PluginJournal


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Journalled:
    """A journal, what it counts and what it says."""

    def __init__(self) -> None:
        self.log = CapturingLogger()
        self.observer = Observer(log=CapturingLogger())
        self.clock = Clock()
        self.journal = PluginJournal(self.observer.tally, log=self.log, now=self.clock)

    def said(self, event: str) -> list[dict[str, object]]:
        return [dict(call.kwargs) for call in self.log.calls if call.args == (event,)]

    def levels(self) -> list[str]:
        return [call.method_name for call in self.log.calls]

    async def scraped(self, accept: str = "") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        body, _ = await Exposition(self.observer, kept=0.0)(accept)
        parse = parse_openmetrics if accept else parse_text
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in parse(body.decode())
            for sample in family.samples
            if sample.name.startswith("streamgate_plugin_")
        }


@pytest.fixture
def its() -> Journalled:
    return Journalled()


def labelled(name: str, /, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


ACCEPTS = pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])


@pytest.mark.anyio
@ACCEPTS
async def test_calls_are_a_histogram_and_streams_a_sum(its, accept):
    """A hook's call is one value; what a stream spent in events and text is added up, as it is told."""
    its.journal.spent("redact", "on_request", 0.0003)
    its.journal.spent("redact", "on_request", 2.0)
    its.journal.spent("redact", "on_text", 0.25)
    its.journal.spent("redact", "on_text", 0.5)
    its.journal.spent("redact", "on_event", 0.125)
    seen = await its.scraped(accept)
    request = {"plugin": "redact", "hook": "on_request"}
    assert seen[labelled("streamgate_plugin_seconds_count", **request)] == 2
    assert seen[labelled("streamgate_plugin_seconds_bucket", **request, le="0.0005")] == 1
    assert seen[labelled("streamgate_plugin_seconds_bucket", **request, le="1.0")] == 1
    assert seen[labelled("streamgate_plugin_chunk_seconds_total", plugin="redact", hook="on_text")] == 0.75
    assert seen[labelled("streamgate_plugin_chunk_seconds_total", plugin="redact", hook="on_event")] == 0.125
    assert not [name for name, labels in seen if name.endswith("_count") and ("hook", "on_text") in labels]


@pytest.mark.anyio
async def test_what_has_not_gone_wrong_is_at_zero(its):
    """From the first scrape on, for each hook of each configured plugin, so that `rate()` sees the first failure."""
    its.observer.readings = lambda: Readings(plugins=[PluginReadings("redact", ["on_request", "on_text"], "open")])
    its.journal.failed("redact", "on_text", "error", "ValueError")
    seen = await its.scraped()
    for hook in ("on_request", "on_text"):
        counts = [
            seen[labelled("streamgate_plugin_errors_total", plugin="redact", hook=hook, reason=r)] for r in WRONGS
        ]
        assert counts == ([1, 0, 0, 0, 0] if hook == "on_text" else [0] * 5)
    assert seen[labelled("streamgate_plugin_chunk_seconds_total", plugin="redact", hook="on_text")] == 0
    assert labelled("streamgate_plugin_chunk_seconds_total", plugin="redact", hook="on_request") not in seen
    states = [
        seen[labelled("streamgate_plugin_breaker_state", plugin="redact", state=state)]
        for state in ("closed", "open", "half_open")
    ]
    assert states == [0, 1, 0]


def test_a_plugin_that_fails_at_each_event_does_not_fill_the_log(its):
    """The first failure is said at once; then their number, every ten seconds; each kind for itself."""
    for _ in range(1000):
        its.journal.failed("redact", "on_event", "error", "ValueError at redact.py:7 in on_event")
        its.clock.now += 0.025
    said = its.said("plugin_failed")
    assert [line["times"] for line in said] == [1, 400, 400]
    assert said[0] == {
        "plugin": "redact", "hook": "on_event", "reason": "error", "times": 1,
        "detail": "ValueError at redact.py:7 in on_event",
    }  # fmt: skip
    its.journal.failed("redact", "on_event", "stall", "0.200 s without giving the loop back")
    its.journal.failed("audit", "on_event", "error", "OSError")
    assert [(line["plugin"], line["reason"], line["times"]) for line in its.said("plugin_failed")[3:]] == [
        ("redact", "stall", 1),
        ("audit", "error", 1),
    ]
    assert set(its.levels()) == {"warning"}
    assert its.observer.tally.plugin_errors.cells["redact", "on_event", "error"] == 1000


def test_the_last_failures_of_a_series_are_said_as_well(its):
    """By the tick that is due, with the newest detail; what has stopped for ten seconds is news when it comes again."""
    its.journal.tick()
    for detail in ("first", "second", "third"):
        its.journal.failed("redact", "on_text", "garbage", detail)
    its.clock.now += SAID - 0.1
    its.journal.tick()
    assert len(its.said("plugin_failed")) == 1
    its.clock.now += 0.2
    its.journal.tick()
    its.journal.tick()
    assert [(line["detail"], line["times"]) for line in its.said("plugin_failed")[1:]] == [("third", 2)]
    its.clock.now += SAID
    its.journal.tick()
    its.journal.failed("redact", "on_text", "garbage", "news")
    assert [(line["detail"], line["times"]) for line in its.said("plugin_failed")[2:]] == [("news", 1)]


def test_nothing_is_left_unsaid_at_the_end(its):
    """What a shutdown cuts off is said at once."""
    for _ in range(4):
        its.journal.failed("audit", "on_end", "error", "OSError")
    its.journal.failed("audit", "shutdown", "error", "OSError")
    its.journal.close()
    its.journal.close()
    assert [(line["hook"], line["times"]) for line in its.said("plugin_failed")] == [
        ("on_end", 1),
        ("shutdown", 1),
        ("on_end", 3),
    ]


def test_a_breaker_that_opens_is_a_warning(its):
    """That it is tried again, or closes, is not."""
    for state in (State.OPEN, State.HALF_OPEN, State.CLOSED):
        its.journal.breaker("redact", state)
    assert its.levels() == ["warning", "info", "info"]
    assert [line["state"] for line in its.said("plugin_breaker")] == ["open", "half_open", "closed"]


def test_a_stuck_hook_is_named_from_a_thread(its):
    """With an error line and a count, while the event loop cannot."""
    thread = threading.Thread(target=its.journal.stuck, args=("guard", "on_text", 1.2345))
    thread.start()
    thread.join()
    assert its.said("plugin_stuck") == [{"plugin": "guard", "hook": "on_text", "seconds": 1.2}]
    assert its.levels() == ["error"]
    assert its.observer.tally.plugin_errors.cells == {("guard", "on_text", "stuck"): 1}


def test_plugins_beyond_the_cap_are_counted_together():
    """Sums are bounded as every other family is."""
    observer = Observer(log=CapturingLogger(), label_sets=2)
    journal = PluginJournal(observer.tally, log=CapturingLogger())
    for number in range(5):
        journal.spent(f"p{number}", "on_text", 0.5)
    assert sorted(observer.tally.plugin_chunks.cells.values()) == [0.5, 0.5, 1.5]
    assert observer.tally.plugin_chunks.overflowed == 3


class Raising(Plugin):
    def on_end(self, record: object) -> None:
        raise ValueError("what users wrote")


@pytest.mark.anyio
async def test_the_hooks_own_caller_can_write_it(its):
    """It has the form that plugins' callers ask for, breaker and all; nobody's text gets into a line."""
    member = Member("audit", Raising(None, Gateway("audit", log=CapturingLogger())), its.journal, Running())
    for _ in range(5):
        await member.call("on_end", lambda answer, *_: answer, None)
    assert its.observer.tally.plugin_errors.cells == {("audit", "on_end", "error"): 5}
    assert its.said("plugin_breaker") == [{"plugin": "audit", "state": "open"}]
    assert "users" not in str(its.log.calls)
