"""The client side of `streamgate top`, where no process is needed."""

from __future__ import annotations

import http.client
import socket

import pytest

from streamgate.control import top


def test_an_address_may_have_any_scheme_that_there_is():
    """Plain HTTP without one; TLS where it says so."""
    assert type(top.connect("127.0.0.1:9464")) is http.client.HTTPConnection
    secure = top.connect("https://gate.example:9464")
    assert isinstance(secure, http.client.HTTPSConnection)
    assert (secure.host, secure.port) == ("gate.example", 9464)


def test_a_feed_that_says_nothing_is_given_up(monkeypatch):
    """It speaks once a second; ten without a byte mean that nobody is there."""
    monkeypatch.setattr(top, "SILENCE", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        pytest.raises(top.TopError, match="has been silent"),
    ):
        list(top.snapshots(f"127.0.0.1:{mute.getsockname()[1]}", None))
