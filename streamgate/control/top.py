"""`streamgate top`: the live page's feed, in a terminal. Standard library; with the extra `rich` it is drawn in place.

Must not know: the gateway's inside. It is a client like any other, of an address and a token.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import urlsplit

from streamgate.control import screen
from streamgate.sse import SSEError, iter_events

SILENCE: Final = 10.0  # s without a byte, of a feed that speaks once a second: nobody is there any more
READ: Final = 65536
ENDED, FAILED = 0, 1  # exit codes

Show = Callable[[dict[str, Any]], None]


class TopError(Exception):
    """The gateway could not be watched; the message says why."""


def run(url: str, token: str | None, *, once: bool, output: TextIO | None = None) -> int:
    """Show the feed until it ends or the user has seen enough; the exit code."""
    output = output or sys.stdout
    try:
        with showing(output, plain=once) as show:
            for seen in snapshots(url, resolved(token, os.environ)):
                show(seen)
                if once:
                    return ENDED
        complain("the gateway ended the feed")
    except TopError as error:
        complain(str(error))
    except KeyboardInterrupt:
        return ENDED
    except BrokenPipeError:  # `| head` has read enough; Python's own last flush must not complain of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        return ENDED
    return FAILED


def resolved(token: str | None, environ: Mapping[str, str]) -> str | None:
    """The token, which may be a reference like the configuration's. Raises TopError."""
    try:
        if token and token.startswith("file:"):
            return Path(token.removeprefix("file:")).read_text().strip()
        if token and token.startswith("${") and token.endswith("}"):
            return environ[token[2:-1]]
    except OSError as error:
        raise TopError(f"--token: {error.strerror}: {error.filename}") from None
    except KeyError as error:
        raise TopError(f"--token: {error.args[0]} is not set") from None
    return token


def snapshots(url: str, token: str | None) -> Iterator[dict[str, Any]]:
    """What the admin port tells, once a second; ends with the feed. Raises TopError."""
    connection = connect(url)
    try:
        response = ask(connection, url, token)
        for event in iter_events(pieces(response)):
            if event.event == "snapshot":
                yield json.loads(str(event.data))
    except SSEError as error:
        raise TopError(f"{url} does not send the gateway's events: {error}") from None
    except TimeoutError:
        raise TopError(f"{url} has been silent for {SILENCE:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise TopError(f"{url}: {error}") from None
    finally:
        connection.close()


def connect(url: str) -> http.client.HTTPConnection:
    """Not connected yet. Raises TopError for what is no address."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in {"http", "https"} or not host:
        raise TopError(f"expected http://HOST:PORT, got {url!r}")
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=SILENCE, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=SILENCE)


def ask(connection: http.client.HTTPConnection, url: str, token: str | None) -> http.client.HTTPResponse:
    headers = {"accept": "text/event-stream"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    connection.request("GET", "/streams", headers=headers)
    response = connection.getresponse()
    if response.status == http.HTTPStatus.UNAUTHORIZED:
        raise TopError(f"{url} wants the admin token: --token, or STREAMGATE_ADMIN__TOKEN")
    kind = response.headers.get_content_type()
    if response.status != http.HTTPStatus.OK or kind != "text/event-stream":
        raise TopError(f"{url} answered {response.status} ({kind}); is it the admin port of a gateway?")
    return response


def pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it comes."""
    while piece := response.read1(READ):
        yield piece


def showing(output: TextIO, *, plain: bool) -> AbstractContextManager[Show]:
    """How snapshots are shown: drawn in place on a terminal that rich knows, else one table below the other."""
    if not plain and output.isatty():
        try:
            from streamgate.control.screen_rich import drawn  # noqa: PLC0415 - an extra
        except ImportError:
            pass
        else:
            return drawn()
    return nullcontext(lambda seen: written(output, screen.lines(seen, shutil.get_terminal_size().columns)))


def complain(words: str) -> None:
    sys.stderr.write(f"streamgate top: {words}\n")


def written(output: TextIO, lines: Iterable[str]) -> None:
    output.write("\n".join([*lines, "", ""]))
    output.flush()
