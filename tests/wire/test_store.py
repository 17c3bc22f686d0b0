"""The store against a real Redis: deadlines, connections that may not be used again, coming back by itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

import streamgate.store
from streamgate.store import Script, Store, Tasks, Unanswered
from tests.ports import free_port
from tests.redis_server import RedisServer, redis_server

pytestmark = pytest.mark.anyio

ECHO = Script("return ARGV[1]")
SLOW = Script("local n = 0 for i = 1, tonumber(ARGV[1]) do n = n + i end return n")
WRITE = Script("return redis.call('SET', KEYS[1], 1)")
BROKEN = Script("return redis.call('ZADD', KEYS[1])")


@pytest.fixture
def server(need: Callable[[str], str], tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(need("redis-server"), tmp_path) as started:
        yield started


async def test_a_script_is_known_by_its_digest(server: RedisServer) -> None:
    """A script is sent once; when Redis has forgotten it, it is sent again, and nobody notices."""
    async with Store(server.url) as store:
        assert await store.run(ECHO, [], [b"a"]) == b"a"
        server.client.script_flush()
        assert await store.run(ECHO, [], [b"b"]) == b"b"
        assert await store.run(ECHO, [], ["c"]) == b"c"
        assert server.client.info("commandstats")["cmdstat_eval"]["calls"] == 2


async def test_as_many_connections_as_allowed(server: RedisServer) -> None:
    """However many call at once, there are no more connections than allowed, and each gets its own answer."""
    async with Store(server.url, connections=3, timeout=5.0) as store:
        answers = await asyncio.gather(*(store.run(ECHO, [], [str(n)]) for n in range(200)))
        assert answers == [str(n).encode() for n in range(200)]
        assert len(server.client.client_list()) <= 3 + 1  # and the test's own


async def test_a_cancelled_call_leaves_its_answer_to_nobody(server: RedisServer) -> None:
    """Calls cancelled at any moment never give the next caller their answer, and never take a connection away."""
    async with Store(server.url, connections=2, timeout=5.0) as store:
        for turn in range(300):
            doomed = asyncio.get_running_loop().create_task(store.run(ECHO, [], [f"doomed {turn}"]))
            for _ in range(turn % 7):
                await checkpoint()
            doomed.cancel()
            assert await store.run(ECHO, [], [str(turn)]) == str(turn).encode()
            await asyncio.gather(doomed, return_exceptions=True)
        assert store.up


async def test_slow(server: RedisServer, until: Callable[..., Any]) -> None:
    """A call ends at its deadline; then others fail at once, until a probe is answered; no restart is needed."""
    async with Store(server.url, timeout=0.2) as store:
        assert await store.run(ECHO, [], ["1"]) == b"1"
        server.freeze()
        try:
            began = time.monotonic()
            with pytest.raises(Unanswered, match="in time") as caught:
                await store.run(ECHO, [], ["2"])
            assert caught.value.late
            assert 0.19 < time.monotonic() - began < 0.6  # uvloop counts in milliseconds
            began = time.monotonic()
            for _ in range(100):
                with pytest.raises(Unanswered) as caught:
                    await store.run(ECHO, [], ["3"])
                assert not caught.value.late
            assert time.monotonic() - began < 0.1
            assert not store.up
        finally:
            server.thaw()
        await until(lambda: store.up)
        assert (store.reconnects, store.trouble) == (1, "")
        assert await store.run(ECHO, [], ["4"]) == b"4"


async def test_a_slow_script_is_not_the_end(server: RedisServer, until: Callable[..., Any]) -> None:
    """One call that took too long costs others no more than until the next probe."""
    async with Store(server.url, timeout=0.05) as store:
        with pytest.raises(Unanswered):
            await store.run(SLOW, [], [30_000_000])
        await until(lambda: store.up)
        assert await store.run(ECHO, [], ["1"]) == b"1"


async def test_gone_and_back(server: RedisServer, until: Callable[..., Any]) -> None:
    """A Redis that was killed and started again is used again, and whoever asked to be told is told."""
    async with Store(server.url) as store:
        back = asyncio.Event()
        store.on_back(back.set)
        assert await store.run(ECHO, [], ["1"]) == b"1"
        server.kill()
        with pytest.raises(Unanswered, match="ConnectionError"):
            await store.run(ECHO, [], ["2"])
        await until(lambda: not store.up)
        server.start()
        async with asyncio.timeout(5):
            await back.wait()
        assert await store.run(ECHO, [], ["3"]) == b"3"


async def test_started_without_redis(server: RedisServer, until: Callable[..., Any]) -> None:
    """A store starts without its Redis, fails at once, and finds it when it is there."""
    server.kill()
    async with Store(server.url) as store:
        assert not store.up
        with pytest.raises(Unanswered, match="ConnectionError"):
            await store.run(ECHO, [], ["1"])
        server.start()
        await until(lambda: store.up)
        assert await store.run(ECHO, [], ["2"]) == b"2"


async def test_started_with_a_frozen_redis(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look at a Redis that does not answer is bounded."""
    monkeypatch.setattr(streamgate.store, "PROBE_TIMEOUT", 0.1)
    server.freeze()
    try:
        began = time.monotonic()
        async with Store(server.url) as store:
            assert time.monotonic() - began < 0.5
            assert (store.up, store.trouble) == (False, "it did not answer in time")
    finally:
        server.thaw()


