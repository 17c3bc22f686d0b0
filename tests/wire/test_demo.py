"""The demo upstream on real sockets: what arrives, what is sent, and when it notices that a client has left."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from streamgate import demo
from streamgate.demo import show
from streamgate.demo.grammar import OPTIONS
from streamgate.demo.server import MAX_TRIES

pytestmark = pytest.mark.anyio

PATIENCE = 5.0


def post(model: str, rid: str = "r1", path: str = "/v1/chat/completions", *headers: str, **asked: Any) -> bytes:
    """A request's bytes."""
    body = json.dumps({"model": model, "stream": True, **asked}).encode()
    lines = [f"POST {path} HTTP/1.1", "host: demo", f"x-request-id: {rid}", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n".encode()


class Client:
    """One connection to the demo upstream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *requests: bytes) -> None:
        self.writer.write(b"".join(requests))

    async def until(self, end: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(end), PATIENCE)

    async def rest(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(-1), PATIENCE)

    def reset(self) -> None:
        found: socket.socket = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def connected(upstream: demo.DemoUpstream, **options: Any) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", upstream.port, limit=2**24, **options))
    try:
        yield client
    finally:
        client.writer.transport.abort()


async def asked(upstream: demo.DemoUpstream, request: bytes) -> bytes:
    """The whole answer to one request on a connection of its own, up to the close."""
    async with connected(upstream) as client:
        client.send(request)
        return await client.rest()


async def test_a_stream_and_what_was_asked() -> None:
    """A stream arrives whole; its request is remembered byte for byte; the connection serves again."""
    async with await demo.start() as upstream, connected(upstream) as client:
        first, second = post("demo-n3-t1"), post("demo-n1-t0", "r2", "/v1/completions")
        client.send(first)
        assert b"data: [DONE]" in await client.until(b"\r\n0\r\n\r\n")
        client.send(second)
        assert b'"text":"A "' in await client.until(b"\r\n0\r\n\r\n")
        await upstream.wait_idle()
        assert [request.raw for request in upstream.received] == [first, second]
        assert (upstream.requests, upstream.streams_finished, upstream.streams_aborted) == (2, 2, 0)
        assert (upstream.connections_opened, upstream.connections_now) == (1, 1)
    assert upstream.connections_closed == 1


async def test_pipelined_requests_are_answered_in_turn() -> None:
    """Requests that arrive together, or in pieces, are answered one after the other."""
    async with await demo.start() as upstream, connected(upstream) as client:
        wire = post("demo-n1-t5-echo", "a") + post("demo-n1-t0-echo", "b")
        client.send(wire[:30])
        client.send(wire[30:])
        assert b"a:A" in await client.until(b"\r\n0\r\n\r\n")
        assert b"b:A" in await client.until(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("way", ["fin", "rst"])
@pytest.mark.parametrize(
    "model",
    [
        "demo-silent",
        "demo-stall0",
        "demo-stall2-t0",
        "demo-t60000",
        "demo-hb60000",
        "demo-d60000",
        "demo-flood99999999",
    ],
)
async def test_a_client_that_leaves_is_noticed_at_once(model: str, way: str) -> None:
    """FIN and RST are seen in silence, between tokens, before the head and while writing blocks, without a timer."""
    async with await demo.start() as upstream, connected(upstream) as client:
        client.send(post(model))
        await upstream.wait_active()
        assert upstream.active == ["r1"]
        left = time.monotonic()
        if way == "fin":
            client.writer.write_eof()
        else:
            client.reset()
        seen = await upstream.wait_aborted("r1")
        await upstream.wait_closed()
        assert seen - left < 0.2  # far above what it takes (1 ms), far below any timer here
        assert (upstream.streams_active, upstream.streams_finished, upstream.streams_aborted) == (0, 0, 1)


async def test_a_client_that_leaves_without_a_stream_leaves_single_answers_too() -> None:
    """An answer that is not a stream is aborted like one."""
    async with await demo.start() as upstream, connected(upstream) as client:
        client.send(post("demo-t60000", stream=False))
        await upstream.wait_active()
        client.writer.close()
        assert await upstream.wait_aborted("r1") <= time.monotonic()


async def test_what_the_demo_breaks_itself_is_no_abort() -> None:
    """A reset, a close and an open end that were asked for count as finished."""
    async with await demo.start() as upstream:
        with pytest.raises(ConnectionError):
            await asked(upstream, post("demo-n2-t0-reset2"))
        assert (await asked(upstream, post("demo-n2-t0-eof2"))).endswith(b"\n\n\r\n")
        async with connected(upstream) as client:
            client.send(post("demo-n1-t0-doneopen"))
            await client.until(b"[DONE]\n\n\r\n")
        await upstream.wait_closed()
        assert (upstream.streams_finished, upstream.streams_aborted) == (3, 0)


async def test_tokens_before_a_reset_arrive() -> None:
    """What was sent before the reset can be read."""
    async with await demo.start() as upstream, connected(upstream) as client:
        client.send(post("demo-n5-t0-reset3"))
        text = b""
        with pytest.raises(ConnectionError):
            while chunk := await client.reader.read(65536):
                text += chunk
        assert text.count(b"data: ") == 3


async def test_the_first_requests_of_an_id_fail() -> None:
    """`first<k>` counts per request id; another id begins anew; without one the model's name counts."""
    async with await demo.start() as upstream:
        model = "demo-n1-t0-first2:status503"
        for rid in ("a", "b"):
            statuses = [(await asked(upstream, post(model, rid, stream=False) + get("/health"))) for _ in range(3)]
            assert [answer.split()[1] for answer in statuses] == [b"503", b"503", b"200"]
        nameless = post(model, stream=False).replace(b"x-request-id", b"x-other")
        statuses = [await asked(upstream, nameless + get("/health")) for _ in range(3)]
        assert [answer.split()[1] for answer in statuses] == [b"503", b"503", b"200"]


async def test_only_so_many_requests_are_counted() -> None:
    """Ids that are never seen again are forgotten."""
    async with await demo.start() as upstream:
        upstream._tries = {str(number): 1 for number in range(MAX_TRIES)}
        await asked(upstream, post("demo-first1:status500", "new", "/v1/chat/completions", "connection: close"))
        assert len(upstream._tries) == MAX_TRIES and "new" in upstream._tries and "0" not in upstream._tries


async def test_play_is_for_every_model() -> None:
    """With `play` the model's name does not matter."""
    async with await demo.start(play="demo-status503") as upstream:
        closing = post("gpt-4", "r", "/v1/chat/completions", "connection: close")
        assert (await asked(upstream, closing)).startswith(b"HTTP/1.1 503")
        upstream.play = None
        assert (await asked(upstream, closing)).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    ("request_", "begins", "holds"),
    [
        (get("/health"), b"HTTP/1.1 200", b'{"status":"ok"}'),
        (get("/v1/models"), b"HTTP/1.1 200", b'"id":"demo"'),
        (get("/nope"), b"HTTP/1.1 404", b"Not Found"),
        (get("/v1/chat/completions"), b"HTTP/1.1 405", b"Method Not Allowed"),
        (post("demo-what", "r", "/v1/completions", "connection: close"), b"HTTP/1.1 404", b"model_not_found"),
        (b"what is this\r\n\r\n", b"HTTP/1.1 400", b""),
    ],
)
async def test_plain_answers(request_: bytes, begins: bytes, holds: bytes) -> None:
    """Health, models, unknown paths, methods and models, and what is no request at all."""
    async with await demo.start() as upstream:
        answer = await asked(upstream, request_)
        assert answer.startswith(begins) and holds in answer


