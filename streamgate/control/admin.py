"""The admin port: metrics and probes for machines, the live page, the drain and the end of a stream for operators.

Who may: `/metrics`, `/livez` and `/readyz` are for everybody who can connect. The rest needs the token, except on a
loopback port; off loopback and without a token it does not exist. Programs bear it; a browser asks its user for it as a
password, because neither a page's address nor its EventSource can carry a header. The danger is then the operator's own
browser, which any web page can send here: a foreign `Origin`, and on loopback a foreign `Host`, is refused.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from streamgate.control.health import Answer, Health
from streamgate.control.pages import pages
from streamgate.control.pulse import Pulse
from streamgate.drain import Drain
from streamgate.observe import Observer
from streamgate.sse import EventSourceResponse

Metrics = Callable[[str], Awaitable[tuple[bytes, str]]]  # Accept -> body, content type

PUBLIC = frozenset({"/metrics", "/livez", "/readyz"})
SAFE = frozenset({"GET", "HEAD"})  # a link from elsewhere is welcome, and no other site can read the answer
NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
VIEWER_SEND = 30.0  # s that a viewer may take no byte, then its socket is given up


def admin_app(
    *,
    observer: Observer,
    drain: Drain,
    metrics: Metrics,
    health: Health,
    token: str | None,
    loopback: bool,
    on_drain: Callable[[], None],
    statistics: Callable[[], Mapping[str, object]] = dict,
    pulse: Pulse | None = None,
) -> ASGIApp:
    """The admin port's application. `on_drain` is called once per POST and must not block.

    `pulse` is the live page's; without it there is none. Its viewers are a group of their own: they are no streams,
    neither for the metrics nor for the drain.
    """

    async def get_metrics(request: Request) -> Response:
        body, content_type = await metrics(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type} | NO_STORE)

    async def get_livez(request: Request) -> Response:
        return probe(health.live())

    async def get_readyz(request: Request) -> Response:
        return probe(health.ready())

    async def get_streams(request: Request) -> Response:
        if pulse is not None and wants_events(request):
            return feed(pulse)
        return as_json(
            {
                "phase": drain.phase.value,
                "observer": observer.statistics(),
                "statistics": statistics(),
                "streams": observer.snapshot(),
            }
        )

    async def post_drain(request: Request) -> Response:
        structlog.get_logger().warning("admin_action", action="drain", client=caller(request))
        on_drain()
        return as_json({"phase": drain.phase.value, "live": len(observer.live)}, 202)

    routes = [
        Route("/metrics", get_metrics, methods=["GET"]),
        Route("/livez", get_livez, methods=["GET"]),
        Route("/readyz", get_readyz, methods=["GET"]),
        Route("/streams", get_streams, methods=["GET"]),
        Route("/drain", post_drain, methods=["POST"]),
    ]
    if pulse is not None:
        routes += live_page(pulse)
    return Guarded(Starlette(routes=routes), token=token, loopback=loopback)


def live_page(pulse: Pulse) -> list[Route]:
    """The page's files, and the end of a stream."""

    async def delete_stream(request: Request) -> Response:
        return killed(pulse, request)

    return [Route("/streams/{id}", delete_stream, methods=["DELETE"]), *pages()]


def feed(pulse: Pulse) -> Response:
    return EventSourceResponse(pulse.feed(), drain=pulse.viewers, send_timeout=VIEWER_SEND, headers=NO_STORE)


def killed(pulse: Pulse, request: Request) -> Response:
    """End every stream with this request id: it may be the client's own, so there may be several."""
    request_id = request.path_params["id"]
    found = [tries for record, tries in pulse.scene.running.items() if record.request_id == request_id]
    ended = sum(tries.killed() for tries in found)
    log = structlog.get_logger()
    log.warning("admin_action", action="kill", request_id=request_id, ended=ended, client=caller(request))
    if not found:
        return as_json({"error": "no such stream"}, 404)
    return as_json({"id": request_id, "ended": ended}, 202 if ended else 409)


class Guarded:
    """Decides who may reach what, before any route is looked up."""

    def __init__(self, app: ASGIApp, *, token: str | None, loopback: bool) -> None:
        self._app = app
        self._token = token
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            app = self._refusal(Request(scope)) or app
        await app(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        if request.url.path in PUBLIC:
            return None
        headers = request.headers
        if self._loopback:
            return None if from_here(headers) else as_json({"error": "not from this host's own pages"}, 403)
        if self._token is None:
            return as_json({"error": "not found"}, 404)
        if not bears(headers.get("authorization", ""), self._token):
            asks = 'Basic realm="streamgate", charset="UTF-8"' if "text/html" in headers.get("accept", "") else "Bearer"
            return as_json({"error": "a token is needed"}, 401, {"www-authenticate": asks})
        if request.method in SAFE or own_page(headers):
            return None
        return as_json({"error": "not from this gateway's own page"}, 403)


def bears(authorization: str, token: str) -> bool:
    """Whether a header carries the token, as it is or as the password of any user; compared in constant time."""
    scheme, _, given = authorization.partition(" ")
    given = given.strip()
    if scheme.lower() == "basic":
        given = password(given)
    return hmac.compare_digest(given.encode(), token.encode()) and scheme.lower() in {"bearer", "basic"}


def password(credentials: str) -> str:
    """What stands after the user's name; "" when it is not what a browser sends."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def own_page(headers: Mapping[str, str]) -> bool:
    """Whether no page of another site sent this: a browser adds the password it remembers to any request.

    `Sec-Fetch-Site` is the browser's own word, and survives a proxy that rewrites `Host`; it is only sent over TLS.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host", "")


def wants_events(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "").lower()


def from_here(headers: Mapping[str, str]) -> bool:
    """Whether a request to a loopback port was not sent by some web page.

    A page of another site brings its `Origin`; one whose name was re-bound to this address brings that name as `Host`.
    """
    host = headers.get("host", "")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        return False
    return is_local(host)


def is_local(host: str) -> bool:
    """Whether a Host header names this machine: an address, or localhost. HTTP/1.0 clients send none."""
    name = host.rpartition("]")[0].lstrip("[") or host.partition(":")[0]
    if name in ("", "localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def probe(answer: Answer) -> Response:
    return as_json({"status": answer.word}, answer.status)


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] = NO_STORE) -> Response:
    return Response(orjson.dumps(value, default=str), status, {**NO_STORE, **headers}, "application/json")


def caller(request: Request) -> str:
    return request.client.host if request.client is not None else ""