async def test_idle_connections_that_were_closed(server: RedisServer) -> None:
    """Connections that the server closed while they were idle are replaced without a word."""
    async with Store(server.url, timeout=2.0) as store:
        await asyncio.gather(*(store.run(ECHO, [], ["1"]) for _ in range(5)))
        server.client.client_kill_filter(_type="normal", skipme=True)
        assert await asyncio.gather(*(store.run(ECHO, [], ["2"]) for _ in range(5))) == [b"2"] * 5
        assert store.up and store.reconnects == 0


async def test_refused(server: RedisServer) -> None:
    """What Redis refuses fails by itself, on a connection that is used again."""
    async with Store(server.url, connections=1) as store:
        with pytest.raises(Unanswered, match="ResponseError"):
            await store.run(BROKEN, ["k"], [])
        assert store.up
        assert await store.run(ECHO, [], ["1"]) == b"1"
        assert len(server.client.client_list()) == 2


async def test_no_longer_the_master(server: RedisServer, until: Callable[..., Any]) -> None:
    """A Redis that became a replica is left and looked for again: the address may lead to the new master."""
    async with Store(server.url) as store:
        assert await store.run(WRITE, [b"k"], []) == b"OK"
        server.client.replicaof("127.0.0.1", "1")
        with pytest.raises(Unanswered, match="ReadOnlyError"):
            await store.run(WRITE, [b"k"], [])
        assert not store.up
        server.client.replicaof("no", "one")
        await until(lambda: store.up)
        assert await store.run(WRITE, [b"k"], []) == b"OK"


async def test_another_node_of_the_cluster(
    need: Callable[[str], str], tmp_path: Path, until: Callable[..., Any]
) -> None:
    """Where a Redis Cluster keeps our keys on another node, calls go there."""
    program = need("redis-server")
    files = ("one.conf", "two.conf")
    with (
        redis_server(program, tmp_path, "--cluster-enabled", "yes", "--cluster-config-file", files[0]) as one,
        redis_server(program, tmp_path, "--cluster-enabled", "yes", "--cluster-config-file", files[1]) as two,
    ):
        assert one.client.execute_command("CLUSTER ADDSLOTSRANGE 0 8191")
        assert two.client.execute_command("CLUSTER ADDSLOTSRANGE 8192 16383")
        assert one.client.execute_command(f"CLUSTER MEET 127.0.0.1 {two.port}")
        for node in (one, two):
            await until(lambda n=node: n.client.cluster("info")["cluster_state"] == "ok", 20)
        for key in (b"{a}k", b"{b}k"):  # slots 15495 and 3300
            async with Store(one.url, timeout=2.0) as store:
                assert await store.run(WRITE, [key], []) == b"OK"
                assert await store.run(WRITE, [key], []) == b"OK"
        async with Store(one.url, timeout=2.0) as store:
            assert await store.run(WRITE, [b"{a}k"], []) == b"OK"
            two.kill()
            with pytest.raises(Unanswered):
                await store.run(WRITE, [b"{a}k"], [])
            await until(lambda: store.up)  # where it was told to look


