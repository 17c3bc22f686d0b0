"""Both stores keep the same promise: sums that all workers share, in any order, through restarts and absences."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streamgate_budget.amounts import NOTHING, Account, Amount, Unavailable
from streamgate_budget.books import Batch, Books
from streamgate_budget.redis_books import RedisBooks
from streamgate_budget.sqlite_books import SqliteBooks, to_wal

from tests.redis_server import RedisServer

START = 4_102_444_800  # 2100-01-01: Redis forgets what ended in the past
DAY = Account("acme", "day", START, START + 86400)
HOUR = Account("acme", "hour", START, START + 3600)
Make = Callable[..., Books]


def sqlite_books(path: Path, name: str = "budget", **options: Any) -> SqliteBooks:
    return SqliteBooks(str(path), name, **({"timeout": 2.0, "keep": 86400.0, "wall": lambda: float(START)} | options))


@pytest.fixture(params=["sqlite", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Each call is one more worker's books."""
    opened: list[Books] = []
    server: RedisServer | None = request.getfixturevalue("redis") if request.param == "redis" else None

    def books(name: str = "budget") -> Books:
        made: Books = (
            sqlite_books(tmp_path / "budget.db", name)
            if server is None
            else RedisBooks(server.url, name, timeout=2.0, keep=86400.0)
        )
        made.open()
        opened.append(made)
        return made

    yield books
    for each in opened:
        each.close()


def test_what_one_worker_writes_another_one_reads(make: Make):
    """Sums are shared; an account that nobody charged is empty."""
    mine, theirs = make(), make()
    mine.write(Batch("a", {DAY: Amount(5, 70, 1)}))
    theirs.write(Batch("b", {DAY: Amount(6, 80, 2), HOUR: Amount(1, 1, 1)}))
    assert mine.read([DAY, HOUR]) == theirs.read([DAY, HOUR]) == {DAY: Amount(11, 150, 3), HOUR: Amount(1, 1, 1)}
    other = DAY._replace(tenant="other")
    assert mine.read([other]) == {other: NOTHING}


def test_budgets_of_other_names_are_apart(make: Make):
    """Two plugins may share one store."""
    make("one").write(Batch("a", {DAY: Amount(5, 5, 1)}))
    assert make("two").read([DAY]) == {DAY: NOTHING}


def test_sums_survive_a_restart(make: Make):
    """A worker that comes later knows what was spent."""
    first = make()
    first.write(Batch("a", {DAY: Amount(5, 5, 1)}))
    first.close()
    assert make().read([DAY]) == {DAY: Amount(5, 5, 1)}


def test_redis_counts_a_batch_once_however_often_it_is_written(redis: RedisServer):
    """Its answer may have been lost: then it is written again, under the same id."""
    books = RedisBooks(redis.url, "budget", timeout=2.0, keep=60.0)
    for _ in range(3):
        books.write(Batch("a", {DAY: Amount(5, 5, 1), HOUR: Amount(5, 5, 1)}))
    assert books.read([DAY, HOUR]) == {DAY: Amount(5, 5, 1), HOUR: Amount(5, 5, 1)}
    assert redis.client.expiretime("{streamgate-budget:budget}:day:4102444800:acme") == DAY.end + 60
    books.close()


def test_a_redis_that_is_away_frozen_or_full_is_unavailable_and_then_there_again(redis: RedisServer):
    """Never any other exception, and never a word of its address."""
    books = RedisBooks(redis.url, "budget", timeout=0.1, keep=60.0)
    redis.freeze()
    with pytest.raises(Unavailable, match="TimeoutError"):
        books.read([DAY])
    redis.thaw()
    books.write(Batch("a", {DAY: Amount(5, 5, 1)}))
    redis.kill()
    with pytest.raises(Unavailable, match="ConnectionError"):
        books.write(Batch("b", {DAY: Amount(5, 5, 1)}))
    redis.start()
    redis.client.config_set("maxmemory", "1")
    with pytest.raises(Unavailable, match="OutOfMemoryError"):
        books.write(Batch("c", {DAY: Amount(5, 5, 1)}))
    books.close()


def test_an_address_that_is_none_of_redis_is_said_without_it():
    """A password in it must not be logged."""
    with pytest.raises(ValueError, match="expected redis://") as raised:
        RedisBooks("redis://:sesame@h:port", "budget", timeout=1.0, keep=1.0)
    assert "sesame" not in str(raised.value)


def test_without_the_extra_a_budget_in_redis_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """redis is not a dependency of who has none."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(RuntimeError, match=r"streamgate-budget\[redis\]"):
        RedisBooks("redis://h", "budget", timeout=1.0, keep=1.0)


WRITER = """
import sys
from streamgate_budget.amounts import Account, Amount
from streamgate_budget.books import Batch
from streamgate_budget.sqlite_books import SqliteBooks
sys.stdin.readline()
books = SqliteBooks(sys.argv[1], "budget", timeout=10.0, keep=60.0, wall=lambda: 0.0)
account = Account("acme", "day", 4102444800, 4102531200)
for number in range(120):
    books.write(Batch(str(number), {account: Amount(3, 7, 1)}))
    sys.stdout.write("."), sys.stdout.flush()
