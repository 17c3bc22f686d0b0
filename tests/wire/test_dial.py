"""New connections on real sockets: every address, one deadline, TLS, and nothing left of a dial that was given up."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamgate import errors
from streamgate.upstream.client import Call, Origin, PoolSettings, Upstreams, origin_of
from streamgate.upstream.dial import first_that_answers, interleaved
from streamgate.upstream.exchange import Headers
from tests.ports import free_port

pytestmark = pytest.mark.anyio

PATIENCE = 5.0
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = Call(b"GET", b"/")
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Heard:
    """A receiver that collects the body."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.fed = asyncio.Event()
        self.ended: asyncio.Future[errors.Fault | None] = asyncio.get_running_loop().create_future()

    def head(self, status: int, headers: Headers) -> None:
        pass

    def feed(self, chunk: bytes) -> None:
        self.body += chunk
        self.fed.set()

    def end(self, fault: errors.Fault | None) -> None:
        self.ended.set_result(fault)


@contextlib.asynccontextmanager
async def serving(script: Script, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    running: set[asyncio.Task[Any]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await script(reader, writer)
        finally:
            running.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(accepted, host, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if running:
            await asyncio.wait(running, timeout=PATIENCE)


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)


@pytest.fixture
async def upstreams(anyio_backend: Any) -> AsyncIterator[Upstreams]:
    client = Upstreams(PoolSettings())
    yield client
    client.close()


async def fetched(upstreams: Upstreams, origin: Origin) -> bytes:
    return (await upstreams.fetch(origin, GET, limit=1000, deadline=PATIENCE)).body


def books(upstreams: Upstreams) -> tuple[int, int, int, int, int]:
    found = upstreams.statistics()["up"]
    return found.opened, found.closed, found.pooled, found.active, found.settling


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# Certificates, made with the openssl program: a CA, a server of its, and a CA nobody trusts.


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("certificates")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for ca in ("ca", "other"):
        openssl(folder, "req", "-x509", *key, "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-subj", f"/CN={ca}")
    openssl(folder, "req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server")
    (folder / "names").write_text("subjectAltName=DNS:engine.test,IP:127.0.0.1\n")
    openssl(
        folder, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-extfile", "names", "-out", "server.pem",
    )  # fmt: skip
    return folder


@pytest.fixture
def tls(need: Any, request: pytest.FixtureRequest) -> tuple[ssl.SSLContext, str, list[str | None]]:
    """The server's context, the path of its CA, and the server names that clients asked for."""
    need("openssl")
    folder: Path = request.getfixturevalue("certificates")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    return context, str(folder / "ca.pem"), asked


async def test_ipv6(upstreams: Upstreams) -> None:
    """An IPv6 literal is connected to as it is."""
    async with serving(answering, "::1") as port:
        assert await fetched(upstreams, origin_of("up", f"http://[::1]:{port}")) == b"ok"
        upstreams.close()


async def test_a_name_is_resolved(upstreams: Upstreams) -> None:
    """A name leads to whichever of its addresses answers."""
    async with serving(answering) as port:
        assert await fetched(upstreams, origin_of("up", f"http://localhost:{port}")) == b"ok"
        upstreams.close()


@pytest.mark.parametrize("name", ["no-such-host.invalid", f"{'a' * 70}.test"])
async def test_a_name_that_does_not_resolve(upstreams: Upstreams, name: str) -> None:
    """Unknown and impossible names are a fault of their own."""
    with pytest.raises(errors.NameNotResolved):
        await fetched(upstreams, origin_of("up", f"http://{name}"))


async def test_nobody_listens(upstreams: Upstreams) -> None:
    """A refused connection is a fault, and nothing was opened."""
    with pytest.raises(errors.Unreachable, match=r"Errno 111"):
        await fetched(upstreams, origin_of("up", f"http://127.0.0.1:{free_port()}"))
    assert upstreams.statistics() == {}


def test_families_take_turns() -> None:
    """The order as resolved, alternating between IPv6 and IPv4 while there are both."""
    four, six = socket.AF_INET, socket.AF_INET6
    given = [(six, "a"), (six, "b"), (six, "c"), (four, "d")]
    assert interleaved(given) == [(six, "a"), (four, "d"), (six, "b"), (six, "c")]
    assert interleaved([]) == []


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port whose accept queue is full: the kernel drops further SYNs."""
    with socket.socket() as listening, contextlib.ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield int(listening.getsockname()[1])


async def test_a_dead_address_does_not_hide_a_live_one() -> None:
    """Refusing and silent addresses are passed over within the one deadline."""
    with black_hole() as silent:
        async with serving(answering) as port:
            ports = (free_port(), silent, port)
            addresses = [(socket.AF_INET, ("127.0.0.1", each)) for each in ports]
            until = time.monotonic() + 1.0
            sock = await first_that_answers(addresses, until=until, receive_buffer=65536)
            with sock:
                assert sock.getpeername()[1] == port
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 65536  # Linux counts its own share
                assert time.monotonic() < until
            with pytest.raises(OSError, match=r"Errno 111.*no answer in its share"):
                await first_that_answers(addresses[:2], until=time.monotonic() + 0.1, receive_buffer=65536)


async def test_silence_is_a_timeout(upstreams: Upstreams) -> None:
    """When nobody answers the SYN, the connect deadline ends it, and the socket is gone."""
    with black_hole() as port:
        before = descriptors()
        heard = Heard()
        with pytest.raises(errors.ConnectTimeout):
            async with upstreams.open(origin_of("up", f"http://127.0.0.1:{port}"), GET, heard, connect=0.1):
                pass
        assert descriptors() == before
        assert upstreams.statistics() == {}


async def dialling(upstreams: Upstreams, origin: Origin) -> asyncio.Task[bytes]:
    return asyncio.get_running_loop().create_task(fetched(upstreams, origin))


async def test_cancelled_while_connecting(upstreams: Upstreams, until: Any) -> None:
    """A dial that is given up has closed its half-open socket by the time the task ends."""
    with black_hole() as port:
        before = descriptors()
        task = await dialling(upstreams, origin_of("up", f"http://127.0.0.1:{port}"))
        await until(lambda: descriptors() == before + 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert descriptors() == before
        assert upstreams.statistics() == {}


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_at_any_moment(upstreams: Upstreams, until: Any, turns: int) -> None:
    """However far the dial got, the books balance and no descriptor stays."""
    async with serving(answering) as port:
        before = descriptors()
        task = await dialling(upstreams, origin_of("up", f"http://127.0.0.1:{port}"))
        for _ in range(turns):
            await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        upstreams.close()
        found = upstreams.statistics().get("up")
        assert found is None or found.opened == found.closed
        await until(lambda: descriptors() == before)


async def test_cancelled_in_the_handshake(upstreams: Upstreams, until: Any) -> None:
    """A peer that accepts and never speaks TLS is hung up on at once."""
    seen = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        seen.set()

    async with serving(mute) as port:
        task = await dialling(upstreams, origin_of("up", f"https://127.0.0.1:{port}"))
        await until(lambda: "up" in upstreams.statistics())
        assert books(upstreams) == (1, 0, 0, 1, 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert books(upstreams) == (1, 1, 0, 0, 0)
        await asyncio.wait_for(seen.wait(), PATIENCE)
        with pytest.raises(errors.ConnectTimeout):
            async with upstreams.open(origin_of("up", f"https://127.0.0.1:{port}"), GET, Heard(), connect=0.05):
                pass
        assert books(upstreams) == (2, 2, 0, 0, 0)


async def test_an_upstream_that_hangs_up_at_once(upstreams: Upstreams) -> None:
    """Accepting and closing is a fault, whether it is seen before or after the request went out."""

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with serving(rude) as port:
        for _ in range(5):
            with pytest.raises((errors.Unreachable, errors.ClosedEarly, errors.Reset)):
                await fetched(upstreams, origin_of("up", f"http://127.0.0.1:{port}"))
        opened, closed, *rest = books(upstreams)
        assert (opened, rest) == (closed, [0, 0, 0])


async def test_a_lost_connection_is_noticed_before_use(upstreams: Upstreams) -> None:
    """A connection that is gone when its dial returns is not given a request."""
    closed = asyncio.Event()

    class Watching(Upstreams):
        def opened(self, connection: Any) -> None:
            super().opened(connection)
            asyncio.get_running_loop().call_soon(connection.eof_received)
            closed.set()

    watching = Watching()
    async with serving(answering) as port:
        with pytest.raises(errors.Unreachable, match="at once"):
            await fetched(watching, origin_of("up", f"http://127.0.0.1:{port}"))
    assert closed.is_set()
    assert books(watching) == (1, 1, 0, 0, 0)


async def test_tls_with_a_ca_of_ones_own(upstreams: Upstreams, tls: Any) -> None:
    """The host is the server name; the CA file decides whom to trust; connections are reused."""
    context, ca, asked = tls
    async with serving(answering, tls=context) as port:
        by_name = origin_of("up", f"https://localhost:{port}", ca_file=ca, server_name="engine.test")
        by_address = origin_of("up", f"https://127.0.0.1:{port}", ca_file=ca)
        for origin in (by_name, by_name, by_address):
            assert await fetched(upstreams, origin) == b"ok"
        assert asked == ["engine.test", None]
        assert books(upstreams) == (2, 0, 2, 0, 0)
        upstreams.close()


async def test_tls_that_is_not_trusted(upstreams: Upstreams, tls: Any, request: pytest.FixtureRequest) -> None:
    """A wrong CA, a wrong name, a CA file that is none, or no TLS at all: refused, with no byte of the request sent."""
    context, ca, _ = tls
    received = bytearray()

    async def listening(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1000):
            received.extend(chunk)

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    folder: Path = request.getfixturevalue("certificates")
    async with serving(listening, tls=context) as port, serving(plain) as other:
        url = f"https://127.0.0.1:{port}"
        for origin in (
            origin_of("up", url, ca_file=str(folder / "other.pem")),
            origin_of("up", url, ca_file=ca, server_name="evil.test"),
            origin_of("up", url, ca_file=str(folder / "names")),
            origin_of("up", url, ca_file=str(folder / "absent")),
            origin_of("up", f"https://127.0.0.1:{other}", ca_file=ca),
        ):
            with pytest.raises(errors.TlsRefused):
                await fetched(upstreams, origin)
        assert books(upstreams) == (3, 3, 0, 0, 0)
        assert not received


async def test_tls_unverified_on_purpose(upstreams: Upstreams, tls: Any) -> None:
    """`verify: false` takes any certificate."""
    async with serving(answering, tls=tls[0]) as port:
        assert await fetched(upstreams, origin_of("up", f"https://127.0.0.1:{port}", verify=False)) == b"ok"
        upstreams.close()


@pytest.mark.parametrize("proper", [True, False])
async def test_tls_says_whether_a_body_was_cut(upstreams: Upstreams, tls: Any, proper: bool) -> None:
    """A body that ends with the connection is whole only if the peer said so itself (close_notify)."""
    context, ca, _ = tls

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nsome text")
        await writer.drain()
        if proper:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async with serving(script, tls=context) as port:
        heard = Heard()
        async with upstreams.open(origin_of("up", f"https://127.0.0.1:{port}", ca_file=ca), GET, heard):
            fault = await asyncio.wait_for(heard.ended, PATIENCE)
        assert heard.body == b"some text"
        assert (fault is None) if proper else isinstance(fault, errors.Truncated)
        assert books(upstreams) == (1, 1, 0, 0, 0)


def one_answer_and_away(listening: socket.socket, context: ssl.SSLContext, answer: bytes, *, wait: bool) -> None:
    """What most servers do at the end: close_notify and FIN right behind the last byte, waiting for nothing."""
    accepted, _ = listening.accept()
    with context.wrap_socket(accepted, server_side=True) as sock:
        sock.settimeout(PATIENCE)
        sock.recv(65536)
        sock.sendall(answer)
        if wait:
            sock.recv(1)
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.unwrap()


async def slowly(upstreams: Upstreams, origin: Origin) -> Heard:
    """Pause after each read, for a few turns of the loop."""
    heard = Heard()
    async with upstreams.open(origin, GET, heard) as exchange:
        while not heard.ended.done():
            fed = asyncio.ensure_future(heard.fed.wait())  # noqa: TID251 - ended below
            await asyncio.wait([fed, heard.ended], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            fed.cancel()
            heard.fed.clear()
            exchange.pause()
            for _ in range(100):
                await asyncio.sleep(0)  # noqa: TID251 - turns of the loop, in which nothing may be lost
            exchange.resume()
    return heard


@pytest.mark.parametrize("pausing", [True, False])
@pytest.mark.parametrize("kept", [True, False])
async def test_tls_loses_nothing(upstreams: Upstreams, tls: Any, kept: bool, pausing: bool) -> None:
    """1 MB arrives whole, through pauses too, and when the peer closes right behind them."""
    context, ca, _ = tls
    body = random.Random(2).randbytes(1_000_000)
    length = b"content-length: %d\r\n" % len(body) if kept else b""
    answer = b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + body
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = asyncio.get_running_loop().run_in_executor(
            None, lambda: one_answer_and_away(listening, context, answer, wait=kept)
        )
        origin = origin_of("up", f"https://127.0.0.1:{listening.getsockname()[1]}", ca_file=ca)
        if pausing:
            heard = await slowly(upstreams, origin)
        else:
            heard = Heard()
            async with upstreams.open(origin, GET, heard):
                await asyncio.wait_for(asyncio.shield(heard.ended), PATIENCE)
        assert await heard.ended is None
        assert heard.body == body
        assert books(upstreams) == ((1, 0, 1, 0, 0) if kept else (1, 1, 0, 0, 0))
        upstreams.close()
        await served
