"""The one thread that asks the store: charges are summed and written together, and nobody's stream waits for it.

Whatever comes while a batch is being written is the next batch. A batch that failed is kept and tried again, and until
it is written no sum is given out: it would be too small.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from streamgate_budget.amounts import NOTHING, Account, Amount, Unavailable
from streamgate_budget.books import Batch, Books

RETRY = 0.5  # s after a failure, in which everybody is told at once and the store is left alone

Sums = dict[Account, Amount]


class Question(NamedTuple):
    """Which sums somebody waits for."""

    accounts: tuple[Account, ...]
    answer: asyncio.Future[Sums]


class Desk:
    """`patience` in seconds bounds every answer; `failed` is called in the event loop with what went wrong."""

    def __init__(
        self, books: Books, *, patience: float, now: Callable[[], float], failed: Callable[[str], None]
    ) -> None:
        self._books = books
        self._patience = patience
        self._now = now
        self._failed = failed
        self._wake = threading.Condition()
        self._unwritten: Sums = {}
        self._questions: list[Question] = []
        self._closing = False
        self._batch: Batch | None = None  # the thread's: being written, or to be tried again
        self._away_until = 0.0  # the thread's
        self._why = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Open the store, in the thread; raises what that raises."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="streamgate-budget", daemon=True)
        self._thread.start()
        await opened

    def add(self, account: Account, amount: Amount) -> None:
        """Charge an account; never waits."""
        with self._wake:
            self._unwritten[account] = self._unwritten.get(account, NOTHING).plus(amount)
            self._wake.notify()

    async def spent(self, accounts: Iterable[Account]) -> Sums:
        """The sums of all workers as they are now, this one's charges included. Raises `Unavailable`."""
        answer: asyncio.Future[Sums] = asyncio.get_running_loop().create_future()
        with self._wake:
            self._questions.append(Question(tuple(accounts), answer))
            self._wake.notify()
        try:
            async with asyncio.timeout(self._patience):
                return await answer
        except TimeoutError:
            raise Unavailable("it did not answer in time") from None

    async def close(self) -> Sums:
        """Write what is left, and close the store. What could not be written is given back."""
        thread, self._thread = self._thread, None
        if thread is not None:
            with self._wake:
                self._closing = True
                self._wake.notify()
            await asyncio.to_thread(thread.join)
        return self._owed()

    # ------------------------------------------------------------ the thread

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            self._books.open()
        except Exception as error:  # noqa: BLE001 - whoever starts it is told
            self._tell(_fail, opened, error)
            return
        self._tell(_answer, opened, None)
        closing = False
        while not closing:
            questions, closing = self._next()
            self._written(last=closing)
            for question in questions:
                self._answered(question)
        self._books.close()

    def _next(self) -> tuple[list[Question], bool]:
        """Wait until there is something to do; also for a batch that is to be tried again."""
        with self._wake:
            rest = max(0.0, self._away_until - self._now()) if self._owed() else None
            self._wake.wait_for(lambda: self._questions or self._closing or (rest is None and self._unwritten), rest)
            questions, self._questions = self._questions, []
            return questions, self._closing

    def _written(self, *, last: bool) -> None:
        if self._now() < self._away_until and not last:
            return
        # Again and again: what came while an old batch was owed is a batch of its own.
        while self._take() is not None and self._tried(self._write):
            pass

    def _take(self) -> Batch | None:
        if self._batch is None:
            with self._wake:
                unwritten, self._unwritten = self._unwritten, {}
            self._batch = Batch(uuid.uuid4().hex, unwritten) if unwritten else None
        return self._batch

    def _write(self) -> None:
        if self._batch is not None:
            self._books.write(self._batch)
            self._batch = None

    def _answered(self, question: Question) -> None:
        sums: Sums = {}
        away = self._batch is not None or self._now() < self._away_until
        if away or not self._tried(lambda: sums.update(self._books.read(question.accounts))):
            self._tell(_fail, question.answer, Unavailable(self._why))
        else:
            self._tell(_answer, question.answer, sums)

    def _tried(self, ask: Callable[[], None]) -> bool:
        try:
            ask()
        except Unavailable as error:
            self._why = str(error)
            self._away_until = self._now() + RETRY
            self._tell(self._failed, self._why)
            return False
        self._away_until = 0.0
        return True

    def _owed(self) -> Sums:
        """What is not written yet."""
        owed = dict(self._unwritten)
        for account, amount in (self._batch.charges if self._batch else {}).items():
            owed[account] = owed.get(account, NOTHING).plus(amount)
        return owed

    def _tell(self, call: Callable[..., None], *given: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is there to be told
            assert self._loop is not None  # noqa: S101 - `start` has set it
            self._loop.call_soon_threadsafe(call, *given)


def _answer(future: asyncio.Future[Any], answer: object) -> None:
    if not future.done():  # else: whoever asked has left
        future.set_result(answer)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
