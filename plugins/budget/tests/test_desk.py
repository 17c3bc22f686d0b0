"""The desk: charges are written together, kept while the store is away, and never half counted."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
import pytest
from streamgate_budget.amounts import NOTHING, Account, Amount, Unavailable
from streamgate_budget.books import Batch
from streamgate_budget.desk import RETRY, Desk

pytestmark = pytest.mark.anyio
DAY = Account("acme", "day", 0, 86400)
HOUR = Account("acme", "hour", 0, 3600)
ONE = Amount(1, 1, 1)


class Memory:
    """Books that are away, or as slow, as a test wants."""

    def __init__(self) -> None:
        self.sums: dict[Account, Amount] = {}
        self.batches: list[Batch] = []  # as tried
        self.away = False
        self.closed = False
        self.free = threading.Event()
        self.free.set()

    def open(self) -> None:
        if self.away:
            raise OSError("no such folder")

    def write(self, batch: Batch) -> None:
        self.batches.append(batch)
        self._wait()
        for account, amount in batch.charges.items():
            self.sums[account] = self.sums.get(account, NOTHING).plus(amount)

    def read(self, accounts: Iterable[Account]) -> dict[Account, Amount]:
        self._wait()
        return {account: self.sums.get(account, NOTHING) for account in accounts}

    def close(self) -> None:
        self.closed = True

    def _wait(self) -> None:
        assert self.free.wait(10.0)
        if self.away:
            raise Unavailable("away")


class Setting:
    """A desk, its books, and what it was told."""

    def __init__(self, patience: float = 5.0) -> None:
        self.books = Memory()
        self.at = 0.0
        self.failures: list[str] = []
        self.desk = Desk(self.books, patience=patience, now=lambda: self.at, failed=self.failures.append)


@asynccontextmanager
async def working(patience: float = 5.0) -> AsyncIterator[Setting]:
    setting = Setting(patience)
    await setting.desk.start()
    try:
        yield setting
    finally:
        setting.books.free.set()
        await setting.desk.close()
        assert setting.books.closed


async def test_whoever_asks_after_a_charge_sees_it():
    """Both go through one thread, in order."""
    async with working() as setting:
        for number in range(1, 20):
            setting.desk.add(DAY, ONE)
            assert await setting.desk.spent([DAY]) == {DAY: Amount(number, number, number)}


async def test_what_comes_while_a_batch_is_written_is_one_batch():
    """A hundred ends cost two transactions, however slow the disk is."""
    async with working() as setting:
        setting.books.free.clear()
        setting.desk.add(DAY, ONE)
        with anyio.fail_after(5):
            while not setting.books.batches:
                await anyio.lowlevel.checkpoint()
        for _ in range(100):
            setting.desk.add(DAY, ONE)
        setting.books.free.set()
        assert (await setting.desk.spent([DAY]))[DAY].requests == 101
        assert [batch.charges for batch in setting.books.batches] == [{DAY: ONE}, {DAY: Amount(100, 100, 100)}]


async def test_a_batch_that_failed_is_tried_again_under_its_own_id_and_no_sum_is_told_before():
    """A sum without it would be too small; what comes later is another batch."""
    async with working() as setting:
        setting.books.away = True
        setting.desk.add(DAY, ONE)
        with pytest.raises(Unavailable, match="away"):
            await setting.desk.spent([DAY])
        setting.desk.add(DAY, ONE)
        setting.books.away = False
        with pytest.raises(Unavailable):  # left alone for RETRY seconds: nobody waits for a store that is away
            await setting.desk.spent([DAY])
        assert len(setting.books.batches) == 1
        setting.at += RETRY
        assert (await setting.desk.spent([DAY]))[DAY].requests == 2
        first, again, later = setting.books.batches
        assert first == again and first.id != later.id
        assert setting.failures == ["away"]


async def test_a_batch_is_tried_again_without_being_asked():
    """Other workers wait for its charges."""
    async with working() as setting:
        setting.books.away = True
        setting.desk.add(DAY, ONE)
        with pytest.raises(Unavailable):
            await setting.desk.spent([HOUR])
        setting.books.away = False
        setting.at += RETRY
        with anyio.fail_after(5):
            while not setting.books.sums:
                await anyio.lowlevel.checkpoint()


async def test_an_answer_that_takes_too_long_is_none():
    """A disk that hangs holds up nobody's request for longer than `patience`."""
    async with working(patience=0.02) as setting:
        setting.books.free.clear()
        with pytest.raises(Unavailable, match="in time"):
            await setting.desk.spent([DAY])


async def test_closing_writes_what_is_left_and_gives_back_what_could_not_be_written():
    """The last charges of a process are not lost while the store is there; else it is said how much was."""
    async with working() as setting:
        setting.desk.add(DAY, ONE)
    assert setting.books.sums == {DAY: ONE}
    async with working() as setting:
        setting.books.away = True
        setting.desk.add(DAY, ONE)
        with pytest.raises(Unavailable):
            await setting.desk.spent([DAY])
        setting.desk.add(DAY, ONE)
        setting.desk.add(HOUR, ONE)
        assert await setting.desk.close() == {DAY: Amount(2, 2, 2), HOUR: ONE}


async def test_books_that_do_not_open_are_an_error_at_the_start():
    """And nothing is left running."""
    setting = Setting()
    setting.books.away = True
    with pytest.raises(OSError, match="no such folder"):
        await setting.desk.start()
    assert await setting.desk.close() == {}


async def test_an_end_after_the_last_loop_is_nobody_s():
    """A thread that outlives its event loop has nobody to tell."""
    setting = Setting()

    def other_loop() -> None:
        anyio.run(setting.desk.start)

    await anyio.to_thread.run_sync(other_loop)
    setting.books.away = True
    setting.desk.add(DAY, ONE)
    assert await setting.desk.close() == {DAY: ONE}
    assert setting.failures == []
