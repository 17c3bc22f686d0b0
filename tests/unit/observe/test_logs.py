"""Log lines: their form, and that nobody waits for them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from streamgate import __version__
from streamgate.observe import logs
from streamgate.observe.logs import LONGEST, Lines, configure


@pytest.fixture(autouse=True)
def _own_configuration() -> Iterator[None]:
    """structlog's configuration and logging's levels are global: give them back."""
    levels = {name: logging.getLogger(name).level for name in ("", "uvicorn", "uvicorn.error", "streamgate")}
    yield
    structlog.reset_defaults()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


class Log:
    """Logging set up into a file."""

    def __init__(self, path: Path, **options: str) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        self.output = configure(descriptor=self.descriptor, **options)

    def lines(self) -> list[str]:
        self.output.close()
        os.close(self.descriptor)
        return self.path.read_text().splitlines()

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.lines()]


def test_a_line_is_json_with_time_level_event_and_who_says_it(tmp_path):
    """The common fields come first, then what was said."""
    log = Log(tmp_path / "log")
    structlog.get_logger().info("ready", port=8080, fields={"upstream": "gpu-a"})
    [line] = log.events()
    assert list(line)[:6] == ["timestamp", "level", "event", "service", "version", "instance"]
    assert (line["level"], line["event"], line["version"]) == ("info", "ready", __version__)
    assert (line["port"], line["upstream"]) == (8080, "gpu-a")
    assert str(line["timestamp"]).endswith("Z")


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_value_cannot_begin_a_line_of_its_own(tmp_path, form):
    """CR, LF and escape sequences in a client's words stay inside one line."""
    log = Log(tmp_path / "log", format=form)
    structlog.get_logger().info("x", model='a\r\n{"level":"error","event":"forged"}\x1b[2J')
    [line] = log.lines()
    assert "\x1b" not in line
    assert "forged" in line


@pytest.mark.parametrize("form", ["json", "console"])
def test_long_strings_are_cut(tmp_path, form):
    """No value is longer than the limit."""
    log = Log(tmp_path / "log", format=form)
    structlog.get_logger().info("x", detail="y" * 5000)
    [line] = log.lines()
    assert line.count("y") == LONGEST


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_json_or_utf8_cannot_say_is_still_logged(tmp_path, form):
    """A lone surrogate or a foreign object loses its form, not its line."""
    log = Log(tmp_path / "log", format=form)
    structlog.get_logger().info("x", model="\udcff", thing=Path("/p"), number=1)
    [line] = log.lines()
    assert "/p" in line


def test_a_console_line_is_for_people(tmp_path):
    """Time, level, event, then what is not null; a value with spaces is quoted."""
    log = Log(tmp_path / "log", format="console")
    structlog.get_logger().warning("stream_finished", outcome="truncated", tenant=None, detail="two words")
    [line] = log.lines()
    assert line[9:] == "warning stream_finished  outcome=truncated detail='two words'"


def test_lines_below_the_level_cost_nothing_and_say_nothing(tmp_path):
    """The level holds for ours and for uvicorn's lines."""
    log = Log(tmp_path / "log", level="warning")
    structlog.get_logger().info("quiet")
    logging.getLogger("uvicorn.error").info("quiet")
    logging.getLogger("uvicorn.error").warning("loud")
    assert [line["message"] for line in log.events()] == ["loud"]


def test_the_standard_librarys_lines_come_in_the_same_form(tmp_path):
    """A message is a value; an exception gives its type and place, never its message."""
    log = Log(tmp_path / "log")
    logging.getLogger("uvicorn.error").info("Started %s", "server")
    logging.getLogger("asyncio").info("third parties' info is noise")
    try:
        raise ValueError("secret prompt")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    log.output._handler.handle(logging.makeLogRecord({"msg": "bad %d format", "args": ("x",), "levelno": 30}))
    started, failed, broken = log.events()
    assert (started["event"], started["logger"], started["message"]) == ("log", "uvicorn.error", "Started server")
    assert (failed["level"], failed["error_type"]) == ("error", "ValueError")
    assert "test_logs.py" in failed["where"][-1]
    assert "secret" not in json.dumps(failed)
    assert broken["message"] == "bad %d format"


def test_a_reader_that_stops_never_stops_the_writer(tmp_path):
    """With a full pipe the oldest lines are dropped and counted, and put() stays quick."""
    reading, writing = os.pipe()
    lines = Lines(writing, capacity=100)
    began = time.monotonic()
    for number in range(5000):
        lines.put(b"%04d %s\n" % (number, b"x" * 200))
    assert time.monotonic() - began < 2.0
    lines.close(timeout=0.2)  # bounded, although nobody reads
    assert lines.dropped > 2000
    received = drain(reading, lines, writing)
    assert received[-1].startswith(b"4999 ")  # the newest survive
    assert lines.dropped + len(received) == 5000


def drain(reading: int, lines: Lines, writing: int) -> list[bytes]:
    chunks: list[bytes] = []

    def read() -> None:
        while chunk := os.read(reading, 65536):
            chunks.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    lines.close(timeout=10.0)
    os.close(writing)
    reader.join(10.0)
    os.close(reading)
    return b"".join(chunks).splitlines()


def test_a_full_queue_keeps_the_word_that_it_is_over():
    """Dropping the oldest entry never drops the end."""
    reading, writing = os.pipe()
    lines = Lines(writing, capacity=0)
    lines._queue.put(None)
    lines._drop_oldest()
    lines._drop_oldest()
    assert lines.dropped == 0
    lines.close(5.0)
    assert not lines._thread.is_alive()
    while not lines._queue.empty():
        lines._queue.get()
    lines._drop_oldest()
    os.close(writing)
    os.close(reading)


def test_a_descriptor_that_does_not_block_is_waited_for():
    """A shared terminal may be non-blocking: nothing is lost, nothing spins."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    lines = Lines(writing)
    for _ in range(2000):
        lines.put(b"x" * 99 + b"\n")
    received = drain(reading, lines, writing)
    assert len(received) == 2000
    assert lines.dropped == 0


def test_a_reader_that_is_gone_costs_lines_only():
    """A closed pipe is counted, not raised."""
    reading, writing = os.pipe()
    os.close(reading)
    lines = Lines(writing)
    lines.put(b"lost\n")
    lines.close(5.0)
    os.close(writing)
    assert lines.dropped == 1


def test_output_counts_what_it_dropped_and_lets_go_of_logging(tmp_path):
    """After close() the standard library's logging is as before."""
    before = list(logging.getLogger().handlers)
    log = Log(tmp_path / "log")
    assert logging.getLogger().handlers != before
    assert log.output.dropped == 0
    assert log.lines() == []
    assert logging.getLogger().handlers == before


def test_standard_output_is_where_lines_go_unless_told(capfd, monkeypatch):
    """Also when sys.stdout is none that has a descriptor."""
    output = configure()
    structlog.get_logger().info("here")
    output.close()
    assert '"event":"here"' in capfd.readouterr().out
    monkeypatch.setattr(sys, "stdout", None)
    assert logs.stdout_descriptor() == 1


def test_an_exiting_process_flushes_within_its_bound():
    """A process whose output nobody reads still ends: lines wait at most for the timeout."""
    code = (
        "import structlog; from streamgate.observe.logs import configure\n"
        "out = configure(); log = structlog.get_logger()\n"
        "for _ in range(3000): log.info('x', pad='y' * 200)\n"
        "out.close(0.3)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
