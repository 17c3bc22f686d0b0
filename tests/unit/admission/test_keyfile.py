"""Keys from a file that changes: real files, real links."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import pytest

from streamgate.admission import keyfile
from streamgate.admission.identity import Identity
from streamgate.admission.keyfile import KeyFile
from streamgate.admission.keys import StaticKey

pytestmark = pytest.mark.anyio


def parse(content: bytes) -> Iterable[StaticKey]:
    """A key a line; `?` is a mistake."""
    if b"?" in content:
        raise ValueError("expected no question")
    return [StaticKey(sha256(line).digest(), Identity(key=line.decode())) for line in content.splitlines()]


class Watched:
    """A key file, a clock that the test moves, and what was said."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.now = 100.0
        self.said: list[str] = []
        self.parsed = 0
        monkeypatch.setattr(keyfile, "monotonic", lambda: self.now)

        def counted(content: bytes) -> Iterable[StaticKey]:
            self.parsed += 1
            return parse(content)

        self.file = KeyFile(str(path), counted, accepted=lambda: self.said.append("read"), refused=self.said.append)

    async def knows(self, key: bytes, later: float = 1.0) -> bool:
        self.now += later
        return (await self.file.current()).find(sha256(key).digest()) is not None


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    (tmp_path / "keys").write_bytes(b"one\n")
    return Watched(tmp_path / "keys", monkeypatch)


async def test_a_change_is_seen_within_a_second(watched: Watched) -> None:
    """Whoever asks after that has the new keys, and only those."""
    assert await watched.knows(b"one")
    watched.path.write_bytes(b"two\n")
    assert await watched.knows(b"one", later=0.9)
    assert await watched.knows(b"two", later=0.1)
    assert not await watched.knows(b"one")
    assert watched.said == ["read"] and watched.file.reads == 2


async def test_a_link_that_is_swapped_is_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Kubernetes does with a ConfigMap: the name in the middle points elsewhere, size and time may be the same."""
    for name, key in (("a", b"one\n"), ("b", b"two\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_bytes(key)
        os.utime(tmp_path / name / "keys", (1_000_000_000, 1_000_000_000))
    (tmp_path / "data").symlink_to("a")
    (tmp_path / "keys").symlink_to("data/keys")
    watched = Watched(tmp_path / "keys", monkeypatch)
    assert await watched.knows(b"one")
    (tmp_path / "new").symlink_to("b")
    (tmp_path / "new").replace(tmp_path / "data")
    assert await watched.knows(b"two")
    assert not await watched.knows(b"one")


async def test_a_write_within_the_same_tick_is_not_missed(watched: Watched) -> None:
    """A file that was written a moment ago may be written again without another time or size."""
    stat = watched.path.stat()
    watched.path.write_bytes(b"two\n")
    os.utime(watched.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert await watched.knows(b"two")


async def test_a_file_that_rests_is_not_read(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stat a second is all that it costs."""
    os.utime(watched.path, (1_000_000_000, 1_000_000_000))
    assert await watched.knows(b"one")
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    assert await watched.knows(b"one")
    assert await watched.knows(b"one", later=60.0)
    assert watched.parsed == 1 and not watched.said


async def test_a_broken_file_changes_nothing(watched: Watched) -> None:
    """It is said once, and again when it is broken otherwise; when it is whole again its keys are taken."""
    watched.path.write_bytes(b"two?\n")
    assert await watched.knows(b"one") and await watched.knows(b"one")
    assert watched.said == ["expected no question"]
    watched.path.unlink()
    assert await watched.knows(b"one") and await watched.knows(b"one")
    assert watched.said[1:] == ["it cannot be read (No such file or directory)"]
    watched.path.write_bytes(b"two?\n")
    assert await watched.knows(b"one")
    assert watched.said[2:] == ["expected no question"]
    assert watched.file.refusals == 3 and watched.parsed == 2
    watched.path.write_bytes(b"two\n")
    assert await watched.knows(b"two")
    assert watched.said[3:] == ["read"]


async def test_whoever_notices_waits_and_nobody_else(watched: Watched) -> None:
    """A large file is parsed in a thread: others go on with the keys they have, a second later they wait as well."""
    started, go = threading.Event(), threading.Event()

    def slow(content: bytes) -> Iterable[StaticKey]:
        started.set()
        assert go.wait(5)
        return parse(content)

    watched.file._parse = slow
    watched.path.write_bytes(b"two\n")
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(watched.knows(b"two"))
        await asyncio.to_thread(started.wait, 5)
        assert await watched.knows(b"one", later=0.1)
        second = tasks.create_task(watched.knows(b"two"))
        left = tasks.create_task(watched.knows(b"two"))
        await asyncio.wait((second,), timeout=0.01)
        left.cancel()
        assert not first.done() and not second.done()
        go.set()
    assert first.result() and second.result()
    assert watched.said == ["read"]


async def test_one_that_waited_long_enough_goes_on(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the old keys: a disk that hangs is no reason to refuse everybody."""
    monkeypatch.setattr(keyfile, "PATIENCE", 0.01)
    go = threading.Event()

    def slow(content: bytes) -> Iterable[StaticKey]:
        assert go.wait(5)
        return parse(content)

    watched.file._parse = slow
    watched.path.write_bytes(b"two\n")
    assert await watched.knows(b"one")
    go.set()
    monkeypatch.setattr(keyfile, "PATIENCE", 5.0)
    assert await watched.knows(b"two")


def test_without_keys_nothing_begins(tmp_path: Path) -> None:
    """A file that is not there, or broken, when the gateway starts."""

    def made() -> KeyFile:
        return KeyFile(str(tmp_path / "keys"), parse, accepted=lambda: None, refused=lambda _: None)

    with pytest.raises(OSError, match="No such file"):
        made()
    (tmp_path / "keys").write_bytes(b"?")
    with pytest.raises(ValueError, match="question"):
        made()