async def test_the_statistics_balance() -> None:
    """/stats says what the counters say: opened is closed and open, requests are active, finished and aborted."""
    async with await demo.start() as upstream:
        async with connected(upstream) as client:
            client.send(post("demo-silent"))
            await upstream.wait_active()
        await upstream.wait_aborted("r1")
        stats = json.loads((await asked(upstream, get("/stats"))).partition(b"\r\n\r\n")[2])
        assert stats["requests"] == 2 and stats["connections"] == {"opened": 2, "closed": 1, "now": 1}
        assert stats["streams"] == {"active": 0, "finished": 0, "aborted": 1}
        assert stats["aborts"][0]["rid"] == "r1"
        await upstream.wait_requests(2)


async def test_bytes_of_an_unfinished_request_are_kept() -> None:
    """What a client sent before it left in the middle of its request can be looked at."""
    async with await demo.start() as upstream, connected(upstream) as client:
        client.send(post("demo")[:50])
        client.writer.close()
        await upstream.wait_for(lambda: bool(upstream.unfinished))
        assert list(upstream.unfinished) == [post("demo")[:50]] and upstream.requests == 0


async def test_waiting_has_a_deadline() -> None:
    """What never happens is a TimeoutError, and nobody is left waiting."""
    async with await demo.start() as upstream:
        with pytest.raises(TimeoutError):
            await upstream.wait_active(timeout=0.01)
        assert upstream._waiters == []


