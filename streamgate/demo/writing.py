"""How an answer is put on the wire: heads, line ends, compression, chunks. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from http import HTTPStatus

from streamgate.demo.grammar import Script
from streamgate.demo.request import Call

BOM = b"\xef\xbb\xbf"
LAST_CHUNK = b"0\r\n\r\n"
SSE = "text/event-stream; charset=utf-8"
JSON = "application/json"
GZIP = 16 + zlib.MAX_WBITS

# Nothing of these may reach a client: hop-by-hop headers, one that Connection names, and another server's own business.
HOP_BY_HOP = (
    "connection: keep-alive, x-named\r\nx-named: secret\r\nkeep-alive: timeout=5, max=100\r\n"
    "proxy-authenticate: Basic\r\nupgrade: h2c\r\ntrailer: x-trailer\r\naccess-control-allow-origin: *\r\n"
)


def head(script: Script, call: Call, status: int, headers: Mapping[str, str | int]) -> bytes:
    """A response head; `headers` come after those that each answer has."""
    version = "1.0" if "http10" in script.options else "1.1"
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
    text = f"HTTP/{version} {status} {phrase}\r\nserver: demo\r\nx-request-id: demo-{call.number}\r\n"
    text += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if ends_connection(script, call):
        text += "connection: close\r\n"
    if "hopheaders" in script.options:
        text += HOP_BY_HOP
    if "badheaders" in script.options:
        text += "x-bad: one\rx-two: three\r\n"
    return f"{text}\r\n".encode("latin-1", "replace")


def ends_connection(script: Script, call: Call) -> bool:
    return call.last or "closeafter" in script.options or "http10" in script.options


class Writing:
    """One stream's way of writing its events; `event` and `end` give bytes for the wire."""

    __slots__ = ("_bom", "_comments", "_gzip", "_line_end", "_multiline", "chunked", "plain")

    def __init__(self, script: Script, *, chunked: bool) -> None:
        options = script.options
        self.chunked = chunked
        self._bom = "bom" in options
        self._comments = "comments" in options
        self._multiline = "multiline" in options
        self._line_end = b"\r\n" if "crlf" in options else b"\r" if "cr" in options else b"\n"
        self._gzip = zlib.compressobj(wbits=GZIP) if "gzip" in options else None
        odd = self._bom or self._comments or self._multiline or self._gzip is not None or self._line_end != b"\n"
        self.plain = not odd  # the way of nearly all streams, and the quick one

    def event(self, event: bytes) -> bytes:
        """An event in its final form, framed."""
        return self.framed(event if self.plain else self._dressed(event))

    def framed(self, content: bytes) -> bytes:
        """In a chunk of its own; nothing stays nothing, because an empty chunk would be the last one."""
        if not content:
            return b""
        return b"%x\r\n%b\r\n" % (len(content), content) if self.chunked else content

    def end(self) -> bytes:
        """What ends the body cleanly."""
        tail = b"" if self._gzip is None else self.framed(self._gzip.flush())
        return tail + LAST_CHUNK if self.chunked else tail

    def _dressed(self, event: bytes) -> bytes:
        if self._multiline:
            event = event.replace(b',"', b'\ndata: ,"', 1)
        if self._comments:
            event = b": a comment\n\n" + event
        if self._line_end != b"\n":
            event = event.replace(b"\n", self._line_end)
        if self._bom:
            event, self._bom = BOM + event, False
        if self._gzip is not None:
            event = self._gzip.compress(event) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        return event


def bomb(size: int) -> Iterator[bytes]:
    """Zeros, compressed: `size` bytes once unpacked, about a thousandth of it here."""
    packer, piece = zlib.compressobj(wbits=GZIP), bytes(1024 * 1024)
    for _ in range(max(1, size // len(piece))):
        yield packer.compress(piece)
    yield packer.flush()
