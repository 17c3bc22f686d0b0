"""The metrics as a scraper sees them."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from itertools import pairwise

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from structlog.testing import CapturingLogger

from streamgate import __version__
from streamgate.errors import Reason
from streamgate.observe import Observer, Readings
from streamgate.observe.exposition import SWITCH_INTERVAL, Exposition
from streamgate.observe.families import OVERFLOW
from streamgate.observe.live import Pressure
from streamgate.observe.metrics import FAMILIES, METRICS, Scrape, copied, estimate, scrape, series
from streamgate.observe.render import labelled
from streamgate.observe.tally import Slots, StoreReadings, Tally
from streamgate.record import COMPLETED, Outcome, StreamRecord, Usage

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(body: bytes, parse=parse_text) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


def value(seen: Samples, name: str, /, **labels: str) -> float:
    return seen[name, tuple(sorted(labels.items()))]


def total(seen: Samples, name: str) -> float:
    return sum(value for (each, _), value in seen.items() if each == name)


def begin(observer: Observer, record: StreamRecord, upstream: str = "gpu-a") -> None:
    record.route, record.model_label, record.upstream = "/v1/chat/completions", "llama", upstream
    record.stream, record.t_read = True, record.t_received
    observer.started(record)


async def scraped(observer: Observer, accept: str = "") -> Samples:
    body, content_type = await Exposition(observer, kept=0.0)(accept)
    return samples(body, parse_openmetrics if "openmetrics" in content_type else parse_text)


@pytest.fixture
def observer() -> Observer:
    return Observer(log=CapturingLogger())


@pytest.mark.anyio
async def test_counters_move_while_a_stream_runs_and_never_go_back(observer):
    """Scraped during and after, every counter is at least what it was."""
    seen: list[Samples] = []
    async with observer.stream() as record:
        begin(observer, record)
        for step in range(3):
            record.events += 10
            record.bytes_in += 100
            record.bytes_out += 90
            record.semantic(record.t_received + 0.1 + step)
            seen.append(await scraped(observer))
        record.ending = COMPLETED
        record.events += 1
    seen.append(await scraped(observer))
    for earlier, later in pairwise(seen):
        for key, before in earlier.items():
            if key[0].startswith("streamgate_") and key[0].endswith(("_total", "_count", "_sum", "_bucket")):
                assert later[key] >= before, key
    assert [value(each, "streamgate_chunks_total", upstream="gpu-a") for each in seen] == [10, 20, 30, 31]
    pair = {"model": "llama", "upstream": "gpu-a"}
    assert [value(each, "streamgate_time_to_first_token_seconds_count", **pair) for each in seen] == [1, 1, 1, 1]
    assert value(seen[-1], "streamgate_inter_chunk_seconds_count", **pair) == 2
    assert value(seen[-1], "streamgate_stream_duration_seconds_count", model="llama", outcome_class="ok") == 1


@pytest.mark.anyio
async def test_in_every_scrape_started_is_ended_plus_active(observer):
    """The books balance, from counts that are made in different places."""
    requests = []
    for number in range(7):
        request = observer.stream()
        record = await request.__aenter__()
        if number != 3:
            begin(observer, record)
            record.ending = COMPLETED
        requests.append(request)
        if number % 2:
            await requests.pop(0).__aexit__(None, None, None)
        seen = await scraped(observer)
        assert total(seen, "streamgate_streams_started_total") == total(seen, "streamgate_streams_total") + total(
            seen, "streamgate_streams_active"
        )
    for request in requests:
        await request.__aexit__(None, None, None)
    assert total(await scraped(observer), "streamgate_streams_total") == 6


@pytest.mark.anyio
async def test_both_formats_hold_the_same_numbers(observer):
    """Text and OpenMetrics differ in form only, by the scraper's Accept header."""
    async with observer.stream() as record:
        begin(observer, record)
        record.ending = COMPLETED
    text = await scraped(observer)
    openmetrics = await scraped(observer, "application/openmetrics-text; version=1.0.0")
    ours = {key: number for key, number in text.items() if key[0].startswith("streamgate_")}
    assert ours == {key: openmetrics[key] for key in ours}


