"""The metrics as a scraper sees them."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from structlog.testing import CapturingLogger

from streamgate import __version__
from streamgate.observe import Observer, Readings
from streamgate.observe.exposition import Exposition
from streamgate.observe.metrics import FAMILIES, METRICS, Scrape, copied, scrape
from streamgate.observe.tally import OVERFLOW, Tally
from streamgate.record import COMPLETED, StreamRecord

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(body: bytes, parse=parse_text) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


def value(seen: Samples, name: str, **labels: str) -> float:
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
        draining=True, ready=False, connections=5, upstream_connections={("gpu-a", "idle"): 2}, log_lines_dropped=9
    )
    seen = await scraped(observer)
    assert value(seen, "streamgate_draining") == 1
    assert value(seen, "streamgate_ready") == 0
    assert value(seen, "streamgate_connections") == 5
    assert value(seen, "streamgate_upstream_connections", upstream="gpu-a", state="idle") == 2
    assert value(seen, "streamgate_log_lines_dropped_total") == 9
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
    closed = {"outcome", "reason", "outcome_class", "direction", "code"}
    for name, family in Tally().families().items():
        assert [label in closed for label in FAMILIES[name].labels] == sorted(
            label in closed for label in FAMILIES[name].labels
        )
        assert sum(label not in closed for label in FAMILIES[name].labels) == family.open
    taken = copied(observer)
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
    assert frozen(copied(observer)) != before


@pytest.mark.anyio
async def test_a_body_is_kept_for_a_while_and_rendered_off_the_loop(observer):
    """Two scrapers at once cost one rendering, and it is not the loop's thread that does it."""
    threads: list[str] = []

    class Watching:
        def collect(self):
            threads.append(threading.current_thread().name)
            return []

    exposition = Exposition(observer, kept=60.0)
    exposition._registry.register(Watching())
    threads.clear()
    first = await exposition("")
    assert await exposition("") == first
    assert len(threads) == 1
    assert threads[0] != threading.main_thread().name