async def test_messages(server: RedisServer) -> None:
    """A subscription hears every message, and b"" when it begins and whenever it had to begin again."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    async with Store(server.url) as store, asyncio.timeout(10):
        store.subscribe(b"news", heard.put_nowait)
        assert await heard.get() == b""
        server.client.publish("news", "one")
        server.client.publish("news", "two")
        assert [await heard.get(), await heard.get()] == [b"one", b"two"]
        server.client.client_kill_filter(_type="pubsub")
        assert await heard.get() == b""
        server.client.publish("news", "three")
        assert await heard.get() == b"three"


async def test_a_silent_subscription(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Any]
) -> None:
    """After a silence the server is asked; one that does not answer is left, and subscribed to again."""
    monkeypatch.setattr(streamgate.store, "QUIET", 0.05)
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    async with Store(server.url) as store, asyncio.timeout(10):
        store.subscribe(b"news", heard.put_nowait)
        assert await heard.get() == b""
        pings = "cmdstat_ping"
        await until(lambda: server.client.info("commandstats")[pings]["calls"] > 5)
        assert heard.empty()
        server.freeze()
        try:
            gone = asyncio.get_running_loop().create_task(heard.get())
            done, _ = await asyncio.wait((gone,), timeout=0.3)
            assert not done
        finally:
            server.thaw()
        assert await gone == b""


@pytest.mark.parametrize(
    "url",
    ["", "http://x", "redis://:sesame/open@h:1/0", "redis://h:x", "redis://:sesame@h:70000", "redis://h?sesame=1",
     "unix:///tmp/sesame", "redis://h?db=sesame"],
)  # fmt: skip
async def test_a_wrong_url(url: str) -> None:
    """A URL that is none says what was expected, and repeats nothing of it."""
    with pytest.raises(ValueError, match="expected redis://") as caught:
        Store(url)
    assert "sesame" not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_passwords_stay_inside(need: Callable[[str], str], tmp_path: Path) -> None:
    """A password is used, and is in no message and no repr; a wrong one is a store that is away."""
    with redis_server(need("redis-server"), tmp_path, "--requirepass", "sesame") as server:
        right = f"redis://:sesame@127.0.0.1:{server.port}"
        async with Store(right) as store:
            assert await store.run(ECHO, [], ["1"]) == b"1"
            assert "sesame" not in repr(store) + str(store)
        wrong = f"redis://user:open-sesame@127.0.0.1:{server.port}"
        async with Store(wrong) as store:
            with pytest.raises(Unanswered) as caught:
                await store.run(ECHO, [], ["1"])
            assert store.trouble == str(caught.value) == "AuthenticationError"
            assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.fixture
def certificate(need: Callable[[str], str], tmp_path: Path) -> tuple[Path, Path]:
    """One for localhost, signed by itself, and its key."""
    path, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = (
        f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} -out {path} "
        "-days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([need("openssl"), *command.split()], check=True, capture_output=True)
    return path, key


async def test_tls(need: Callable[[str], str], tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """rediss:// is TLS, and the certificate is verified."""
    path, key = certificate
    port = free_port()
    options = f"--tls-port {port} --tls-cert-file {path} --tls-key-file {key} --tls-auth-clients no".split()
    with redis_server(need("redis-server"), tmp_path, *options):
        async with Store(f"rediss://localhost:{port}?ssl_ca_certs={path}", timeout=2.0) as store:
            assert await store.run(ECHO, [], ["1"]) == b"1"
        async with Store(f"rediss://localhost:{port}") as store:
            assert (store.up, store.trouble) == (False, "ConnectionError")


async def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redis-py, a store says which extra is wanted; nothing else needs it."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(RuntimeError, match=r"streamgate\[redis\]"):
        Store("redis://localhost")


async def test_a_task_that_fails_is_heard_of() -> None:
    """A task that ends by a bug is reported to the loop at once, not when it is collected."""
    reported: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.put_nowait(context))

    async def fail() -> None:
        raise ZeroDivisionError

    tasks = Tasks()
    tasks.start(fail())
    async with asyncio.timeout(5):
        assert isinstance((await reported.get())["exception"], ZeroDivisionError)
    await tasks.close()
    await tasks.close()
