"""The guard on real sockets: clocks, limits, late refusals, pipelining, leaving; on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from typing import Any

import pytest

from streamgate.edge.connection import Phase
from streamgate.edge.guard import Guard, GuardSettings
from streamgate.errors import Reason
from tests.wire.edge_server import GET, POST, Recorder, answer, serve
from tests.wire.raw_requests import read_answer

pytestmark = pytest.mark.anyio
Until = Callable[..., Awaitable[None]]


def post(body: bytes = b"", length: int | None = None) -> bytes:
    return POST + b"Content-Length: %d\r\n\r\n" % (len(body) if length is None else length) + body


def code(response: bytes) -> str:
    found: str = json.loads(response.partition(b"\r\n\r\n")[2])["error"]["code"]
    return found


class Held:
    """An application that reads its request, says so, and answers when told."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.gone = asyncio.Event()
        self.calls = 0
        self.edge: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        self.edge = scope["extensions"]["streamgate.edge"]
        message = await receive()
        while message.get("more_body"):
            message = await receive()
        self.begun.set()
        if message["type"] == "http.request":
            async with asyncio.TaskGroup() as group:
                disconnect = group.create_task(receive())
                go = group.create_task(self.go.wait())
                await asyncio.wait((disconnect, go), return_when=asyncio.FIRST_COMPLETED)
                go.cancel()
                if not disconnect.done():
                    await answer(send, 200, b"done")
            message = disconnect.result()
        assert message["type"] == "http.disconnect"
        self.gone.set()


# Clocks.
async def test_a_head_that_drips_is_cut_at_the_head_clock() -> None:
    """The head's clock is total: more bytes do not reset it; the answer is 408 and a close."""
    app = Recorder()
    async with serve(app, GuardSettings(head_timeout=0.3)) as edge:
        client = await edge.connect()
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\n")
        began = time.monotonic()
        response = b""
        while not response:
            await client.send(b"A")
            with contextlib.suppress(TimeoutError):
                response = await client.until(b"}}", within=0.05)
        assert response.startswith(b"HTTP/1.1 408 ")
        assert 0.2 < time.monotonic() - began < 1.0
        assert b'"request_timeout"' in response
        assert edge.refused == {Reason.BODY_TIMEOUT: 1}
    assert app.requests == []


async def test_a_silent_connection_is_closed_at_the_head_clock_without_a_word() -> None:
    """Who never asked gets no answer: browsers open connections ahead of need."""
    async with serve(Recorder(), GuardSettings(head_timeout=0.1)) as edge:
        client = await edge.connect()
        assert await client.rest() == b""
        assert edge.refused == {}


async def test_an_idle_connection_is_closed_at_the_keep_alive_clock() -> None:
    """After an answer the keep-alive clock runs, not the head's, and the close is silent."""
    async with serve(Recorder(), GuardSettings(head_timeout=0.05, keep_alive=0.3)) as edge:
        client = await edge.connect()
        await client.send(post(b"{}"))
        assert (await read_answer(client.reader)).status == 200
        began = time.monotonic()
        assert await client.rest() == b""
        assert 0.2 < time.monotonic() - began < 1.0
        assert edge.refused == {}


