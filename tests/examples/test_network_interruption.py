"""The example network_interruption: the story that it tells is true."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "network_interruption.py"
CUT = "(RemoteProtocolError|ReadError)"
STORY = rf"""network: fine, and after ten numbers cut
 client: connects
 client: ([5-9]|1\d) pings, then numbers, then {CUT}; has 1 to \d+, none missing, none twice
 server: Ending.CLIENT_DISCONNECT
network: fine, and after ten numbers stalled
 client: connects {{'Last-Event-ID': '\d+'}}
 client: 0 pings, then numbers, then ReadTimeout; has 1 to \d+, none missing, none twice
 server: Ending.SEND_TIMEOUT
network: fine, and after ten numbers a black hole
 client: connects {{'Last-Event-ID': '\d+'}}
 client: 0 pings, then numbers, then ReadTimeout; has 1 to \d+, none missing, none twice
 server: 0 streams ended: all that it sends seems to arrive
 server: Ending.CLIENT_DISCONNECT
network: fine, and after ten numbers cut
 client: connects {{'Last-Event-ID': '\d+'}}
 client: 0 pings, then numbers, then {CUT}; has 1 to \d+, none missing, none twice
 server: Ending.CLIENT_DISCONNECT
"""


def test_the_story():
    """Pings keep a quiet stream; a cut is seen by both, a stall by both clocks, a black hole by the client alone."""
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=55, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for told, expected in zip(done.stdout.splitlines(), STORY.splitlines(), strict=True):
        assert re.fullmatch(expected, told), f"{told!r} is not {expected!r}"
    resumed = re.findall(r"'Last-Event-ID': '(\d+)'", done.stdout)
    reached = re.findall(r"has 1 to (\d+)", done.stdout)
    assert resumed == reached[:-1]


@pytest.mark.parametrize("moment", ["network", " server"])
def test_it_can_be_stopped(moment):
    """Ctrl-C at the beginning or in the middle ends server, client and proxy, and is what it ends with."""
    command = [sys.executable, "-u", str(EXAMPLE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not process.stdout.readline().startswith(moment):
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=15)
        finally:
            process.kill()
    assert said.rstrip().endswith("KeyboardInterrupt"), said
    assert process.returncode == -signal.SIGINT
