"""The example load_simulation: what it prints, and what it refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "load_simulation.py"
TIMES = r"p50 \d\.\d+ s, p99 \d\.\d+ s, worst \d\.\d+ s"


def simulate(*arguments):
    command = [sys.executable, str(EXAMPLE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def lines_of(*arguments):
    """Its lines by their names."""
    done = simulate(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(re.split(r"  +", line, maxsplit=1) for line in done.stdout.splitlines())


def test_clients_of_the_own_endpoint():
    """Every client has events from the first moment on, misses none, and leaves when the time is up."""
    lines = lines_of("--clients", "20", "--seconds", "1")
    assert lines["clients"].startswith("20 for 1 s at http://127.0.0.1:")
    assert re.fullmatch(TIMES, lines["first event"])
    assert re.fullmatch(TIMES, lines["longest gap"])
    events, missing = re.fullmatch(r"(\d+), \d+ per second; (\d+) ids missing", lines["events"]).groups()
    assert int(events) >= 20
    assert missing == "0"
    assert lines["ended"] == "20 left when the time was up"


def test_streams_that_end_by_themselves(running):
    """A server's own end is told apart from the client's, and the numbers are those of the URL."""
    with running("basic_numbers", INTERVAL="0.01") as url:
        lines = lines_of(f"{url}/numbers/3", "--clients", "5", "--seconds", "20")
    assert lines["events"].startswith("15, ")
    assert lines["ended"] == "5 ended by the server, status 200"


def test_nobody_there(running):
    """Clients that get no stream are counted, too, by what became of them."""
    with running("basic_numbers") as url:
        assert lines_of(f"{url}/nothing", "--clients", "2")["ended"] == "2 ended by the server, status 404"
    assert lines_of(url, "--clients", "2")["ended"] == "2 broken: ConnectError"


@pytest.mark.parametrize("arguments", [["--clients", "401"], ["http://192.0.2.1/", "--clients", "1"]])
def test_what_could_hurt_must_be_meant(arguments):
    """Many clients, or another machine: refused without --yes."""
    done = simulate(*arguments)
    assert done.returncode == 2
    assert "say --yes" in done.stderr
