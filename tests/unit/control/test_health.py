"""Probes, as a function of start-up and drain."""

from __future__ import annotations

import pytest

from streamgate.control.health import Health, live, ready
from streamgate.drain import Drain, Phase


@pytest.mark.parametrize(
    ("phase", "started", "status", "word"),
    [
        (Phase.SERVING, False, 503, "starting"),
        (Phase.SERVING, True, 200, "ready"),
        (Phase.DRAINING, False, 503, "draining"),
        (Phase.DRAINING, True, 503, "draining"),
        (Phase.DRAINED, True, 503, "drained"),
    ],
)
def test_ready_means_started_and_not_draining(phase, started, status, word):
    """Newcomers are sent only where they will be served."""
    answer = ready(phase, started=started)
    assert answer == (status, word)
    assert answer.ok is (status == 200)


def test_a_server_is_alive_until_it_is_gone():
    """A drain is no reason for a kill."""
    assert live().ok


@pytest.mark.anyio
async def test_health_follows_its_servers_start_and_drain():
    """One object, asked at each probe."""
    drain = Drain()
    health = Health(drain)
    assert health.ready().word == "starting"
    health.started = True
    assert health.ready().word == "ready"
    drain.begin()
    assert health.ready().word == "draining"
    assert health.live().word == "live"
