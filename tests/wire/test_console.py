"""The live page's endpoints on a real server: the feed, the files, and the end of a stream by an operator."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from stage import Client, Peer, Stage, delta

from streamgate.record import Outcome
from streamgate.server import ENDED, Server
from streamgate.sse import EventStreamParser

pytestmark = pytest.mark.anyio


async def for_ever(peer: Peer) -> None:
    """Two tokens, and then silence until the gateway leaves."""
    peer.stream(delta(), delta("one"), delta("two"))
    await peer.closed()
    peer.closed_at.set_result(asyncio.get_running_loop().time())


async def silent(peer: Peer) -> None:
    await peer.closed()


async def ask(server: Server, method: str, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=server.admin_url, timeout=5) as client:
        return await client.request(method, path, headers=headers)


class Viewer:
    """One EventSource."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._parser = EventStreamParser()
        self._events: list[tuple[str, dict[str, object]]] = []

    async def next(self) -> tuple[str, dict[str, object]]:
        while not self._events:
            events = self._parser.feed(await self.client.piece())
            self._events += [(event.event, json.loads(event.data)) for event in events]
        return self._events.pop(0)


async def watching(stage: Stage, server: Server) -> Viewer:
    client = await stage.client(server, admin=True)
    client.send(b"GET /streams HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\r\n")
    assert await client.head() == 200
    assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
    return Viewer(client)


async def test_a_killed_stream_gets_an_error_event_and_its_upstream_is_left_at_once(stage):
    """Outcome `killed`, error code `killed`, the connection to the upstream closed, 202 for the operator."""
    upstream = await stage.upstream(for_ever)
    server = await stage.gateway(upstream)
    client = await stage.chat(server, "m", "x-request-id: stuck-1")
    assert await client.head() == 200
    while b"two" not in await client.piece():
        pass
    answer = await ask(server, "DELETE", "/streams/stuck-1")
    assert (answer.status_code, answer.json()) == (202, {"id": "stuck-1", "ended": 1})
    error = json.loads((await client.body()).removeprefix(b"data: "))
    assert error["error"]["code"] == "killed" and "operator" in error["error"]["message"]
    assert await asyncio.wait_for(upstream.peers[0].closed_at, 5)
    assert [key[-1] for key in server.observer.tally.ended.cells] == [Outcome.KILLED]
    assert (await ask(server, "DELETE", "/streams/stuck-1")).status_code == 404


async def test_a_stream_killed_before_its_first_byte_gets_a_status_that_no_sdk_tries_again(stage):
    """503 with the code `killed`, and the header by which the SDKs know that it is meant."""
    upstream = await stage.upstream(silent)
    server = await stage.gateway(upstream)
    client = await stage.chat(server, "m", "x-request-id: waits")
    await upstream.arrived.get()
    assert (await ask(server, "DELETE", "/streams/waits")).status_code == 202
    assert await client.head() == 503
    assert client.headers["x-should-retry"] == "false"
    assert json.loads(await client.body())["error"]["code"] == "killed"


async def test_all_streams_of_one_request_id_are_killed_and_a_queued_one_is_no_stream_yet(stage, until):
    """Ids are the clients' own, so two may have the same; what has no lease is refused with 409."""
    upstream = await stage.upstream(for_ever)
    server = await stage.gateway(upstream, limits={"concurrent": 2, "queue": 1})
    clients = [await stage.chat(server, "m", "x-request-id: twin") for _ in range(2)]
    for client in clients:
        assert await client.head() == 200
    await stage.chat(server, "m", "x-request-id: queued")
    await until(lambda: server.observer.phases()["queued"])
    assert (await ask(server, "DELETE", "/streams/queued")).status_code == 409
    assert (await ask(server, "DELETE", "/streams/twin")).json()["ended"] == 2
    assert (await ask(server, "DELETE", "/streams/nobody")).status_code == 404
    assert (await ask(server, "GET", "/streams/twin")).status_code == 405


async def test_the_feed_tells_the_past_then_the_present_each_second(stage):
    """`history` first, `snapshot` at once and again a second later; no prompt and no key in any of them."""
    upstream = await stage.upstream(for_ever)
    server = await stage.gateway(upstream)
    viewer = await watching(stage, server)
    name, history = await viewer.next()
    assert (name, history["columns"][0]) == ("history", "at")
    name, before = await viewer.next()
    assert (name, before["total"], before["phase"]) == ("snapshot", 0, "serving")
    client = await stage.chat(server, "llama", "x-request-id: r1", "authorization: Bearer a-secret-key")
    assert await client.head() == 200
    name, after = await viewer.next()
    assert [(row["id"], row["model"], row["chunks"]) for row in after["streams"]] == [("r1", "llama", 3)]
    assert after["sample"][:3] == [after["sample"][0], 1, pytest.approx(1, abs=0.5)]
    assert not any(word in json.dumps(after) for word in ("a-secret-key", '"hi"', "127.0.0.1"))


async def test_viewers_are_no_streams_and_do_not_hold_up_a_drain(stage):
    """Two watch while the gateway drains: nothing is counted, nothing is waited for, and their bodies end."""
    server = await stage.gateway(await stage.upstream(silent), drain={"timeout": 60})
    viewers = [await watching(stage, server) for _ in range(2)]
    for viewer in viewers:
        await viewer.next()
    assert len(server.gateway.pulse.broadcast) == 2
    assert (len(server.drain), server.observer.statistics()["live"]) == (0, 0)
    assert "streamgate_streams_started_total{" not in (await ask(server, "GET", "/metrics")).text
    server.begin_drain()
    assert await asyncio.wait_for(server.drained(), 5) == ENDED
    while (await viewers[0].next())[1].get("phase") != "drained":
        pass
    await server.stop()
    assert len(server.gateway.pulse.broadcast) == 0


async def test_a_viewer_who_leaves_is_forgotten(stage, until):
    """The subscription goes with the connection; JSON is still what others get."""
    server = await stage.gateway(await stage.upstream(silent))
    viewer = await watching(stage, server)
    await viewer.next()
    viewer.client.close()
    await until(lambda: len(server.gateway.pulse.broadcast) == 0 and len(server.gateway.pulse.viewers) == 0)
    assert (await ask(server, "GET", "/streams")).json()["streams"] == []
    assert (await ask(server, "HEAD", "/streams", accept="text/event-stream")).status_code == 200
    assert len(server.gateway.pulse.broadcast) == 0
