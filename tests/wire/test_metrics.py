"""Every metric on a real gateway: it moves when that happens which it counts, and by as much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from stage import DONE, FINISH, Peer, Stage, delta

from streamgate.observe.exposition import Exposition
from streamgate.observe.names import METRICS
from streamgate.server import Server

pytestmark = pytest.mark.anyio

USAGE = (
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,'
    b'"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}}\n\n'
)
PATIENCE = 10.0


class Seen:
    """One scrape, by name and labels."""

    def __init__(self, text: str) -> None:
        self.samples = [sample for family in parse_text(text) for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum over all samples with these labels."""
        full = f"streamgate_{name}"
        return sum(each.value for each in self.samples if each.name == full and labels.items() <= each.labels.items())

    def bounds(self, name: str) -> set[str]:
        return {each.labels["le"] for each in self.samples if each.name == f"streamgate_{name}_bucket"}


async def scraped(server: Server) -> Seen:
    """What a scrape shows now; the admin port's own would be kept for a second."""
    body, _ = await Exposition(server.observer, kept=0.0)("")
    return Seen(body.decode())


async def shows(server: Server, what: Callable[[Seen], object]) -> Seen:
    """Scrape until it does."""
    async with asyncio.timeout(PATIENCE):
        while not what(seen := await scraped(server)):
            pass
    return seen


async def whole(peer: Peer) -> None:
    peer.stream(delta(), delta("a"), delta("b"), FINISH, USAGE, DONE)
    peer.end()


async def completed(stage: Stage, server: Server, **more: object) -> None:
    client = await stage.chat(server, **more)
    assert await client.head() == 200
    await client.body()


async def ended(server: Server, streams: int = 1) -> Seen:
    return await shows(server, lambda seen: seen("streams_total") == streams)


async def test_a_scrape_has_every_metric_in_both_formats(stage: Stage) -> None:
    """Over HTTP, as a scraper asks for it; what has happened to nobody yet is there without samples."""
    server = await stage.gateway(await stage.upstream(whole))
    await completed(stage, server)
    async with httpx.AsyncClient(base_url=server.admin_url) as http:
        text = (await http.get("/metrics")).text
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        openmetrics = (await http.get("/metrics", headers=accept)).text
    for name in (metric.name for metric in METRICS):
        assert f"# TYPE {name} " in text
        assert f"# TYPE {name.removesuffix('_total')} " in openmetrics
    assert {family.name for family in parse_text(text)} >= {name.removesuffix("_total") for name, *_ in METRICS}
    assert openmetrics.endswith("# EOF\n")
    list(parse_openmetrics(openmetrics))


async def test_a_whole_stream(stage: Stage) -> None:
    """One stream is one lease, one connect, one first chunk and token, one value per token, one answer."""
    server = await stage.gateway(await stage.upstream(whole))
    await completed(stage, server)
    seen = await ended(server)
    pair = {"model": "other", "upstream": "up0"}
    for name in ("time_to_first_token", "upstream_first_chunk", "time_per_output_token"):
        assert seen(f"{name}_seconds_count", **pair) == 1, name
    assert seen("upstream_connect_seconds_count", upstream="up0") == 1
    assert seen("queue_wait_seconds_count") == 1
    assert seen("overhead_seconds_count", stage="request") == 1
    assert 0 < seen("overhead_seconds_sum", stage="request") < 0.5
    tokens = {kind: seen("tokens_total", type=kind, source="usage", **pair) for kind in KINDS}
    assert tokens == dict(zip(KINDS, (9, 3, 4, 0, 2), strict=True))
    assert seen("http_requests_total", route="/v1/chat/completions", method="POST", code="200") == 1
    assert seen("upstream_up", upstream="up0") == seen("upstream_circuit_state", state="closed") == 1
    assert [len(each.labels["hash"]) for each in seen.samples if each.name == "streamgate_config_info"] == [12]
    assert seen("telemetry_dropped_total", signal="traces") == 0
    assert seen("ready") == seen("build_info") == 1


KINDS = ("input", "output", "cached_input", "cache_write", "reasoning")


async def test_a_second_request_on_a_kept_connection_connects_to_nobody(stage: Stage) -> None:
    """Connects are counted, not requests."""

    async def twice(peer: Peer) -> None:
        await whole(peer)
        await peer.request()
        await whole(peer)

    server = await stage.gateway(await stage.upstream(twice))
    await completed(stage, server)
    await ended(server)
    await completed(stage, server)
    seen = await ended(server, 2)
    assert seen("upstream_connect_seconds_count") == 1
    assert seen("overhead_seconds_count", stage="request") == 2


async def test_one_event_in_sixteen_is_timed(stage: Stage) -> None:
    """Of 32 events, each a read of its own, two are."""
    peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def paced(peer: Peer) -> None:
        peer.stream(delta("0"))
        peers.put_nowait(peer)
        await peer.closed()

    server = await stage.gateway(await stage.upstream(paced))
    client = await stage.chat(server)
    peer = await peers.get()
    await client.head()
    await client.piece()
    for number in range(1, 32):
        peer.chunk(delta(str(number)))
        await client.piece()
    seen = await scraped(server)
    assert seen("chunks_total") == 32
    assert seen("overhead_seconds_count", stage="chunk") == 2
    assert 0 < seen("overhead_seconds_sum", stage="chunk") < 0.5


async def silent(peer: Peer) -> None:
    await peer.closed()


async def one_token(peer: Peer) -> None:
    peer.stream(delta("a"))
    await peer.closed()