async def test_the_second_head_has_its_clock_from_its_first_byte() -> None:
    """On a kept connection the head's clock starts with the first byte, under a longer keep-alive."""
    async with serve(Recorder(), GuardSettings(head_timeout=0.1, keep_alive=30)) as edge:
        client = await edge.connect()
        await client.send(post(b"{}"))
        assert (await read_answer(client.reader)).status == 200
        await client.send(b"POST /v1/")
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("start", [post(b"{", 100), POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"])
async def test_a_body_that_stalls_is_refused_late(start: bytes) -> None:
    """408 and close at the body's clock; the application sees the client leave and why, and counts it itself."""
    app = Held()
    async with serve(app, GuardSettings(body_timeout=0.2)) as edge:
        client = await edge.connect()
        await client.send(start)
        response = await client.rest()
        assert response.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in response
        await app.gone.wait()
        assert (app.edge.late.status, app.edge.late.reason, app.edge.gone) == (408, Reason.BODY_TIMEOUT, False)
        assert edge.refused == {}


async def test_a_large_body_has_longer() -> None:
    """64 KiB of declared body are worth a second."""
    app = Held()
    async with serve(app, GuardSettings(body_timeout=0.05)) as edge:
        client = await edge.connect()
        began = time.monotonic()
        await client.send(post(b"{", 32768))
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
        assert 0.5 <= time.monotonic() - began < 2.0
        await app.gone.wait()


async def test_a_body_that_nobody_reads_is_not_the_clients_fault(until: Until) -> None:
    """While the application does not read, the body's clock does not run."""
    go, seen = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        while (await receive()).get("more_body"):
            pass
        await answer(send, 200, b"{}")
        seen.set()

    async with serve(app, GuardSettings(body_timeout=0.1)) as edge:
        client = await edge.connect()
        body = b"x" * 2_000_000
        client.writer.write(post(body))
        await until(lambda: edge.connections and edge.connections[0].flow.read_paused)
        (connection,) = edge.connections
        assert connection.look(time.monotonic() + 1.0) > time.monotonic()
        assert connection.phase is Phase.BODY
        go.set()
        assert (await read_answer(client.reader)).status == 200
        await seen.wait()
        await client.close()


async def test_no_timer_is_made_per_request() -> None:
    """A thousand requests on one connection make no more timers than one does."""
    loop = asyncio.get_running_loop()
    async with serve(Recorder()) as edge:
        client = await edge.connect()
        await client.send(post(b"{}"))
        await read_answer(client.reader)
        made: list[object] = []
        clocks = loop._streamgate_clocks  # type: ignore[attr-defined]
        arm = clocks._arm
        clocks._arm = lambda due: (made.append(due), arm(due))
        for _ in range(100):
            await client.send(post(b"{}"))
            await read_answer(client.reader)
        assert len(made) <= 1
        assert len(clocks) <= 5
        assert edge.connections[0].timeout_keep_alive_task is None
        await client.close()


async def test_an_idle_client_that_took_nothing_is_reset(until: Until) -> None:
    """A connection whose last answer is still unsent at the keep-alive clock is dropped, not closed politely."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 200, b"x" * 8_000_000)

    async with serve(app, GuardSettings(keep_alive=0.2), send_buffer=16384) as edge:
        client = await edge.connect(reads=False)
        await client.send(GET)
        await until(lambda: not edge.connections)
        assert edge.census.connections == 0
        await client.close()


# Sizes and framing, once the application has begun.
@pytest.mark.parametrize(
    ("more", "status"),
    [(b"5000\r\n", 413), (b"zz\r\n", 400), (b"2\r\nabc", 400)],
)
async def test_a_chunk_that_breaks_a_rule_is_refused_late(more: bytes, status: int, until: Until) -> None:
    """The edge answers, the application sees a disconnect and the reason, and nobody counts twice."""
    app = Held()
    async with serve(app, GuardSettings(max_body=1000)) as edge:
        client = await edge.connect()
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        await until(lambda: app.edge is not None)
        await client.send(more)
        assert (await client.rest()).startswith(b"HTTP/1.1 %d " % status)
        await app.gone.wait()
        assert app.edge.late.status == status
        assert edge.refused == {}


async def test_a_late_fault_behind_a_running_answer_resets() -> None:
    """When the response has begun, a second answer inside it would be worse than none."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with serve(app) as edge:
        client = await edge.connect()
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        await client.until(b"first\r\n")
        await client.send(b"zz\r\n")
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_body_beyond_the_limit_is_refused_at_its_head_and_the_answer_survives() -> None:
    """413 before a byte of the body was read, readable by a client that goes on sending for a while."""
    app = Recorder()
    async with serve(app, GuardSettings(max_body=1000)) as edge:
        client = await edge.connect()
        client.writer.write(post(b"x" * 100_000))
        response = await client.until(b"}}")
        assert response.startswith(b"HTTP/1.1 413 ")
        assert code(response) == "body_too_large"
        assert edge.refused == {Reason.TOO_LARGE: 1}
        assert edge.census.statistics()["refused"] == {"too_large": 1}
        await client.close()
    assert app.requests == []


async def test_a_refused_client_that_does_not_close_is_cut(until: Until) -> None:
    """Reading stops at 64 KiB, and half a second after the answer the connection is gone."""
    async with serve(Recorder(), GuardSettings(max_body=1000)) as edge:
        client = await edge.connect()
        client.writer.write(post(b"x" * 3_000_000))
        assert (await client.until(b"}}")).startswith(b"HTTP/1.1 413 ")
        began = time.monotonic()
        assert await client.ended()
        await until(lambda: edge.idle)
        assert time.monotonic() - began < 1.5
        await client.close()


async def test_an_early_answer_closes_and_survives_the_unread_body() -> None:
    """Answered before its body has come, a request is the connection's last, and the rest of the body is drained."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 401, b"no key")

    async with serve(app) as edge:
        client = await edge.connect()
        await client.send(post(b"{", 50_000))
        head = await client.until(b"\r\n\r\n")
        assert b"401" in head
        assert b"connection: close" in head
        await client.send(b"x" * 40_000)
        assert await client.rest() == b"no key"
        await client.close()
        assert edge.refused == {}


async def test_a_large_body_arrives_whole() -> None:
    """Reading is paused and resumed with the application; nothing is lost or changed."""
    app = Recorder()
    body = bytes(range(256)) * 20_000
    async with serve(app) as edge:
        client = await edge.connect()
        client.writer.write(post(body))
        assert (await read_answer(client.reader)).body == body
        client.writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert (await read_answer(client.reader)).body == body
        await client.close()
    assert [request[3] == body for request in app.requests] == [True, True]


async def test_the_client_is_told_to_go_on_only_while_its_body_is_awaited() -> None:
    """100 Continue goes out when the application reads, and not when the body is already here."""
    async with serve(Recorder()) as edge:
        client = await edge.connect()
        await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"{}")
        assert (await client.until(b"{}")).startswith(b"HTTP/1.1 200 ")
        await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}")
        assert (await client.until(b"{}")).startswith(b"HTTP/1.1 200 ")
        await client.close()


# Limits.
async def test_connections_above_the_limit_are_refused_and_those_below_go_on(until: Until) -> None:
    """503 with Retry-After and close, in answer to what the client asked; a place that gets free is given again."""
    async with serve(Recorder(), GuardSettings(max_connections=2)) as edge:
        first, second, third = [await edge.connect() for _ in range(3)]
        for client in (first, second):
            await client.send(post(b"{}"))
            assert (await read_answer(client.reader)).status == 200
        await third.send(post(b"{}"))
        refusal = await read_answer(third.reader)
        assert refusal.status == 503
        assert b"retry-after: 1\r\n" in refusal.head
        assert b"/v1/chat/completions" in refusal.body
        assert await third.ended()
        assert edge.refused == {Reason.OVERLOAD: 1}
        await first.close()
        await until(lambda: edge.census.connections == 1)
        fourth = await edge.connect()
        await fourth.send(post(b"{}"))
        assert (await read_answer(fourth.reader)).status == 200
        for client in (second, third, fourth):
            await client.close()


async def test_a_refused_connection_that_stays_silent_is_told_and_closed() -> None:
    """It holds its descriptor for a second, no longer."""
    async with serve(Recorder(), GuardSettings(max_connections=1)) as edge:
        first, second = await edge.connect(), await edge.connect()
        assert (await second.rest()).startswith(b"HTTP/1.1 503 ")
        await first.close()
        await second.close()


@pytest.mark.parametrize(("trusted", "status"), [((), 503), (("127.0.0.0/8",), 200)])
async def test_one_address_may_not_hold_more_than_its_share(trusted: tuple[str, ...], status: int) -> None:
    """The limit per address holds for all but trusted proxies."""
    settings = GuardSettings(
        max_connections_per_address=1, trusted_proxies=tuple(ip_network(network) for network in trusted)
    )
    async with serve(Recorder(), settings) as edge:
        first, second = await edge.connect(), await edge.connect()
        await second.send(post(b"{}"))
        assert (await read_answer(second.reader)).status == status
        await first.close()
        await second.close()


@pytest.mark.parametrize(("spare", "answered"), [(5, True), (-4096, False)])
async def test_descriptors_are_kept_in_reserve(spare: int, answered: bool) -> None:
    """Above RLIMIT_NOFILE less the reserve newcomers get 503; near the end of the reserve they are just cut."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    reserve = limit - spare if answered else 2 * limit
    async with serve(Recorder(), GuardSettings(reserve_descriptors=reserve)) as edge:
        client = await edge.connect()
        with contextlib.suppress(ConnectionError):
            await client.send(post(b"{}"))
        reply = await read_answer(client.reader) if answered else None
        assert reply is None or reply.status == 503
        assert await client.ended()
        assert edge.refused == {Reason.OVERLOAD: 1}
        await client.close()


async def test_three_hundred_idle_connections_disturb_nobody(until: Until) -> None:
    """Others are served beside them, and they are counted by address."""
    async with serve(Recorder()) as edge:
        idle = [await edge.connect() for _ in range(300)]
        client = await edge.connect()
        await client.send(post(b"{}"))
        assert (await read_answer(client.reader)).status == 200
        assert edge.census.statistics()["connections"] == 301
        assert edge.census.addresses == {"127.0.0.1": 301}
        for each in (*idle, client):
            await each.close()
        await until(lambda: not edge.census.connections)
    assert edge.census.addresses == {}


# One request at a time, and the client's leaving.
async def test_a_request_behind_a_running_one_is_never_started(until: Until) -> None:
    """The first is answered, says that it was the last, and the connection closes."""
    app = Held()
    async with serve(app) as edge:
        client = await edge.connect()
        await client.send(post(b"{}"))
        await app.begun.wait()
        await client.send(post(b"{}") * 3)
        await until(lambda: edge.connections[0].surplus)
        app.go.set()
        response = await client.rest()
        assert response.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in response
        assert response.endswith(b"done")
        await app.gone.wait()
        assert app.calls == 1
        await client.close()


@pytest.mark.parametrize("how", ["fin", "half", "rst"])
@pytest.mark.parametrize("pipelined", [False, True])
async def test_a_client_that_leaves_while_it_waits_is_seen_at_once(how: str, pipelined: bool) -> None:
    """FIN, half-close and RST all end the request, also behind pipelined bytes."""
    app = Held()
    async with serve(app) as edge:
        client = await edge.connect()
        await client.send(post(b"{}") + (post(b"{}") if pipelined else b""))
        await app.begun.wait()
        began = time.monotonic()
        if how == "rst":
            client.reset()
        elif how == "fin":
            await client.close()
        else:
            client.writer.write_eof()
        async with asyncio.timeout(5):
            await app.gone.wait()
        assert time.monotonic() - began < 0.2
        assert app.edge.gone
        assert app.edge.late is None
        if how == "half":
            with pytest.raises(ConnectionResetError):
                await client.rest()


async def test_too_many_bytes_behind_a_request_are_an_attack() -> None:
    """Beyond 64 KiB the connection is reset and the request counts as left."""
    app = Held()
    async with serve(app) as edge:
        client = await edge.connect()
        await client.send(post(b"{}"))
        await app.begun.wait()
        client.writer.write(b"x" * 200_000)
        assert await client.ended()
        await app.gone.wait()
        assert app.edge.gone
        assert edge.refused == {}


async def test_an_upload_that_is_cut_reaches_the_application_as_a_disconnect(until: Until) -> None:
    """FIN in the middle of a body: nothing is answered, the application sees the client leave."""
    app = Held()
    async with serve(app) as edge:
        client = await edge.connect()
        await client.send(post(b"{", 100))
        await until(lambda: app.edge is not None)
        client.writer.write_eof()
        await app.gone.wait()
        assert app.edge.gone
        assert await client.ended()


async def test_a_head_that_is_cut_is_forgotten() -> None:
    """FIN in the middle of a head or after an answer ends the connection, without a word and without a count."""
    async with serve(Recorder()) as edge:
        for start in (b"", b"POST /v1", post(b"{}")):
            client = await edge.connect()
            await client.send(start)
            if start.endswith(b"{}"):
                await read_answer(client.reader)
            client.writer.write_eof()
            assert await client.rest() == b""
        assert edge.refused == {}


# uvicorn's own ways, unchanged.
async def test_ordinary_applications_are_served_on_kept_connections() -> None:
    """Streams, HEAD and 204 through uvicorn's own response code, several on one connection."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"] == "/v1/chat completions"
        assert scope["raw_path"] == b"/v1/chat%20completions"
        status = 204 if scope["method"] == "DELETE" else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        for piece in (b"one ", b"two"):
            await send({"type": "http.response.body", "body": piece if status == 200 else b"", "more_body": True})
        await send({"type": "http.response.body"})

    async with serve(app) as edge:
        client = await edge.connect()
        for method in (b"GET", b"HEAD", b"DELETE", b"GET"):
            await client.send(method + b" /v1/chat%20completions HTTP/1.1\r\nHost: a\r\n\r\n")
            response = await read_answer(client.reader, head_only=method != b"GET")
            assert response.body == (b"one two" if method == b"GET" else b"")
        assert edge.server.server_state.total_requests == 4
        await client.close()


async def test_an_application_that_fails_is_answered_for(caplog: pytest.LogCaptureFixture) -> None:
    """uvicorn's 500 before the head; behind it the connection ends without the last chunk."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
        raise LookupError("on purpose")

    async with serve(app) as edge:
        client = await edge.connect()
        await client.send(GET)
        assert (await client.rest()).startswith(b"HTTP/1.1 500 ")
        client = await edge.connect()
        await client.send(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.rest()).endswith(b"4\r\npart\r\n")
    assert caplog.text.count("LookupError: on purpose") == 2


async def test_a_refused_head_request_gets_no_body() -> None:
    """Only the head of a refusal answers HEAD."""
    async with serve(Recorder()) as edge:
        client = await edge.connect()
        await client.send(b"HEAD /v1/chat/completions HTTP/1.1\r\n\r\n")
        response = await client.rest()
        assert response.startswith(b"HTTP/1.1 400 ")
        assert response.endswith(b"\r\n\r\n")
        await client.close()


async def test_a_shutdown_closes_idle_connections_and_lets_the_others_answer(until: Until) -> None:
    """As uvicorn asks: idle ones close at once, the running one says that it is the last and closes."""
    app = Held()
    async with serve(app) as edge:
        idle, busy, uploading = [await edge.connect() for _ in range(3)]
        await busy.send(post(b"{}"))
        await app.begun.wait()
        await uploading.send(post(b"{", 2))
        await until(lambda: app.calls == 2)
        for connection in edge.connections:
            connection.shutdown()
        assert await idle.rest() == b""
        await uploading.send(b"}")
        app.go.set()
        for client in (busy, uploading):
            response = await client.rest()
            assert b"connection: close" in response
            assert response.endswith(b"done")


async def test_nothing_of_a_connection_is_left(until: Until) -> None:
    """Neither an idle connection nor a closed one is in a reference cycle: no garbage collection is needed."""

    def alive() -> int:
        return sum(type(each) is Guard for each in gc.get_objects())

    async with serve(Recorder()) as edge:
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(20):
                client = await edge.connect()
                await client.send(post(b"{}"))
                await read_answer(client.reader)
                assert edge.connections[0].cycle is None
                await client.close()
                await until(lambda: edge.idle)
            assert alive() - before <= 2
        finally:
            gc.enable()
