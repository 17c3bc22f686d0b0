"""Keys from a file that is read again when it changes, as a mounted ConfigMap or Secret does by swapping a link.

Nobody tells of a change, and no timer looks for one: a request does, at most once a second, by one `stat` (2 us). What
cannot be read or understood is refused whole, and the keys stay as they were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

from streamgate.admission.errand import Errand
from streamgate.admission.keys import Ring, StaticKey
from streamgate.clock import monotonic, wall

LOOK = 1.0  # s between two looks
SETTLED = 2.0  # s since the last write: before, another write may leave time and size as they are
PATIENCE = 5.0  # s that the request which noticed a change waits for the new keys; 10,000 of them need 3 s of CPU

Stamp = tuple[int, int, int, int]
Parse = Callable[[bytes], Iterable[StaticKey]]  # raises ValueError that says why, in words fit for a log


class KeyFile:
    """The keys in the file at `path`. `refusals` counts what could not be used; `reads` the rings that were made.

    `accepted` is called in a thread when new keys are in force, `refused` with what is wrong, once for each wrong.
    """

    def __init__(
        self, path: str, parse: Parse, *, accepted: Callable[[], None], refused: Callable[[str], None]
    ) -> None:
        """Reads it once. Raises OSError or ValueError when that cannot be done: without keys nothing begins."""
        self.path = path
        self.reads = 0
        self.refusals = 0
        self._parse = parse
        self._accepted = accepted
        self._refused = refused
        self._problem = ""  # of the file as it is now
        self._verdict = ""  # of the content that was parsed last
        self._digest = b""
        self._ring = Ring()
        self._stamp: Stamp | None = None
        self._look_at = 0.0
        self._errand = Errand(self._again)
        self._read()

    async def current(self) -> Ring:
        """The keys as they are now; at most a second old."""
        now = monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK
            if self._errand.running or self._stamp is None or _stamp(self.path) != self._stamp:
                await self._errand.run(PATIENCE)
        return self._ring

    def _again(self) -> None:
        """In a thread: the ring is exchanged by one assignment. What is wrong is said once, not once a second."""
        try:
            self._read()
            problem = self._verdict
        except ValueError as error:
            problem = self._verdict = str(error)
        except OSError as error:
            self._stamp = None
            problem = f"it cannot be read ({error.strerror})"
        if problem and problem != self._problem:
            self.refusals += 1
            self._refused(problem)
        self._problem = problem

    def _read(self) -> None:
        stamp = _stamp(self.path)
        content = Path(self.path).read_bytes()
        self._stamp = stamp if stamp is not None and wall() - stamp[3] / 1e9 > SETTLED else None
        digest = sha256(content).digest()
        if digest == self._digest:
            return
        self._digest = digest  # also of what is refused: it is parsed once
        self._ring = Ring(self._parse(content))
        self._verdict = ""
        self.reads += 1
        if self.reads > 1:
            self._accepted()


def _stamp(path: str) -> Stamp | None:
    """What changes with the file, links followed; None: it is not there."""
    try:
        found = os.stat(path)  # noqa: PTH116 - half the time of Path.stat, on the way of every request of a second
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