@pytest.mark.parametrize("script", [silent, one_token])
async def test_a_hung_upstream_shows_while_it_hangs(stage: Stage, script: Callable[[Peer], object]) -> None:
    """Stalled after `clocks.stall`, whether it hung before its first token or after; and no longer once it is over."""
    server = await stage.gateway(await stage.upstream(script), clocks={"stall": 0.05})
    client = await stage.chat(server)
    seen = await shows(server, lambda seen: seen("streams_stalled") == 1)
    assert (seen("oldest_wait_seconds") > 0.05) == (script is silent)
    client.close()
    seen = await ended(server)
    assert seen("streams_stalled") == seen("oldest_wait_seconds") == 0
    estimated = seen("tokens_total", type="output", source="estimated")
    assert estimated == (script is one_token)


async def test_a_queue_shows_while_it_lasts_and_in_how_long_it_took(stage: Stage) -> None:
    """The limit, who waits, for how long; then the wait in its histogram."""
    server = await stage.gateway(
        await stage.upstream(one_token), limits={"concurrent": 1, "queue": 5, "max_wait": 30}, clocks={"stall": 0}
    )
    first = await stage.chat(server)
    await first.head()
    await stage.chat(server)
    seen = await shows(server, lambda seen: seen("oldest_wait_seconds") > 0.1)
    assert seen("streams_limit") == 1
    assert seen("streams_active", phase="queued") == 1
    assert seen("streams_stalled") == 0
    first.close()
    seen = await shows(server, lambda seen: seen("queue_wait_seconds_count") == 2)
    assert seen("queue_wait_seconds_sum") > 0.1
    assert seen("overhead_seconds_sum", stage="request") < 0.1  # waiting for others is not the gateway's own time


async def test_a_client_that_does_not_read_shows_while_it_does_not(stage: Stage) -> None:
    """Its bytes are buffered, it is slow, and the time counts; what is blocked by its client is not stalled."""
    flood = delta("x" * 16000)

    async def flooding(peer: Peer) -> None:
        peer.stream(flood)
        for _ in range(400):
            peer.chunk(flood)
            await peer.writer.drain()
        peer.chunk(FINISH, DONE)
        peer.end()

    server = await stage.gateway(await stage.upstream(flooding), clocks={"stall": 0.01})
    client = await stage.client(server, receive_buffer=4096)
    client.post("/v1/chat/completions", {"model": "m", "messages": [], "stream": True})
    seen = await shows(server, lambda seen: seen("slow_clients") == 1 and seen("client_blocked_seconds_total") > 0.05)
    assert seen("buffered_bytes") > 0
    assert seen("streams_stalled") == 0
    assert await client.head() == 200
    await client.body()
    seen = await ended(server)
    assert seen("slow_clients") == seen("buffered_bytes") == 0
    assert seen("client_blocked_seconds_total") > 0.05


async def broken(peer: Peer) -> None:
    peer.answer(500, b'{"error":{"message":"no"}}', b"connection: close")
    await peer.close()


async def test_an_upstream_that_fails_five_times_is_down(stage: Stage) -> None:
    """The only one goes on being used, half open; of two, it is left out, open."""
    bad, good = await stage.upstream(broken), await stage.upstream(whole)
    alone = await stage.gateway(bad, retry={"attempts": 0})
    pair = await stage.gateway(
        bad, good, retry={"attempts": 0}, routes=[{"models": ["m"], "upstreams": ["up0", "up1"], "balance": "in_order"}]
    )
    for server, state in ((alone, "half_open"), (pair, "open")):
        for _ in range(5):
            client = await stage.chat(server)
            assert await client.head() == 500
            await client.body()
        seen = await ended(server, 5)
        assert seen("upstream_up", upstream="up0") == 0
        assert seen("upstream_circuit_state", upstream="up0", state=state) == 1
        assert seen("upstream_circuit_state", upstream="up0") == 1
    await completed(stage, pair)
    assert (await ended(pair, 6))("upstream_up", upstream="up1") == 1


async def test_answers_are_counted_by_route_method_and_code(stage: Stage) -> None:
    """Probes and refusals too; a path that does not exist is `other`."""
    server = await stage.gateway(await stage.upstream(whole))
    async with httpx.AsyncClient(base_url=server.url) as http:
        await http.get("/readyz")
        await http.get("/livez")
        await http.get("/nowhere/at/all")
        await http.get("/v1/chat/completions")
        await http.get("/v1/models")
    seen = await shows(server, lambda seen: seen("http_requests_total") == 5)
    expected = [("/readyz", "200"), ("/livez", "200"), ("other", "404"), ("/v1/chat/completions", "405")]
    for route, code in (*expected, ("/v1/models", "200")):
        assert seen("http_requests_total", route=route, method="GET", code=code) == 1, route


async def test_promised_times_are_bounds_of_buckets(stage: Stage) -> None:
    """`observe.slo` in the configuration; written as Prometheus writes them."""
    slo = {"time_to_first_token": 1.25, "time_per_output_token": 0.04, "stream_duration": 45}
    server = await stage.gateway(await stage.upstream(whole), observe={"slo": slo})
    await completed(stage, server)
    seen = await ended(server)
    assert "1.25" in seen.bounds("time_to_first_token_seconds")
    assert "0.04" in seen.bounds("time_per_output_token_seconds")
    assert "45.0" in seen.bounds("stream_duration_seconds")


async def test_the_loop_is_watched_as_long_as_the_server_lives(stage: Stage) -> None:
    """Four ticks a second, none after its end."""
    server = await stage.gateway(await stage.upstream(whole))
    seen = await shows(server, lambda seen: seen("event_loop_lag_seconds_count") >= 2)
    assert seen("event_loop_lag_seconds_sum") < PATIENCE
    await server.stop()
    assert server.lag._timer is None
