"""Where an upstream is, what is asked of it, and how long connections to it are kept. Plain values, no I/O."""

from __future__ import annotations

import ipaddress
import string
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
VISIBLE = frozenset(string.ascii_letters + string.digits + string.punctuation)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How connections are kept and made.

    Seconds: `idle`, how long an unused connection is kept (common engines close theirs after 5 s; going first avoids
    the race); `life`, how long a connection is reused at most, so that a changed address is noticed; `connect`, name
    resolution, all addresses and TLS together; `settle`, how long a stream that has logically ended may take to end its
    HTTP body too. `receive_buffer` is SO_RCVBUF in bytes: what the kernel may hold for a stream that is paused.
    """

    idle: float = 4.0
    life: float = 600.0
    max_idle: int = 512  # per origin
    connect: float = 5.0
    settle: float = 1.0
    receive_buffer: int = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One upstream's address: connections are shared by all exchanges with the same origin, and by no others."""

    name: str
    scheme: Literal["http", "https"]
    host: str  # an IPv4 or IPv6 literal (without brackets), or a name
    port: int
    prefix: bytes = b""  # comes before every path; no slash at its end
    ca_file: str | None = None  # PEM; None: the system's
    verify: bool = True
    server_name: str | None = None  # for SNI and the certificate; None: the host
    idle: float | None = None  # seconds an unused connection to it is kept; None: the pool's own
    authority: bytes = field(init=False, repr=False, compare=False)  # the value of the Host header
    url: str = field(init=False, repr=False, compare=False)  # with the prefix

    def __post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        object.__setattr__(self, "authority", f"{host}{port}".encode("ascii"))
        object.__setattr__(self, "url", f"{self.scheme}://{host}{port}{self.prefix.decode()}")

    def __hash__(self) -> int:
        # Looked up for every request: a string remembers its hash, eight fields do not.
        return hash(self.name)


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it is to be sent; any method but HEAD and CONNECT.

    `path` is raw and holds the query. `headers` are allow-listed and carry the credentials; host, accept-encoding and
    all that frames or concerns the connection is the client's own business and dropped from them.
    """

    method: bytes
    path: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes | None = None


def origin_of(
    name: str,
    url: str,
    *,
    ca_file: str | None = None,
    verify: bool = True,
    server_name: str | None = None,
    idle: float | None = None,
) -> Origin:
    """Read `scheme://host[:port][/prefix]`; `ValueError` says what is wrong with it."""
    if not VISIBLE.issuperset(url):
        raise ValueError("a URL is made of visible ASCII characters")
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("expected a URL that begins with http:// or https://")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError("a URL with a user name, a query or a fragment is not an upstream's address")
    return Origin(
        name=name,
        scheme="https" if parts.scheme == "https" else "http",
        host=_host(parts.hostname),
        port=_port(parts.port, parts.scheme),
        prefix=parts.path.rstrip("/").encode("ascii"),
        ca_file=ca_file,
        verify=verify,
        server_name=server_name,
        idle=idle,
    )


def _host(host: str | None) -> str:
    if not host:
        raise ValueError("the URL names no host")
    if "%" in host:
        raise ValueError("an address with a zone index (%eth0) is not supported")  # uvloop connects to none
    if ":" in host:
        ipaddress.IPv6Address(host)  # raises a ValueError with the reason
    return host


def _port(port: int | None, scheme: str) -> int:
    if port == 0:
        raise ValueError("port 0 cannot be connected to")
    return port or DEFAULT_PORTS[scheme]


def target(origin: Origin, path: bytes) -> bytes:
    """The request target: the origin's prefix and the path, with one `/v1` where both bring theirs."""
    prefix = origin.prefix
    if prefix.endswith(b"/v1") and (path == b"/v1" or path.startswith((b"/v1/", b"/v1?"))):
        prefix = prefix[:-3]
    return prefix + path
