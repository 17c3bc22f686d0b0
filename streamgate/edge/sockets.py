"""Listening sockets, and the options that accepted ones inherit from them."""

from __future__ import annotations

import ipaddress
import os
import re
import socket

# A token stream is so slow that the kernel's buffer swallows minutes of it after the peer vanished, so the send clock
# alone sees nothing: the kernel must give the peer up. Idle, interval and count are those of reliability's table.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%a-z]+)\]|(?P<name>[^\[\]:/@\s]*)):(?P<port>[0-9]{1,5})")


def listen(
    address: str, *, user_timeout: float, send_buffer: int = 131072, backlog: int = 2048, fd: int | None = None
) -> list[socket.socket]:
    """Open listening sockets at "HOST:PORT", "[::1]:PORT" or every address of a name; port 0 takes a free one.

    `user_timeout` in seconds (0: the kernel's own), `send_buffer` in bytes. With `fd` a listening socket that was
    handed down is used, and the address is ignored. Raises ValueError that says what was expected.
    """
    opened = _open(address) if fd is None else [_inherited(fd)]
    try:
        for listener in opened:
            _configure(listener, user_timeout, send_buffer)
            listener.listen(backlog)
    except OSError as error:
        close(opened)
        raise ValueError(f"cannot listen on {address!r}: {error.strerror or error}") from error
    return opened


def is_loopback(fd: int) -> bool:
    """Whether a socket that was handed down can only be reached from this machine."""
    try:
        with socket.socket(fileno=os.dup(fd)) as handed:
            return ipaddress.ip_address(handed.getsockname()[0].partition("%")[0]).is_loopback
    except (OSError, ValueError):
        return False


def close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def split_address(address: str) -> tuple[str, int]:
    """Split "HOST:PORT"; an empty host is every address. Raises ValueError that says what was expected."""
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found["port"]) > 65535:
        raise ValueError(f"expected HOST:PORT or [IPV6]:PORT with a port up to 65535, got {address!r}")
    return found["v6"] or found["name"] or "", int(found["port"])


def _open(address: str) -> list[socket.socket]:
    host, port = split_address(address)
    opened: list[socket.socket] = []
    try:
        for family, place in _places(host, port):
            # All addresses of a name share the port that the first one got.
            taken = opened[0].getsockname()[1] if opened and port == 0 else place[1]
            opened.append(_bound(family, (place[0], taken, *place[2:])))
    except OSError as error:
        close(opened)
        raise ValueError(f"cannot listen on {address!r}: {error.strerror or error}") from error
    return opened


def _places(host: str, port: int) -> list[tuple[int, tuple[str | int, ...]]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places: list[tuple[int, tuple[str | int, ...]]] = [(family, (*place,)) for family, _, _, _, place in found]
    return list(dict.fromkeys(places))


def _bound(family: int, place: tuple[str | int, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # the IPv4 address gets a socket of its own
        listener.bind(place)
    except OSError:
        listener.close()
        raise
    return listener


def _inherited(fd: int) -> socket.socket:
    try:
        handed = socket.socket(fileno=fd)
        usable = handed.type == socket.SOCK_STREAM and handed.family in (socket.AF_INET, socket.AF_INET6)
    except OSError as error:
        raise ValueError(f"expected descriptor {fd} to be a TCP socket: {error.strerror or error}") from error
    if not usable:
        handed.detach()  # not ours to close
        raise ValueError(f"expected descriptor {fd} to be a TCP socket")
    return handed


def _configure(listener: socket.socket, user_timeout: float, send_buffer: int) -> None:
    listener.setblocking(False)
    listener.set_inheritable(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # The kernel's own choice grew to 3.9 MB, which would hide a slow reader from every clock above it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout * 1000))
    for option, value in _KEEPALIVE:
        listener.setsockopt(socket.IPPROTO_TCP, option, value)