@pytest.mark.anyio
async def test_readings_are_asked_at_each_scrape(observer):
    """Gauges that are not a stream's come from their owners."""
    observer.readings = lambda: Readings(
        draining=True, ready=False, connections=5, upstream_connections={("gpu-a", "idle"): 2}, log_lines_dropped=9,
        circuits={"gpu-a": "closed", "gpu-b": "half_open"}, streams_limit=40, config_hash="c0ffee",
        telemetry_dropped={"traces": 3}, slots=[Slots("model", "llama-*", 3, 8)], waiting={"batch": 4},
        oldest_waiting=1.5, queue_limit=20, max_wait=10.0, overloaded={"lag": True, "memory": False},
        store=StoreReadings(False, 9, {"denied": 2, "timeout": 1}, {"ok": 30, "failed": 0}), keys_file_refused=6,
    )  # fmt: skip
    seen = await scraped(observer)
    assert value(seen, "streamgate_draining") == 1
    assert value(seen, "streamgate_ready") == 0
    assert value(seen, "streamgate_connections") == 5
    assert value(seen, "streamgate_upstream_connections", upstream="gpu-a", state="idle") == 2
    assert value(seen, "streamgate_log_lines_dropped_total") == 9
    assert value(seen, "streamgate_streams_limit") == 40
    assert value(seen, "streamgate_slots_used", level="model", name="llama-*") == 3
    assert value(seen, "streamgate_slots_limit", level="model", name="llama-*") == 8
    assert value(seen, "streamgate_queue_waiting", priority="batch") == 4
    assert value(seen, "streamgate_queue_oldest_seconds") == 1.5
    assert value(seen, "streamgate_queue_limit") == 20
    assert value(seen, "streamgate_queue_max_wait_seconds") == 10
    assert [value(seen, "streamgate_overloaded", cause=cause) for cause in ("lag", "memory")] == [1, 0]
    assert value(seen, "streamgate_limits_store_up") == 0
    assert value(seen, "streamgate_limits_store_asked_total") == 9
    assert value(seen, "streamgate_limits_store_results_total", result="denied") == 2
    assert value(seen, "streamgate_lease_renewals_total", result="ok") == 30
    assert value(seen, "streamgate_keys_file_refused_total") == 6
    assert value(seen, "streamgate_config_info", hash="c0ffee") == 1
    assert value(seen, "streamgate_telemetry_dropped_total", signal="traces") == 3
    assert [value(seen, "streamgate_upstream_up", upstream=name) for name in ("gpu-a", "gpu-b")] == [1, 0]
    states = {
        state: value(seen, "streamgate_upstream_circuit_state", upstream="gpu-b", state=state)
        for state in ("closed", "open", "half_open")
    }
    assert states == {"closed": 0, "open": 0, "half_open": 1}
    assert ("process_start_time_seconds", ()) in seen
    assert any(name == "streamgate_build_info" and ("version", __version__) in labels for name, labels in seen)


@pytest.mark.anyio
async def test_label_sets_above_the_cap_are_folded_into_one_and_said_so():
    """A thousand upstreams cost no more series than the cap."""
    observer = Observer(log=CapturingLogger(), label_sets=3)
    for number in range(20):
        observer.attempt(f"gpu-{number}", "2xx")
    seen = await scraped(observer)
    assert value(seen, "streamgate_upstream_requests_total", upstream=OVERFLOW, code="2xx") == 17
    assert value(seen, "streamgate_metric_label_overflow_total", metric="streamgate_upstream_requests_total") == 17


def test_every_family_has_the_labels_it_is_counted_under(observer):
    """A name in the table, a family in the tally, as many labels as its keys have parts."""
    closed = {"outcome", "reason", "outcome_class", "direction", "code", "method", "stage", "type", "source"}
    for name, family in Tally().families().items():
        assert [label in closed for label in FAMILIES[name].labels] == sorted(
            label in closed for label in FAMILIES[name].labels
        )
        assert sum(label not in closed for label in FAMILIES[name].labels) == family.open
    taken = copied(observer, Pressure())
    assert set(taken.numbers) | set(taken.distributions) == set(METRICS)


def frozen(taken: Scrape) -> dict[str, list[object]]:
    numbers = {named.name: list(cells.items()) for named, cells in taken.numbers.items()}
    return numbers | {
        named.name: [(key, cell.counts.copy(), cell.total) for key, cell in cells.items()]
        for named, cells in taken.distributions.items()
    }


@pytest.mark.anyio
async def test_a_scrape_is_a_copy(observer):
    """What happens after it, while it is rendered in another thread, does not change it."""
    async with observer.stream() as record:
        begin(observer, record)
        record.semantic(record.t_received + 0.1)
        taken = await scrape(observer)
        record.ending = COMPLETED
        before = frozen(taken)
    await observer.fold()
    assert frozen(taken) == before
    assert frozen(copied(observer, Pressure())) != before


@pytest.mark.anyio
async def test_a_body_is_kept_for_a_while_and_rendered_off_the_loop(observer):
    """Two scrapers at once cost one rendering, and it is not the loop's thread that does it."""
    threads: list[str] = []

    class Watching:
        def collect(self):
            threads.append(threading.current_thread().name)
            return []

    exposition = Exposition(observer, kept=60.0)
    exposition._stock.register(Watching())
    threads.clear()
    first = await exposition("")
    assert await exposition("") == first
    assert len(threads) == 1
    assert threads[0] != threading.main_thread().name


@pytest.mark.anyio
async def test_the_scrape_before_this_one_says_how_long_it_took(observer):
    """The first one has none before it."""
    exposition = Exposition(observer, kept=0.0)
    took = [value(samples((await exposition(""))[0]), "streamgate_scrape_seconds") for _ in range(2)]
    assert took[0] == 0.0
    assert 0.0 < took[1] < 5.0


