"""Sums in one SQLite file, shared by all workers of a machine; they survive restarts and crashes of the process.

WAL with synchronous=NORMAL: a commit costs no fsync, a power failure may lose the last ones but no more than those.
WAL needs a local file system.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import closing

from streamgate_budget.amounts import NOTHING, Account, Amount, Unavailable
from streamgate_budget.books import Batch

VERSION = 1
PATIENCE = 5.0  # s to wait for other processes that open the same file
TRIES = 100
DAY = 86400

_TABLE = """
CREATE TABLE IF NOT EXISTS spent (
    budget TEXT NOT NULL, tenant TEXT NOT NULL, period TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL,
    tokens INTEGER NOT NULL, money INTEGER NOT NULL, requests INTEGER NOT NULL,
    PRIMARY KEY (budget, tenant, period, start)
) WITHOUT ROWID
"""
_ADD = """
INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    tokens = tokens + excluded.tokens, money = money + excluded.money, requests = requests + excluded.requests
"""
_READ = "SELECT tokens, money, requests FROM spent WHERE budget = ? AND tenant = ? AND period = ? AND start = ?"
_PRUNE = "DELETE FROM spent WHERE budget = ? AND end < ?"


class SqliteBooks:
    """`budget` is the plugin's name: several may share a file. `wall` gives seconds since the epoch."""

    def __init__(self, path: str, budget: str, *, timeout: float, keep: float, wall: Callable[[], float]) -> None:
        self._path = path
        self._budget = budget
        self._timeout = timeout
        self._keep = keep
        self._wall = wall
        self._pruned = float("-inf")
        self._database: sqlite3.Connection | None = None

    def open(self) -> None:
        """Raises sqlite3.Error when the file cannot be used: that is for who configured it."""
        if self._database is None:
            self._database = _opened(self._path, self._timeout)

    def write(self, batch: Batch) -> None:
        try:
            database = self._connected()
            with closing(database.cursor()) as cursor:
                cursor.execute("BEGIN IMMEDIATE")
                try:
                    cursor.executemany(_ADD, [self._row(account, amount) for account, amount in batch.charges.items()])
                    self._prune(cursor)
                    cursor.execute("COMMIT")
                except BaseException:
                    if database.in_transaction:
                        cursor.execute("ROLLBACK")
                    raise
        except sqlite3.Error as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from None

    def read(self, accounts: Iterable[Account]) -> dict[Account, Amount]:
        try:
            database = self._connected()
            return {account: self._sum(database, account) for account in accounts}
        except sqlite3.Error as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from None

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _connected(self) -> sqlite3.Connection:
        self.open()
        assert self._database is not None  # noqa: S101 - what `open` is for
        return self._database

    def _row(self, account: Account, amount: Amount) -> tuple[str | int, ...]:
        return (self._budget, account.tenant, account.period, account.start, account.end, *amount)

    def _sum(self, database: sqlite3.Connection, account: Account) -> Amount:
        found = database.execute(_READ, (self._budget, account.tenant, account.period, account.start)).fetchone()
        return Amount(*found) if found else NOTHING

    def _prune(self, cursor: sqlite3.Cursor) -> None:
        """Once a day, what nobody asks for any more."""
        now = self._wall()
        if now - self._pruned >= DAY:
            cursor.execute(_PRUNE, (self._budget, int(now - self._keep)))
            self._pruned = now


def _opened(path: str, timeout: float) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        to_wal(database)
        database.execute("PRAGMA synchronous = NORMAL")
        _lay_out(database)
        database.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")
    except BaseException:
        database.close()
        raise
    return database


def to_wal(database: sqlite3.Connection, patience: float = PATIENCE) -> None:
    """SQLite fails at once where two make this change together (1 in 100 new files with 4 processes); one succeeds."""
    pause = threading.Event()
    for _ in range(TRIES):
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as locked:
            if locked.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            pause.wait(patience / TRIES)
        else:
            return
    raise sqlite3.OperationalError("database is locked")


def _lay_out(database: sqlite3.Connection) -> None:
    """Whoever comes first makes the table; the others wait for that."""
    database.execute("BEGIN IMMEDIATE")
    found = database.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise sqlite3.DatabaseError(f"the file is of a later version of this plugin ({found})")
    database.execute(_TABLE)
    database.execute(f"PRAGMA user_version = {VERSION}")
    database.execute("COMMIT")
