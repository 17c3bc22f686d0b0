"""The queue and its thread: bounded, in order, never waited for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from streamgate_audit.plugin import Known
from streamgate_audit.trail import Trail
from streamgate_audit.writer import RETRY, SECOND, Bounds, Writer

pytestmark = pytest.mark.anyio


class Slow(Trail):
    """A disk that stops, fails, and counts."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), max_size=0, max_age=0.0, keep=0)
        self.free = threading.Event()
        self.free.set()
        self.entered = threading.Event()
        self.full = False
        self.synced = threading.Event()
        self.syncs = 0

    def append(self, lines: bytes, at: float) -> None:
        self.entered.set()
        assert self.free.wait(10.0)
        if self.full:
            raise OSError(28, "No space left on device")
        super().append(lines, at)

    def sync(self) -> None:
        super().sync()
        self.syncs += 1
        self.synced.set()


class Setting:
    def __init__(self, path: Path, lines: int, size: int, sync: Any, now: Any = None) -> None:
        self.path = path
        self.disk = Slow(path)
        self.at = 0.0
        self.told: list[str] = []
        self.writer = Writer(
            self.disk, Bounds(lines, size), sync, now=now or (lambda: self.at), wall=lambda: 0.0, told=self.told.append
        )

    def put(self, number: int, size: int = 0) -> bool:
        return self.writer.put(Known({"n": number}, size))

    @property
    def lines(self) -> list[int]:
        """Numbers; what is said of missing lines as less than 0."""
        found = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line["n"] if "n" in line else -line["count"] for line in found]


@asynccontextmanager
async def working(
    path: Path, lines: int = 10, size: int = 100, sync: Any = "never", now: Any = None
) -> AsyncIterator[Setting]:
    setting = Setting(path / "audit.jsonl", lines, size, sync, now)
    setting.writer.start()
    try:
        yield setting
    finally:
        setting.disk.free.set()
        await setting.writer.close()


async def wait_for(event: threading.Event) -> None:
    assert await anyio.to_thread.run_sync(event.wait, 5.0)


async def test_lines_are_written_in_order_and_at_the_end_all_of_them(tmp_path: Path):
    """Closing waits for the last."""
    async with working(tmp_path, lines=5000) as setting:
        assert all(setting.put(number) for number in range(3000))
    assert setting.lines == list(range(3000))


async def test_what_does_not_fit_is_dropped_at_once_and_the_file_says_how_much(tmp_path: Path):
    """A disk that hangs holds up nobody; by lines or by bytes."""
    async with working(tmp_path, lines=3) as setting:
        setting.disk.free.clear()
        setting.put(0)
        await wait_for(setting.disk.entered)
        assert [setting.put(number) for number in range(1, 6)] == [True, True, False, False, False]
        setting.disk.free.set()
    assert setting.lines == [0, 1, 2, -3]
    async with working(tmp_path, size=100) as setting:
        assert not setting.put(0, size=101)
    assert setting.lines[-1] == -1


async def test_bytes_are_free_again_when_they_are_written(tmp_path: Path):
    """The bound is of what waits."""
    async with working(tmp_path, size=100, sync="batch") as setting:
        for number in range(5):
            assert setting.put(number, size=100)
            await wait_for(setting.disk.synced)
            setting.disk.synced.clear()
    assert setting.lines == list(range(5))


async def test_lines_wait_while_the_disk_is_full_and_are_written_once(tmp_path: Path):
    """It is told when it begins and when it is over."""
    async with working(tmp_path) as setting:
        setting.disk.full = True
        setting.put(0)
        with anyio.fail_after(5):
            while not setting.told:
                await anyio.lowlevel.checkpoint()
        setting.put(1)
        setting.disk.full = False
        setting.at += RETRY
    assert setting.lines == [0, 1]
    await anyio.lowlevel.checkpoint()
    assert setting.told == ["OSError: No space left on device", ""]


async def test_what_cannot_be_written_at_the_end_is_counted(tmp_path: Path):
    """Closing tries once more, and does not wait for a disk to be cleaned up."""
    async with working(tmp_path) as setting:
        setting.disk.full = True
        setting.put(0), setting.put(1)
        assert await setting.writer.close() == 2


@pytest.mark.parametrize(("sync", "expected"), [("never", 0), ("batch", 2), ("second", 1)])
async def test_lines_are_forced_to_the_disk_as_the_setting_says(tmp_path: Path, sync: str, expected: int):
    """Never; after each write; or once a second and at the end."""
    async with working(tmp_path, sync=sync) as setting:
        for number in range(2):
            setting.put(number)
            with anyio.fail_after(5):
                while len(setting.lines) <= number:
                    await anyio.lowlevel.checkpoint()
            if sync == "batch":
                await wait_for(setting.disk.synced)
                setting.disk.synced.clear()
    assert setting.disk.syncs == expected


async def test_a_second_after_a_write_it_is_on_the_disk_without_another_one(tmp_path: Path):
    """The thread wakes for that alone."""
    async with working(tmp_path, sync="second", now=time.monotonic) as setting:
        began = time.monotonic()
        setting.put(0)
        await wait_for(setting.disk.synced)
        assert time.monotonic() - began >= SECOND
    assert setting.disk.syncs == 1


async def test_a_loop_that_is_gone_is_not_told(tmp_path: Path):
    """A thread may outlive it."""
    setting = Setting(tmp_path / "a", 10, 100, "never")

    async def start() -> None:
        setting.writer.start()

    await anyio.to_thread.run_sync(anyio.run, start)
    setting.disk.full = True
    setting.put(0)
    assert await setting.writer.close() == 1
    assert setting.told == []
