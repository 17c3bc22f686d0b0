"""The admin port: metrics and probes for machines, live streams and the drain for operators.

Who may: `/metrics`, `/livez` and `/readyz` are for everybody who can connect. The rest needs the token, except on a
loopback port; off loopback and without a token it does not exist. On loopback the danger is the operator's own
browser, which any web page can send here: a foreign `Origin` or `Host` is refused.
"""

from __future__ import annotations

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
from streamgate.drain import Drain
from streamgate.observe import Observer

Metrics = Callable[[str], Awaitable[tuple[bytes, str]]]  # Accept -> body, content type

PUBLIC = frozenset({"/metrics", "/livez", "/readyz"})
NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


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
) -> ASGIApp:
    """The admin port's application. `on_drain` is called once per POST and must not block."""

    async def get_metrics(request: Request) -> Response:
        body, content_type = await metrics(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type} | NO_STORE)

    async def get_livez(request: Request) -> Response:
        return probe(health.live())

    async def get_readyz(request: Request) -> Response:
        return probe(health.ready())

    async def get_streams(request: Request) -> Response:
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
    return Guarded(Starlette(routes=routes), token=token, loopback=loopback)


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
        if self._loopback:
            return None if from_here(request.headers) else as_json({"error": "not from this host's own pages"}, 403)
        if self._token is None:
            return as_json({"error": "not found"}, 404)
        if bears(request.headers.get("authorization", ""), self._token):
            return None
        return as_json({"error": "a token is needed"}, 401, {"www-authenticate": "Bearer"})


def bears(authorization: str, token: str) -> bool:
    """Whether a header carries the token; compared in constant time."""
    scheme, _, given = authorization.partition(" ")
    return hmac.compare_digest(given.strip().encode(), token.encode()) and scheme.lower() == "bearer"


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