sys.stdin.readline()
"""


def start_writer(path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(path)]
    folder = str(Path(__file__).parents[1])
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, bufsize=0)


def test_several_processes_share_one_file_from_its_first_moment(tmp_path: Path):
    """They make it together and write together, and nothing is lost."""
    path = tmp_path / "budget.db"
    writers = [start_writer(path) for _ in range(3)]
    for writer in writers:
        writer.stdin.write(b"\n")
    for writer in writers:
        writer.communicate(b"\n", timeout=50)
        assert writer.returncode == 0
    books = sqlite_books(path)
    assert books.read([DAY]) == {DAY: Amount(1080, 2520, 360)}
    books.close()


def test_what_was_written_survives_a_kill(tmp_path: Path):
    """A process that is killed while it writes loses nothing that was committed, and leaves no lock."""
    path = tmp_path / "budget.db"
    writer = start_writer(path)
    writer.stdin.write(b"\n")
    written = sum(len(writer.stdout.read(1)) for _ in range(50))
    writer.kill()
    written += len(writer.communicate(timeout=50)[0])
    books = sqlite_books(path)
    books.write(Batch("a", {DAY: Amount(0, 0, 1)}))
    requests = books.read([DAY])[DAY].requests - 1
    assert written <= requests <= min(written + 1, 120)  # one may have been committed but not told
    books.close()


def test_old_periods_are_deleted_once_a_day(tmp_path: Path):
    """What ended longer ago than `keep`, with the next write."""
    now = [float(START)]
    books = sqlite_books(tmp_path / "b.db", wall=lambda: now[0])
    books.write(Batch("a", {HOUR: Amount(1, 1, 1)}))
    now[0] = HOUR.end + 86401.0
    books.write(Batch("b", {DAY: Amount(2, 2, 1)}))
    assert books.read([HOUR, DAY]) == {HOUR: NOTHING, DAY: Amount(2, 2, 1)}
    books.close()


def test_a_file_that_is_locked_is_unavailable_and_nothing_is_written_twice(tmp_path: Path):
    """The batch is not in it, and can be tried again."""
    books = sqlite_books(tmp_path / "b.db", timeout=0.05)
    books.write(Batch("a", {DAY: Amount(1, 1, 1)}))
    other = sqlite3.connect(tmp_path / "b.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        books.write(Batch("b", {DAY: Amount(1, 1, 1)}))
    assert books.read([DAY]) == {DAY: Amount(1, 1, 1)}  # readers wait for no writer
    other.execute("ROLLBACK")
    other.close()
    books.write(Batch("b", {DAY: Amount(1, 1, 1)}))
    assert books.read([DAY]) == {DAY: Amount(2, 2, 2)}
    books.close()


def test_a_batch_is_written_whole_or_not_at_all(tmp_path: Path):
    """A failure inside leaves the file as it was."""
    books = sqlite_books(tmp_path / "b.db")
    with pytest.raises(OverflowError):
        books.write(Batch("a", {HOUR: Amount(1, 1, 1), DAY: Amount(2**70, 0, 0)}))
    assert books.read([HOUR, DAY]) == {HOUR: NOTHING, DAY: NOTHING}
    books.close()


def test_a_file_that_cannot_be_used_is_an_error_at_the_start(tmp_path: Path):
    """A folder, garbage, a later version: somebody has to look; while it runs they are absences like others."""
    (tmp_path / "garbage").write_bytes(b"no database at all, " * 100)
    later = sqlite3.connect(tmp_path / "later")
    later.execute("PRAGMA user_version = 2")
    later.close()
    for name, said in (("", "unable to open"), ("garbage", "not a database"), ("later", "later version")):
        with pytest.raises(sqlite3.Error, match=said):
            sqlite_books(tmp_path / name).open()
    with pytest.raises(Unavailable, match="not a database"):
        sqlite_books(tmp_path / "garbage").read([DAY])


def test_where_all_open_a_new_file_at_once_each_waits_for_its_turn(tmp_path: Path):
    """SQLite does not wait for the change to WAL: it is tried again, and no other failure is."""

    class Busy:
        def __init__(self, times: int, code: int) -> None:
            self.times, self.code = times, code

        def execute(self, command: str) -> None:
            assert command == "PRAGMA journal_mode = WAL"
            self.times -= 1
            if self.times >= 0:
                error = sqlite3.OperationalError("not now")
                error.sqlite_errorcode = self.code
                raise error

    to_wal(Busy(3, sqlite3.SQLITE_BUSY), patience=0.05)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        to_wal(Busy(10**6, sqlite3.SQLITE_BUSY), patience=0.05)
    with pytest.raises(sqlite3.OperationalError, match="not now"):
        to_wal(Busy(1, sqlite3.SQLITE_READONLY), patience=0.05)


AMOUNTS = st.builds(Amount, st.integers(0, 10**6), st.integers(0, 10**12), st.just(1))
CHARGES = st.lists(st.tuples(st.sampled_from([DAY, HOUR]), AMOUNTS), max_size=30)


@settings(max_examples=30, deadline=None)
@given(charges=CHARGES, seed=st.integers(), cuts=st.lists(st.integers(0, 30), max_size=5))
def test_sums_are_the_same_in_any_order_and_any_batches(
    tmp_path_factory: pytest.TempPathFactory, charges: list[tuple[Account, Amount]], seed: int, cuts: list[int]
):
    """Whoever writes first, and however much together."""
    expected = {DAY: NOTHING, HOUR: NOTHING}
    for account, amount in charges:
        expected[account] = expected[account].plus(amount)
    random.Random(seed).shuffle(charges)
    path = tmp_path_factory.mktemp("sums") / "b.db"
    workers = [sqlite_books(path), sqlite_books(path)]
    edges = [0, *sorted(cuts), len(charges)]
    for number, (first, last) in enumerate(pairwise(edges)):
        batch: dict[Account, Amount] = {}
        for account, amount in charges[first:last]:
            batch[account] = batch.get(account, NOTHING).plus(amount)
        workers[number % 2].write(Batch(str(number), batch))
    assert workers[0].read([DAY, HOUR]) == expected
    for worker in workers:
        worker.close()