@pytest.mark.anyio
async def test_exemplars_are_for_openmetrics_alone(observer):
    """The bucket of first token and duration names the trace; Prometheus text has no words for it."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with observer.stream() as record:
        begin(observer, record)
        record.semantic(record.t_received + 0.12)
        record.ending, record.trace_id = COMPLETED, trace
    exposition = Exposition(observer, kept=0.0)
    body, _ = await exposition("application/openmetrics-text; version=1.0.0")
    found = {
        sample.name: sample.exemplar
        for family in parse_openmetrics(body.decode())
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert set(found) == {"streamgate_time_to_first_token_seconds_bucket", "streamgate_stream_duration_seconds_bucket"}
    first = found["streamgate_time_to_first_token_seconds_bucket"]
    assert (first.labels, first.value) == ({"trace_id": trace}, pytest.approx(0.12))
    assert float(first.timestamp) > 1e9
    assert trace not in (await exposition(""))[0].decode()


async def served_by(observer: Observer, model: str, upstream: str) -> None:
    """One whole stream of a model by an upstream."""
    async with observer.stream() as record:
        begin(observer, record, upstream)
        record.model_label = model
        record.t_issued, record.t_chunk = record.t_received, record.t_received + 0.05
        record.semantic(record.t_received + 0.1)
        record.semantic(record.t_received + 0.2)
        record.usage, record.ending = Usage(3, 2), COMPLETED
    observer.dialled(upstream, 0.01)


@pytest.mark.anyio
async def test_the_document_knows_how_many_series_there_are(observer):
    """So many for each pair of a model and an upstream, in histograms, as the page says."""
    before = await scraped(observer)
    await served_by(observer, "a", "gpu-a")
    after = await scraped(observer)
    of_pair = [key for key in after if {"model", "upstream"} <= dict(key[1]).keys() and "source" not in dict(key[1])]
    histograms = [key for key in of_pair if "outcome" not in dict(key[1])]
    assert len(histograms) == series({"model", "upstream"})
    of_upstream = [key for key in after if key[0].startswith("streamgate_upstream_connect_seconds")]
    assert len(of_upstream) == series({"upstream"})
    assert len(after) > len(before)


def test_label_values_are_escaped():
    """A name from a configuration may hold any character."""
    assert labelled(("model",), ('a"b\\c\nd',)) == r'{model="a\"b\\c\nd"}'


async def worst_tick(work, ticks: int) -> float:
    """Seconds that a ticker of 1 ms was late at the worst while the work went on, or for so many ticks.

    By the clock, or by the process's own CPU since the last tick, whichever is less: a process that was taken off its
    core in between held up nobody.
    """
    loop, late, over = asyncio.get_running_loop(), [0.0], asyncio.Event()

    def tick(due: float, used: float, left: int) -> None:
        late.append(min(time.perf_counter() - due, time.process_time() - used))
        if over.is_set() or not left:
            over.set()
        else:
            loop.call_later(0.001, tick, time.perf_counter() + 0.001, time.process_time(), left - 1)

    loop.call_later(0.001, tick, time.perf_counter() + 0.001, time.process_time(), ticks)
    if work is not None:
        await work
        over.set()
    await over.wait()
    return max(late)


@pytest.mark.anyio
async def test_a_scrape_of_7000_series_holds_the_loop_for_less_than_5_ms(observer):
    """The worst tick of a scrape, less what the same ticker alone is late by; the best quarter of 20 scrapes."""
    for number in range(85):
        await served_by(observer, f"model-{number}", f"gpu-{number}")
    exposition = Exposition(observer, kept=0.0)
    accept = "application/openmetrics-text; version=1.0.0"
    body, _ = await exposition(accept)
    count = sum(not line.startswith(b"#") for line in body.splitlines())
    assert count > 7000
    assert count == pytest.approx(estimate(85), rel=0.1)  # as the page says
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)  # as `serve` does
    try:
        during = sorted([await worst_tick(exposition(accept), 1000) for _ in range(20)])
        alone = sorted([await worst_tick(None, 10) for _ in range(20)])
    finally:
        sys.setswitchinterval(before)
    # Other work on the same cores only ever adds: what the scrape does by itself shows in those that were left alone.
    assert during[5] - alone[5] < 0.005, (during, alone)


@pytest.mark.anyio
async def test_what_has_not_happened_yet_is_at_zero(observer):
    """Beside one outcome or reason stand all others of the same labels, so that `rate()` sees the first of each."""
    async with observer.stream() as record:
        begin(observer, record)
        record.ending = COMPLETED
    observer.refused("/v1/models", Reason.BAD_REQUEST)
    seen = await scraped(observer)
    pair = {"route": "/v1/chat/completions", "model": "llama", "upstream": "gpu-a"}
    ends = {each: value(seen, "streamgate_streams_total", **pair, outcome=each.value) for each in Outcome}
    assert ends == dict.fromkeys(Outcome, 0) | {Outcome.COMPLETED: 1}
    refusals = [value(seen, "streamgate_requests_rejected_total", route="/v1/models", reason=each) for each in Reason]
    assert sum(refusals) == 1
