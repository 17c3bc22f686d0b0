"""The file: whole lines, other files in time, several processes, and what a dying one leaves."""

from __future__ import annotations

import fcntl
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamgate_audit.lines import dropped, line, moment, seconds
from streamgate_audit.trail import Trail
from streamgate_audit.verify import verified

NOON = 1_772_366_400.0  # 2026-03-01T12:00:00Z


def written(path: Path) -> dict[str, str]:
    """All files of the trail, the oldest first."""
    return {each.name: each.read_text() for each in sorted(path.parent.iterdir())}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def trail_of(path: Path, max_size: int = 0, max_age: float = 0.0, keep: int = 0) -> Trail:
    trail = Trail(str(path), max_size=max_size, max_age=max_age, keep=keep)
    trail.open()
    return trail


@pytest.fixture
def small(path: Path) -> Iterator[Trail]:
    trail = trail_of(path, max_size=10, keep=2)
    yield trail
    trail.close()


def test_another_file_is_begun_before_the_size_is_exceeded_and_the_oldest_are_deleted(small: Trail, path: Path):
    """By their names files are in order, and nobody but their owner reads them."""
    for number in range(5):
        small.append(f"line {number}\n".encode(), NOON + number)
    assert written(path) == {
        "audit-20260301T120003.000000Z.jsonl": "line 2\n",
        "audit-20260301T120004.000000Z.jsonl": "line 3\n",
        "audit.jsonl": "line 4\n",
    }
    assert path.stat().st_mode & 0o777 == 0o600


def test_names_are_in_order_though_clocks_stand_still_or_go_back_and_others_are_nobody_s_to_delete(
    small: Trail, path: Path
):
    """Each is later than the one before; a file of another name is not ours."""
    path.with_name("audit-notes.jsonl").write_text("mine")
    for number in range(5):
        small.append(f"line {number}\n".encode(), NOON - max(0, number - 2))
    assert written(path) == {
        "audit-20260301T120000.000002Z.jsonl": "line 2\n",
        "audit-20260301T120000.000003Z.jsonl": "line 3\n",
        "audit-notes.jsonl": "mine",
        "audit.jsonl": "line 4\n",
    }


def test_a_line_larger_than_a_file_may_be_is_a_file_of_its_own(small: Trail, path: Path):
    """It is not lost, and no empty file is left."""
    small.append(b"a line longer than that\n", NOON)
    small.append(b"short\n", NOON)
    assert list(written(path).values()) == ["a line longer than that\n", "short\n"]


def test_another_file_is_begun_at_an_age_counted_from_the_first_line_also_after_a_restart(path: Path):
    """A process that comes later reads the date in the file."""
    first = trail_of(path, max_age=60.0)
    first.append(line(dropped(1, NOON)), NOON)
    first.close()
    later = trail_of(path, max_age=60.0)
    later.append(line(dropped(2, NOON + 59)), NOON + 59)
    assert len(written(path)) == 1
    later.append(line(dropped(3, NOON + 60)), NOON + 60)
    assert [text.count("\n") for text in written(path).values()] == [2, 1]
    later.close()


def test_a_first_line_without_a_date_counts_as_written_now(path: Path):
    """It may be torn, or another program's."""
    path.write_bytes(b'{"v":1,"at":5}\n')
    trail = trail_of(path, max_age=60.0)
    trail.append(b"x\n", NOON)
    trail.append(b"y\n", NOON + 59)
    assert len(written(path)) == 1
    trail.close()


def test_a_torn_line_is_ended_before_the_next(path: Path):
    """Else the next one would be lost with it."""
    path.write_bytes(b'{"v":1,"kind":"requ')
    trail = trail_of(path)
    trail.append(line(dropped(1, NOON)), NOON)
    trail.close()
    with path.open("rb") as lines:
        report = verified(lines)
    assert (report.dropped, report.torn, report.foreign) == (1, [1], [])


def test_a_file_that_was_renamed_or_deleted_is_begun_again(path: Path):
    """By logrotate, say: nothing is written to what has the name no more."""
    trail = trail_of(path)
    trail.append(b"one\n", NOON)
    path.rename(path.with_name("elsewhere"))
    trail.append(b"two\n", NOON)
    path.unlink()
    trail.append(b"three\n", NOON)
    trail.sync()
    trail.close()
    assert written(path) == {"audit.jsonl": "three\n", "elsewhere": "one\n"}
    trail.sync()  # nothing is open: nothing to do


def test_a_write_that_fails_half_way_leaves_no_part(path: Path):
    """As a full disk does; tried here with a limit of the file's size."""
    trail = trail_of(path)
    trail.append(b"x" * 50 + b"\n", NOON)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            trail.append(b"y" * 50 + b"\n", NOON)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == b"x" * 50 + b"\n"
    trail.append(b"z\n", NOON)
    assert path.read_bytes() == b"x" * 50 + b"\nz\n"
    trail.close()


def test_a_file_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path):
    """Its folder is not made: a wrong path should be seen."""
    with pytest.raises(FileNotFoundError):
        trail_of(tmp_path / "no folder" / "audit.jsonl")


WRITER = """
import sys
from streamgate_audit.lines import dropped, line
from streamgate_audit.trail import Trail
trail = Trail(sys.argv[1], max_size=int(sys.argv[2]), max_age=0, keep=0)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    trail.append(b"".join(line(dropped(1, 1772366400.0)) for _ in range(5)), 1772366400.0)
    sys.stdout.write("."), sys.stdout.flush()
"""


def start_writer(path: Path, max_size: int, times: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(path), str(max_size), str(times)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=Path(__file__).parents[1], bufsize=0)


def test_several_processes_write_and_begin_files_together_and_no_line_is_lost(path: Path):
    """Whoever holds the lock renames; the others notice."""
    writers = [start_writer(path, max_size=4000, times=60) for _ in range(3)]
    for writer in writers:
        writer.communicate(b"\n", timeout=50)
        assert writer.returncode == 0
    reports = [verified(text.encode().splitlines(keepends=True)) for text in written(path).values()]
    assert sum(report.dropped for report in reports) == 900
    assert len(reports) > 10
    assert not any(report.torn or report.foreign for report in reports)
    assert all(each.stat().st_size <= 4000 for each in path.parent.iterdir())


def test_what_was_written_survives_a_kill_and_the_lock_does_not(path: Path):
    """The next process goes on in the same file; at most the last line is torn."""
    writer = start_writer(path, max_size=0, times=10**6)
    writer.stdin.write(b"\n")
    done = sum(len(writer.stdout.read(1)) for _ in range(100))
    writer.kill()
    writer.wait(10)
    writer.stdin.close(), writer.stdout.close()
    trail = trail_of(path)
    trail.append(line(dropped(0, NOON)), NOON)
    trail.close()
    with path.open("rb") as lines:
        report = verified(lines)
    assert report.dropped >= 5 * done and len(report.torn) <= 1 and not report.foreign


def test_the_lock_is_held_only_while_writing(path: Path):
    """Another program may take it in between."""
    trail = trail_of(path)
    trail.append(b"x\n", NOON)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    trail.close()
    trail.close()


def test_moments_are_read_as_they_were_written():
    """In UTC, to the millisecond."""
    assert moment(NOON + 0.1234) == "2026-03-01T12:00:00.123Z"
    assert seconds(moment(NOON + 0.123)) == NOON + 0.123
