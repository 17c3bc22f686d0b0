"""Ports for servers that must be told theirs: below the range from which the kernel gives `bind(0)` and clients theirs.

A port got by `bind(0)` and let go may be another's before the server under test binds it: with two test
processes that happened once in some ten thousand, and the client then talked to a stranger.
"""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path

FIRST, EACH = 10_000, 5_000  # each pytest process has its own share, below 32,768
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
OFFSETS = itertools.count(os.getpid() * 37)  # two runs on one machine begin elsewhere


def free_port() -> int:
    """A port of this test process's share that nobody listens to; none is given twice in a row of 5,000."""
    for offset in OFFSETS:
        port = FIRST + EACH * WORKER + offset % EACH
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("count() has no end")


def sockets_at(port: int) -> int:
    """How many connections the kernel still holds on our side of a port.

    Not the listening socket (0A), nor what waits out its time (06): that has no buffers, and may be a client's of
    another test, whose port it was before.
    """
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    places = [line.split()[1:4] for line in lines]
    return sum(local.endswith(f":{port:04X}") and state not in ("0A", "06") for local, _, state in places)
