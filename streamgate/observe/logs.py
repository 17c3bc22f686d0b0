"""Log lines: structlog set up once per process, JSON on standard output, written by a thread of its own.

A full pipe must never stop the event loop: lines wait in a bounded queue, the oldest are dropped and counted. Lines of
uvicorn, asyncio and every other user of the standard library's logging come out in the same form.
"""

from __future__ import annotations

import io
import logging
import os
import queue
import select
import socket
import sys
import threading
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
import structlog

from streamgate.observe.lines import places

Format = Literal["json", "console"]
Event = MutableMapping[str, Any]

LINES = 10_000  # about 6 MB of canonical lines
LONGEST = 256  # characters of one value: a line stays below 8 KiB, which log agents take whole
FLUSH = 2.0  # seconds for what is still queued at exit: a stuck reader must not eat the grace period
# The writer wakes at most 50 times a second: a wake-up per line costs a switch of threads, as much as the line itself.
BATCH = 0.02
NO_FIELDS: Mapping[str, Any] = {}
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Lines:
    """A bounded queue of lines and the one thread that writes them to a file descriptor."""

    def __init__(self, descriptor: int, *, capacity: int = LINES) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._capacity = capacity
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamgate-logs", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Queue one line, its newline included; never blocks."""
        if self._queue.qsize() >= self._capacity:
            self._drop_oldest()
        self._queue.put(line)

    def close(self, timeout: float = FLUSH) -> None:
        """Write what is queued, at most `timeout` seconds; what is left then is lost with the process."""
        if not self._closing.is_set():
            self._queue.put(None)
            self._closing.set()
        self._thread.join(timeout)

    def _drop_oldest(self) -> None:
        try:
            if self._queue.get_nowait() is None:
                self._queue.put(None)
            else:
                self.dropped += 1
        except queue.Empty:  # the writer was faster
            pass

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            self._closing.wait(BATCH)
            lines, last = self._waiting(first)
            self._write(lines)
            if last:
                return

    def _waiting(self, first: bytes) -> tuple[list[bytes], bool]:
        """Everything queued right now, and whether the end was among it."""
        lines = [first]
        # One batch is bounded, so that what it holds while the pipe is stuck is bounded too.
        while len(lines) < 1000:
            try:
                line = self._queue.get_nowait()
            except queue.Empty:
                break
            if line is None:
                return lines, True
            lines.append(line)
        return lines, False

    def _write(self, lines: list[bytes]) -> None:
        rest = memoryview(b"".join(lines))
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError:  # nobody reads any more, or the disk is full: the streams matter more than their lines
                self.dropped += len(lines)
                return


class Output:
    """What `configure` set up: the lines' way out, to be closed last."""

    def __init__(self, lines: Lines, handler: logging.Handler) -> None:
        self._lines = lines
        self._handler = handler

    @property
    def dropped(self) -> int:
        return self._lines.dropped

    def close(self, timeout: float = FLUSH) -> None:
        """Let go of the standard library's logging, and flush for at most `timeout` seconds."""
        logging.getLogger().removeHandler(self._handler)
        self._lines.close(timeout)


class Writer:
    """The logger at the end of structlog's chain: takes the finished line. Levels were decided before."""

    __slots__ = ("_put",)

    def __init__(self, lines: Lines) -> None:
        self._put = lines.put

    def msg(self, line: bytes) -> None:
        self._put(line)

    debug = info = warning = error = critical = msg


class Forward(logging.Handler):
    """Lines of the standard library's logging, in our form: the message is a value, an exception a type and places."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields: dict[str, Any] = {"logger": record.name, "message": record.getMessage()}
        except Exception:  # noqa: BLE001 - a third party's broken format string must not break the caller
            fields = {"logger": record.name, "message": str(record.msg)}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields |= {"error_type": type(error).__name__, "where": places(error)}
        self._logger.log(min(record.levelno // 10 * 10, logging.CRITICAL), "log", **fields)


def configure(*, format: Format = "json", level: str = "info", descriptor: int | None = None) -> Output:
    """Set up logging for this process; call it once, before anything logs. `descriptor` defaults to standard output."""
    lines = Lines(stdout_descriptor() if descriptor is None else descriptor)
    threshold = LEVELS[level]
    structlog.configure(
        processors=[Stamped(standing_fields() if format == "json" else {}), as_json if format == "json" else as_text],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_names: Writer(lines),
        cache_logger_on_first_use=True,
    )
    handler = Forward(structlog.get_logger())
    root = logging.getLogger()
    root.addHandler(handler)
    # Third parties' info is noise beside one line per stream; uvicorn's own goodbyes are kept.
    root.setLevel(max(threshold, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "streamgate"):
        logging.getLogger(name).setLevel(threshold)
    return Output(lines, handler)


def stdout_descriptor() -> int:
    try:
        return sys.stdout.fileno()
    except (AttributeError, OSError, io.UnsupportedOperation):  # embedded, or captured: 1 is what it would have been
        return 1


def standing_fields() -> dict[str, str]:
    """What every line of this process says."""
    from streamgate import __version__  # noqa: PLC0415 - the package may be half imported when this module is

    return {"service": "streamgate", "version": __version__, "instance": socket.gethostname()}


class Stamped:
    """Puts time, level, event and the standing fields first; anything bound or said follows.

    `fields` is a dict of many at once: twenty keywords through structlog's calls would be copied three times (3 us).
    """

    __slots__ = ("_standing",)

    def __init__(self, standing: Mapping[str, str]) -> None:
        self._standing = standing

    def __call__(self, logger: Any, method: str, event: Event) -> Event:
        return {
            "timestamp": datetime.now(UTC),
            "level": method,
            "event": event.pop("event", ""),
            **self._standing,
            **event.pop("fields", NO_FIELDS),
            **event,
        }


def as_json(logger: Any, method: str, event: Event) -> bytes:
    """One line of JSON; long strings are cut, and whatever JSON cannot say is said as text."""
    for key, value in event.items():
        if type(value) is str and len(value) > LONGEST:
            event[key] = value[:LONGEST]
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # a lone surrogate, which UTF-8 does not have
        return orjson.dumps(clean(event), default=str, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def clean(event: Event) -> dict[str, Any]:
    return {
        key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else repr(value)
        for key, value in event.items()
    }


def as_text(logger: Any, method: str, event: Event) -> bytes:
    """One line for people: time, level, event, then what is not null, quoted where it would break the line."""
    stamp: datetime = event.pop("timestamp")
    level, said = event.pop("level"), event.pop("event")
    pairs = " ".join(f"{key}={plain(value)}" for key, value in event.items() if value not in (None, ""))
    return f"{stamp.astimezone():%H:%M:%S} {level:<7} {said}  {pairs}".rstrip().encode("utf-8", "replace") + b"\n"


def plain(value: object) -> str:
    text = str(value)[:LONGEST]
    return text if text.isprintable() and " " not in text else ascii(text)