async def test_what_happens_on_the_connection_afterwards() -> None:
    """Hung up unannounced, gone stale, closed as announced, a second response nobody asked for."""
    async with await demo.start() as upstream:
        assert b"connection: close" not in await asked(upstream, post("demo-n1-t0-hangup5"))
        stale = await asked(upstream, post("demo-n1-t0-stale") + post("demo"))
        assert stale.count(b"HTTP/1.1") == 1 and upstream.requests == 2
        assert b"connection: close" in await asked(upstream, post("demo-n1-t0-closeafter"))
        twice = await asked(upstream, post("demo-n1-t0-closeafter-twicelate5"))
        assert twice.count(b"HTTP/1.1 200") == 2


async def test_a_client_that_does_not_read_stops_the_writing() -> None:
    """Flow control: of a flood only what the sockets hold is made; reading on brings all of it."""
    async with await demo.start() as upstream, connected(upstream) as client:
        client.send(post(f"demo-flood{64 * 1024 * 1024}"))
        await client.until(b"\r\n\r\n")
        (transport,) = upstream.transports
        await upstream.wait_active()
        assert transport.get_write_buffer_size() < 2 * 1024 * 1024
        received = 0
        tail = b""
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            chunk = await asyncio.wait_for(client.reader.read(2**20), PATIENCE)
            received += len(chunk)
            tail = (tail + chunk)[-20:]
        assert received > 64 * 1024 * 1024


async def test_waking_a_connection_that_hangs_changes_nothing() -> None:
    """Silence stays silence when the socket drains."""
    async with await demo.start() as upstream, connected(upstream) as client:
        client.send(post("demo-bigevent3000000-t0-stall2"))
        await upstream.wait_active()
        text = await client.until(b"}}]}\n\n\r\n")
        assert text.count(b"data: ") == 2 and upstream.streams_active == 1


async def test_every_name_is_played_without_a_fault() -> None:
    """Each option of the grammar, streaming and not, leaves the server serving and its books balanced."""
    async with await demo.start() as upstream:
        count = 0
        for word, option in OPTIONS.items():
            number = (
                {"k": "1", "code": "500"}.get(option.number, "3") if option.number and option.default is None else ""
            )
            for stream in (True, False):
                async with connected(upstream) as client:
                    client.send(
                        post(
                            f"demo-n2-t0-{word}{number}".replace("n2-t0-n3", "n3").replace("t0-t3", "t3"), stream=stream
                        )
                    )
                    count += 1
                    await upstream.wait_requests(count)
        await upstream.wait_closed()
        assert upstream.streams_finished + upstream.streams_aborted == count and upstream.streams_active == 0
        assert not any(b"404" in request.raw for request in upstream.received)
        assert (await asked(upstream, get("/health"))).startswith(b"HTTP/1.1 200")


async def test_closing_ends_what_is_open() -> None:
    """aclose drops connections, with streams on them or not, and may be called again."""
    upstream = await demo.start()
    async with connected(upstream) as client, connected(upstream):
        client.send(post("demo-silent"))
        await upstream.wait_active()
        await upstream.wait_for(lambda: upstream.connections_now == 2)
        await upstream.aclose()
        await upstream.aclose()
        assert upstream.connections_now == 0
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", upstream.port)


async def test_ipv6() -> None:
    """An IPv6 address is shown in brackets."""
    async with await demo.start("::1") as upstream:
        assert upstream.url == f"http://[::1]:{upstream.port}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -keyout {folder}/key.pem "
        f"-out {folder}/cert.pem".split(),
        check=True,
        capture_output=True,
        timeout=30,
    )
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


