"""The example postgres_notify, with a real PostgreSQL of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from httpx_sse import aconnect_sse

pytestmark = pytest.mark.anyio


class Postgres:
    """A PostgreSQL in a folder of its own, reached by a unix socket there; it takes less than two seconds to make."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self.dsn = f"postgresql://postgres@/postgres?host={folder}"
        self._programs = programs
        self._folder = folder
        self._user = user
        self._server: subprocess.Popen[str] | None = None

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        """It refuses to run as root."""
        return subprocess.Popen(
            [self._programs / program, "-D", self._folder / "cluster", *arguments],
            user=self._user, group=self._user and pwd.getpwnam(self._user).pw_gid, extra_groups=self._user and [],
            cwd=self._folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def create(self) -> None:
        making = self._run("initdb", "-U", "postgres", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8")
        said, _ = making.communicate()
        assert making.returncode == 0, said

    def start(self) -> None:
        # -F: no fsync, for nothing is to survive
        server = self._server = self._run("postgres", "-F", "-k", str(self._folder), "-c", "listen_addresses=")
        said = []
        for line in server.stdout or ():
            said.append(line)
            if "ready to accept connections" in line:
                return
        raise AssertionError("".join(said))

    def stop(self) -> None:
        """End it, its children, and the connections of its clients; may be called again."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.communicate(timeout=20)
            self._server = None


def programs(need) -> Path:
    """Where initdb and postgres are; Debian has a folder per version, which is not on the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return (versions[-1] if versions else Path(need("initdb")).resolve()).parent


@pytest.fixture
def postgres(need) -> Iterator[Postgres]:
    where = programs(need)
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path(
        tempfile.mkdtemp(prefix="pg-")
    )  # not tmp_path: that is closed to other users, and too long for a socket
    if user:
        shutil.chown(folder, user)
    server = Postgres(where, folder, user)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def anyio_backend():
    return "asyncio"  # the event loop that matters is the example's


async def test_a_notification_reaches_every_client(running, postgres):
    """From POST /notify or from any other session of the database, in order, also text of several lines."""
    with running("postgres_notify", DSN=postgres.dsn) as url:
        async with (
            httpx.AsyncClient(base_url=url) as client,
            aconnect_sse(client, "GET", "/events") as one,
            aconnect_sse(client, "GET", "/events") as other,
        ):
            assert (await client.post("/notify", content="first")).status_code == 204
            connection = await asyncpg.connect(postgres.dsn)
            await connection.execute("NOTIFY news, 'zweite\nZeile'")
            listeners = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            await connection.close()
            for source in (one, other):
                events = source.aiter_sse()
                assert [(await anext(events)).data for _ in range(2)] == ["first", "zweite\nZeile"]
            assert listeners == 1


async def test_a_lost_connection_is_opened_again(running, postgres):
    """Clients stay connected, are told of the gap when it is listening again, and get what comes from then on."""
    with running("postgres_notify", DSN=postgres.dsn, RETRY="0.05") as url:
        async with httpx.AsyncClient(base_url=url) as client, aconnect_sse(client, "GET", "/events") as source:
            events = source.aiter_sse()
            connection = await asyncpg.connect(postgres.dsn)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            )
            await connection.close()
            assert (await anext(events)).event == "gap"
            await client.post("/notify", content="again")
            assert (await anext(events)).data == "again"


async def test_the_database_may_be_restarted(running, postgres):
    """While it is away, a notification is refused with 503; afterwards everything goes on by itself."""
    with running("postgres_notify", DSN=postgres.dsn, RETRY="0.05") as url:
        async with httpx.AsyncClient(base_url=url) as client, aconnect_sse(client, "GET", "/events") as source:
            events = source.aiter_sse()
            postgres.stop()
            refused = await client.post("/notify", content="too early")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            postgres.start()
            assert (await anext(events)).event == "gap"
            await client.post("/notify", content="back")
            assert (await anext(events)).data == "back"


async def test_what_postgresql_does_not_take_is_refused(running, postgres):
    """A payload that is too long, not UTF-8, or has a NUL in it is the client's mistake: 422."""
    with running("postgres_notify", DSN=postgres.dsn) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            for payload, status in [(b"x" * 7999, 204), (b"x" * 8000, 422), (b"a\0b", 422), (b"\xff", 422), (b"", 204)]:
                assert (await client.post("/notify", content=payload)).status_code == status
