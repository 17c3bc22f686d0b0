"""A new connection: resolve off the loop, try every address, speak TLS; all within one deadline.

Cancelled or late at any point, the socket is closed at once: whoever dials aborts the connection it passed in.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import ipaddress
import math
import socket
import ssl
import time
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

from streamgate.errors import ConnectTimeout, NameNotResolved, TlsRefused, Unreachable
from streamgate.upstream.connection import Connection
from streamgate.upstream.settings import Origin

Address = tuple[socket.AddressFamily, Any]  # and the family's own form of an address


class TlsContexts:
    """One `SSLContext` per way of trusting; made off the loop, because reading the system's CAs takes 20 ms."""

    def __init__(self) -> None:
        self._made: dict[tuple[str | None, bool], ssl.SSLContext] = {}

    async def of(self, origin: Origin) -> ssl.SSLContext:
        """Raises `TlsRefused` when the CA file cannot be used."""
        key = (origin.ca_file, origin.verify)
        if key not in self._made:
            making = functools.partial(trusting, origin.ca_file, verify=origin.verify)
            try:
                self._made[key] = await asyncio.get_running_loop().run_in_executor(None, making)
            except OSError as error:
                raise TlsRefused(f"{origin.ca_file}: {error}") from error
        return self._made[key]


def trusting(ca_file: str | None, *, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def dial(connection: Connection, contexts: TlsContexts, *, seconds: float, receive_buffer: int) -> None:
    """Connect it to its origin; raises `Unreachable`, `ConnectTimeout`, `NameNotResolved` or `TlsRefused`.

    Runs in an empty `contextvars.Context`: a transport calls back in the context that made it, and every later
    exchange on this connection would otherwise run in the first one's trace.
    """
    connecting = _connect(connection, contexts, seconds, receive_buffer)
    # The task's owner is whoever awaits this: cancelling one cancels the other, and both end before this returns.
    task = asyncio.get_running_loop().create_task(connecting, context=contextvars.Context())
    try:
        await task
    except BaseException:
        connection.abort()
        raise


async def _connect(connection: Connection, contexts: TlsContexts, seconds: float, receive_buffer: int) -> None:
    origin = connection.origin
    until = time.monotonic() + seconds if seconds else math.inf  # 0: the clock is off
    try:
        async with asyncio.timeout(seconds or None):
            tls = await contexts.of(origin) if origin.scheme == "https" else None
            addresses = await resolve(origin)
            sock = await first_that_answers(addresses, until=until, receive_buffer=receive_buffer)
            transport = await _transport(sock, connection)
            if tls is not None:
                await _encrypt(transport, connection, tls)
    except TimeoutError as error:
        raise ConnectTimeout(f"{origin.host}:{origin.port} within {seconds} s") from error
    except OSError as error:
        raise Unreachable(f"{origin.host}:{origin.port}: {error}") from error


async def resolve(origin: Origin) -> list[Address]:
    """The origin's addresses, asked for anew each time; families take turns (RFC 8305 section 4)."""
    literal = literal_address(origin.host, origin.port)
    if literal is not None:
        return [literal]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise NameNotResolved(f"{origin.host}: {error}") from error
    return interleaved([(family, address) for family, _, _, _, address in found])


def literal_address(host: str, port: int) -> Address | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (socket.AF_INET, (host, port)) if ip.version == 4 else (socket.AF_INET6, (host, port, 0, 0))


def interleaved(addresses: Sequence[Address]) -> list[Address]:
    """The order as given, but families alternate, so that a broken one costs one wait and not all of them."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    other = [address for address in addresses if address[0] != addresses[0][0]]
    return [address for address in chain.from_iterable(zip_longest(first, other)) if address is not None]


async def first_that_answers(addresses: Sequence[Address], *, until: float, receive_buffer: int) -> socket.socket:
    """A connected socket. Each address gets an equal share of the time that is left, so that each is tried.

    Raises `TimeoutError` when all were silent, else an `OSError` that says what happened to each.
    """
    failed: list[OSError] = []
    for position, (family, address) in enumerate(addresses):
        share = (until - time.monotonic()) / (len(addresses) - position)
        try:
            async with asyncio.timeout(None if share == math.inf else share):
                return await _connected(family, address, receive_buffer)
        except OSError as error:  # TimeoutError is one
            failed.append(error)
    if all(isinstance(error, TimeoutError) for error in failed):
        raise TimeoutError
    raise ConnectionError("; ".join(str(error) or "no answer in its share of the time" for error in failed))


async def _connected(family: socket.AddressFamily, address: Any, receive_buffer: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Before connecting, because the window scale is settled then.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _transport(sock: socket.socket, connection: Connection) -> asyncio.Transport:
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: connection, sock=sock)
    except BaseException:
        with contextlib.suppress(OSError):  # an older uvloop has closed the descriptor already
            sock.close()
        raise
    return transport


async def _encrypt(transport: asyncio.Transport, connection: Connection, context: ssl.SSLContext) -> None:
    """TLS in a second step: of a handshake given up half way, only the transport below can be aborted at once."""
    origin = connection.origin
    name = origin.server_name or origin.host
    loop = asyncio.get_running_loop()
    try:
        encrypted = await loop.start_tls(transport, connection, context, server_hostname=name)
    except TimeoutError:
        raise
    except OSError as error:  # ssl.SSLError is one, and so are a reset and an end in mid-handshake
        raise TlsRefused(f"{origin.host}:{origin.port}: {error}") from error
    if encrypted is None:
        raise TlsRefused(f"{origin.host}:{origin.port}: the connection ended during the handshake")
    connection.encrypted(encrypted)
