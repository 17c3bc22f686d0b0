"""Listening sockets, opened for real on the loopback interface."""

from __future__ import annotations

import os
import socket

import pytest

from streamgate.edge.sockets import close, listen, split_address

TCP = socket.IPPROTO_TCP


def test_accepted_sockets_inherit_what_the_listener_was_given() -> None:
    """TCP_USER_TIMEOUT, keep-alive, the send buffer and TCP_NODELAY hold for every accepted connection (Linux)."""
    (listener,) = listen("127.0.0.1:0", user_timeout=2.5)
    with listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 2500
            assert accepted.getsockopt(TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 131072  # the kernel doubles it
            kept = [
                accepted.getsockopt(TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            ]
            assert kept == [30, 10, 3]
            assert not listener.get_inheritable()


def test_a_name_listens_on_all_its_addresses_with_one_port() -> None:
    """Port 0 takes a free port once, and every address of the name gets that one."""
    opened = listen("localhost:0", user_timeout=0)
    try:
        assert len({each.getsockname()[1] for each in opened}) == 1
        assert len({each.family for each in opened}) == len(opened)
    finally:
        close(opened)


def test_ipv6() -> None:
    """Brackets hold an IPv6 address, and its socket serves IPv6 only."""
    (listener,) = listen("[::1]:0", user_timeout=1)
    with listener:
        assert listener.getsockname()[0] == "::1"
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_a_socket_that_was_handed_down() -> None:
    """With a descriptor the address is ignored and the options are set on what was handed down."""
    first = socket.create_server(("127.0.0.1", 0))
    place = first.getsockname()
    (listener,) = listen("", user_timeout=3, fd=first.detach())
    with listener:
        assert listener.getsockname() == place
        assert listener.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 3000


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:80", ("::1", 80)),
        (":80", ("", 80)),
        ("a-b.c:65535", ("a-b.c", 65535)),
    ],
)
def test_addresses(address: str, place: tuple[str, int]) -> None:
    """HOST:PORT, with IPv6 in brackets and nothing for every address."""
    assert split_address(address) == place


@pytest.mark.parametrize(
    "address", ["", "80", "a", "a:", "a:b", "a:65536", "::1:80", "[::1]", "[::1]80", "http://a:80", "a:-1"]
)
def test_what_is_no_address_says_what_was_expected(address: str) -> None:
    """The message shows the form and what was given."""
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        listen(address, user_timeout=1)


def test_a_port_in_use_is_a_clear_error() -> None:
    """The address and the system's own words; and no socket is left open."""
    (listener,) = listen("127.0.0.1:0", user_timeout=1)
    with listener, pytest.raises(ValueError, match=r"cannot listen on '127\.0\.0\.1:\d+': Address already in use"):
        listen(f"127.0.0.1:{listener.getsockname()[1]}", user_timeout=1)


def test_a_name_that_does_not_resolve_is_a_clear_error() -> None:
    """A resolver's failure is an OSError of its own kind, and reads the same."""
    with pytest.raises(ValueError, match=r"cannot listen on 'no\.such\.name\.invalid:1'"):
        listen("no.such.name.invalid:1", user_timeout=1)


def test_a_descriptor_that_is_no_tcp_socket_is_a_clear_error() -> None:
    """A pipe, a datagram socket and a number that is not open are all refused by name, and not closed."""
    reading, writing = os.pipe()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for wrong in (reading, datagrams.fileno(), 999999):
            with pytest.raises(ValueError, match=f"expected descriptor {wrong} to be a TCP socket"):
                listen("", user_timeout=1, fd=wrong)
        assert datagrams.getsockname()
    os.close(reading)
    os.close(writing)


def test_options_that_the_kernel_refuses_are_a_clear_error() -> None:
    """A socket that is already connected cannot listen; the message says so."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connected = socket.create_connection(server.getsockname())
        with pytest.raises(ValueError, match="cannot listen on"):
            listen("here", user_timeout=1, fd=connected.detach())