async def test_tls(certificate: Path) -> None:
    """With a context the same is served over TLS; `nonotify` closes without a word, which a strict client sees."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=certificate)
    trusting.check_hostname = False
    async with await demo.start(tls=serving) as upstream:
        assert upstream.url == f"https://127.0.0.1:{upstream.port}"
        async with connected(upstream, ssl=trusting) as client:
            client.send(post("demo-n1-t0-http10"))
            assert b"[DONE]" in await client.rest()
        async with connected(upstream, ssl=trusting) as client:
            client.send(post("demo-n3-t5-nonotify-eof2"))
            text = await client.until(b'"A "},"logprobs":null,"finish_reason":null}]}\n\n\r\n')
            assert text.count(b"data: ") == 2
        await upstream.wait_closed()


# ---------------------------------------------------------------- the show


class Gateway:
    """Stands where a gateway would: the demo upstream itself answers chats, and a scripted page the scrapes."""

    def __init__(self, url: str, admin_url: str) -> None:
        self.url = url
        self.admin_url = admin_url


def gateway_with(*pages: str, play: str | None = None) -> Any:
    """A `running` whose /metrics are these pages, one after the other; the last one stays."""

    @asynccontextmanager
    async def running(config: Any) -> AsyncIterator[Gateway]:
        assert len(config.upstreams) == 1
        left = list(pages)

        async def scraped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            page = left.pop(0) if len(left) > 1 else left[0]
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(page)}\r\n\r\n{page}".encode())
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(scraped, "127.0.0.1", 0)
        async with server, await demo.start(play=play) as chats:
            yield Gateway(chats.url, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    return running


COMPLETED = 'streamgate_streams_total{outcome="completed"} 1.0\nother 1\n'


async def test_the_show_streams_and_measures() -> None:
    """Tokens are written as they come, then what client and gateway measured; the code is 0."""
    written: list[str] = []
    assert await show.show(gateway_with("# nothing yet\n", COMPLETED, play="demo-n5-t10"), written.append) == 0
    text = "".join(written)
    assert "A river keeps no record" in text and "first token after" in text
    assert COMPLETED.partition("\n")[0] in text
    assert "other 1" not in text
    assert [piece for piece in written if piece in ("A ", "river ")] == ["A ", "river "]


@pytest.mark.parametrize(
    ("play", "page"),
    [
        ("demo-n5-t0-nodone", COMPLETED),
        ("demo-n5-t0", COMPLETED.replace("completed", "truncated")),
        ("demo-n5-t0-eof2", COMPLETED),
        ("demo-eofhead", COMPLETED),
        ("demo-status503", COMPLETED),
        ("demo-n0-t0", "\n"),
    ],
)
async def test_a_show_that_fails_says_so(play: str, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is not whole, or not counted as completed, is code 1."""
    monkeypatch.setattr(show, "SCRAPES", 2)
    assert await show.show(gateway_with(page, play=play), lambda _: None) == 1


async def test_a_show_has_a_deadline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A gateway that hangs fails the demo."""
    monkeypatch.setattr(show, "DEADLINE", 0.2)
    assert await show.show(gateway_with(COMPLETED, play="demo-silent"), lambda _: None) == 1
    assert "the demo failed: TimeoutError" in capsys.readouterr().err


async def test_a_connection_that_was_closed_begins_nothing() -> None:
    """A request that waits while its connection closes is not answered."""
    async with await demo.start() as upstream:
        answer = await asked(upstream, post("demo-n1-t0-closeafter") + post("demo-n1-t0"))
        assert answer.count(b"HTTP/1.1") == 1 and upstream.requests == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_alone_it_serves_until_it_is_told(number: signal.Signals) -> None:
    """`python -m streamgate.demo` prints its address, serves, and ends at a signal with code 0."""
    command = [sys.executable, "-m", "streamgate.demo", "--port", "0", "--play", "demo-n1-t0"]
    child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env={**os.environ})
    assert child.stdout is not None
    try:
        line = (await asyncio.wait_for(child.stdout.readline(), 20)).decode()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(line.rpartition(":")[2]))
        writer.write(get("/v1/models"))
        assert b'"id":"demo"' in await asyncio.wait_for(reader.read(-1), PATIENCE)
        writer.close()
        child.send_signal(number)
        assert await asyncio.wait_for(child.wait(), PATIENCE) == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
