"""A token issuer's keys: a real server, a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from streamgate.admission import jwks
from streamgate.admission.jwks import KEPT, SPACING, KeySet, from_file, from_url, keys_in
from tests.tokens import Issuer, Served, served

pytestmark = pytest.mark.anyio

ISSUER = Issuer()


class Time:
    """Seconds."""

    def __init__(self) -> None:
        self.now = 5.0  # a machine that was started just now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(jwks, "monotonic", time)
    return time


@pytest.fixture
def server() -> Iterator[Served]:
    with served(ISSUER.jwks("rsa", "ec")) as started:
        yield started


class Kept:
    """A key set of the server's, and what it said of failures."""

    def __init__(self, server: Served) -> None:
        self.failed: list[str] = []
        self.set = KeySet(partial(from_url, server.url), failed=self.failed.append)

    async def kids(self, kid: str | None) -> list[Any]:
        return [key["kid"] for key in await self.set.candidates(kid)]


async def test_keys_are_fetched_once_and_kept(server: Served, time: Time, until: Any) -> None:
    """The first token fetches them; much later they are fetched again, and nobody waits for that."""
    kept = Kept(server)
    assert await kept.kids("rsa") == ["rsa"] and await kept.kids("ec") == ["ec"]
    time.now += KEPT - 1
    assert await kept.kids("rsa") == ["rsa"] and server.asked == 1
    server.body = ISSUER.jwks("ec")
    time.now += 2
    assert await kept.kids("rsa") == ["rsa"]
    await until(lambda: kept.set.reachable and len(kept.set.keys) == 1)
    assert await kept.kids("ec") == ["ec"] and await kept.kids("rsa") == [] and server.asked == 2


async def test_an_unknown_key_is_looked_for_once_in_a_while(server: Served, time: Time) -> None:
    """An issuer that changed its keys is noticed; one who makes key ids up does not make us ask."""
    kept = Kept(server)
    assert await kept.kids("ed") == [] and await kept.kids("new") == [] and server.asked == 1
    server.body = ISSUER.jwks("rsa", "ec", "ed")
    time.now += SPACING - 1
    assert await kept.kids("ed") == [] and server.asked == 1
    assert kept.set.retry_after() == 1.0
    time.now += 1
    assert await kept.kids("ed") == ["ed"] and server.asked == 2


async def test_without_a_key_id_only_one_key_is_clear(server: Served, time: Time) -> None:
    """Trying them all would be guessing."""
    kept = Kept(server)
    assert await kept.kids(None) == []
    server.body = ISSUER.jwks("ec")
    time.now += SPACING
    assert await kept.kids(None) == ["ec"]


async def test_an_issuer_that_is_down_leaves_the_keys_in_force(server: Served, time: Time, until: Any) -> None:
    """They are old, but they are the best there is; nobody waits for better ones."""
    kept = Kept(server)
    assert await kept.kids("rsa") == ["rsa"]
    server.status = 500
    time.now += KEPT
    assert await kept.kids("rsa") == ["rsa"]
    await until(lambda: kept.failed)
    assert await kept.kids("rsa") == ["rsa"] and not kept.set.reachable
    assert (kept.failed, kept.set.failures, server.asked) == (["HTTPError"], 1, 2)


async def test_all_wait_for_the_same_fetch(server: Served, time: Time) -> None:
    """However many come at once, and even when the first of them leaves."""
    server.go.clear()
    kept = Kept(server)
    async with asyncio.TaskGroup() as tasks:
        first, *others = [tasks.create_task(kept.kids("rsa")) for _ in range(5)]
        await asyncio.to_thread(server.arrived.wait, 5)
        first.cancel()
        server.go.set()
    assert [task.result() for task in others] == [["rsa"]] * 4 and server.asked == 1


async def test_a_fetch_that_takes_long_is_not_waited_for(
    server: Served, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many seconds there are no keys."""
    monkeypatch.setattr(jwks, "PATIENCE", 0.05)
    server.go.clear()
    kept = Kept(server)
    assert await kept.kids("rsa") == [] and not kept.set.reachable


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"keys":{}}',
        b'{"key":[]}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"keys":[' + b" " * jwks.MAX_SIZE + b"]}",
    ],
    ids=range(8),
)
async def test_what_is_no_key_set_is_not_taken(server: Served, time: Time, body: bytes) -> None:
    """The keys stay as they were; none in this case."""
    server.body = body
    kept = Kept(server)
    assert await kept.kids("rsa") == []
    assert kept.set.failures == len(kept.failed) == 1


async def test_redirects_are_not_followed(server: Served, time: Time) -> None:
    """The address is the operator's word; an answer that leads elsewhere is an error."""
    with served(ISSUER.jwks()) as elsewhere:
        server.status, server.headers = 302, {"location": elsewhere.url}
        assert await Kept(server).kids("rsa") == []
        assert not elsewhere.asked


async def test_nobody_there(time: Time) -> None:
    """A refused connection is a failure like any other."""
    with served(b"") as gone:
        pass
    kept = Kept(gone)
    assert await kept.kids("rsa") == [] and kept.failed == ["URLError"]


async def test_bytes_that_are_not_http(time: Time) -> None:
    """The failure is said by its kind: what the issuer said may be anything."""

    async def garbled(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"sg-secret-in-garbage\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(garbled, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        failed: list[str] = []
        assert not await KeySet(partial(from_url, url), failed=failed.append).candidates("rsa")
    assert failed == ["ValueError"]


def test_a_set_that_drips_is_given_up(server: Served, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole fetch has its time, not each read."""
    monkeypatch.setattr(jwks, "PATIENCE", 2.0)
    server.body = ISSUER.jwks()
    ticks = iter([0.0, *range(1, 100)])
    monkeypatch.setattr(jwks, "monotonic", lambda: next(ticks) * 3.0)
    with pytest.raises(ValueError, match="slow"):
        from_url(server.url)


def test_only_public_signing_keys_are_taken(tmp_path: Path) -> None:
    """A symmetric key in a public set would let everybody sign; one for encryption signs nothing."""
    rsa, ec = ISSUER.public("rsa"), ISSUER.public("ec")
    oct_key = {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"}
    text = b'{"keys":%b}' % json.dumps([rsa, ec | {"use": "enc"}, oct_key, 7, {"kid": "none"}]).encode()
    assert [key["kid"] for key in keys_in(text)] == ["rsa"]
    (tmp_path / "jwks.json").write_bytes(text)
    assert from_file(str(tmp_path / "jwks.json")) == text
