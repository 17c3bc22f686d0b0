"""The file: whole lines are appended, and at a size or an age another file is begun. Plain calls, from one thread.

Several processes may write to one file, and anything may rename it: whoever writes holds the file's lock, and looks
whether it is still the one of that name. A line that a dying process left torn is ended before the next one.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from streamgate_audit.lines import seconds

MODE = 0o600
STAMP = "%Y%m%dT%H%M%S.%fZ"
LONGEST_FIRST = 65536  # bytes of a file's first line that are read for its date


class Trail:
    """`max_size` in bytes and `max_age` in seconds, 0 for none; of the older files `keep` are kept, 0 for all."""

    def __init__(self, path: str, *, max_size: int, max_age: float, keep: int) -> None:
        self._path = Path(path)
        self._max_size = max_size
        self._max_age = max_age
        self._keep = keep
        self._file = -1
        self._born = 0.0  # when its first line was written; 0.0: not known yet

    def open(self) -> None:
        """Raises OSError when the file cannot be written."""
        self._lock()
        self._unlock()

    def append(self, lines: bytes, at: float) -> None:
        """All of these whole lines, or none. Raises OSError."""
        self._lock()
        try:
            if self._due(len(lines), at):
                self._begin_another(at)
            self._write(lines)
            self._born = self._born or at
        finally:
            self._unlock()

    def sync(self) -> None:
        """What was appended is on the disk. Raises OSError."""
        if self._file >= 0:
            os.fsync(self._file)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _lock(self) -> None:
        """The lock of the file that has the name now."""
        while True:
            if self._file < 0:
                self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
                self._born = 0.0
            fcntl.flock(self._file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if self._is_current():
                    return
            self.close()  # renamed, by another process of ours or by somebody else

    def _is_current(self) -> bool:
        named, held = self._path.stat(), os.fstat(self._file)
        return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)

    def _unlock(self) -> None:
        if self._file >= 0:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _due(self, more: int, at: float) -> bool:
        size = os.fstat(self._file).st_size
        if not size:
            return False
        if self._max_age and not self._born:
            self._born = self._first_line() or at
        old = bool(self._max_age) and at - self._born >= self._max_age
        return old or bool(self._max_size and size + more > self._max_size)

    def _first_line(self) -> float:
        """When it was written; 0.0 when it does not say."""
        first = os.pread(self._file, LONGEST_FIRST, 0).partition(b"\n")[0]
        with suppress(ValueError, TypeError, KeyError):
            return seconds(json.loads(first)["at"])
        return 0.0

    def _begin_another(self, at: float) -> None:
        self.sync()  # nobody would, later on
        self._path.rename(self._next_name(at))
        self.close()
        self._lock()
        self._prune()

    def _next_name(self, at: float) -> Path:
        """audit.jsonl becomes audit-20260301T120000.123456Z.jsonl: by name they are in order, whatever clocks do."""
        stamp = f"{datetime.fromtimestamp(at, UTC):{STAMP}}"
        stamps = self._stamps()
        if stamps and stamp <= stamps[-1]:
            stamp = f"{datetime.strptime(stamps[-1], STAMP).replace(tzinfo=UTC) + timedelta(microseconds=1):{STAMP}}"
        return self._named(stamp)

    def _prune(self) -> None:
        for stamp in self._stamps()[: -self._keep] if self._keep else ():
            self._named(stamp).unlink(missing_ok=True)

    def _stamps(self) -> list[str]:
        """Of the older files, in order."""
        stem, suffix = re.escape(self._path.stem), re.escape(self._path.suffix)
        ours = re.compile(rf"{stem}-(\d{{8}}T\d{{6}}\.\d{{6}}Z){suffix}")
        return sorted(found[1] for each in self._path.parent.iterdir() if (found := ours.fullmatch(each.name)))

    def _named(self, stamp: str) -> Path:
        return self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")

    def _write(self, lines: bytes) -> None:
        size = os.fstat(self._file).st_size
        torn = size and os.pread(self._file, 1, size - 1) != b"\n"
        left = memoryview(b"\n" + lines if torn else lines)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, size)  # a full disk may have taken a part
            raise
