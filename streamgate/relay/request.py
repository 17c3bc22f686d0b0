"""The client's request: found its path, authenticated, read, bounded, checked, and rebuilt for an upstream.

What ASGI code cannot see (framing, bytes, Host) was judged at the edge. The order is the contract's: the key from the
head, then the body, then the route; so nobody without a key makes the gateway read a body, and nobody queues for a
model that does not exist.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
from starlette.types import Receive, Scope

from streamgate.admission.identity import ANONYMOUS, Identity
from streamgate.admission.keys import Keys
from streamgate.admission.pressure import Pressure
from streamgate.clock import monotonic, wall
from streamgate.drain import Drain
from streamgate.errors import Reason, Refusal
from streamgate.hooks.chain import Plugins, StreamHooks
from streamgate.hooks.values import Answer
from streamgate.record import StreamRecord
from streamgate.relay.consulted import Member, identity_by, raw, request_for
from streamgate.relay.headers import forwarded
from streamgate.relay.paths import Body, Path, Paths
from streamgate.relay.strict_json import BadJson, parse
from streamgate.routing.table import Route, RouteTable

# Above this a parse takes a millisecond or more: it goes to a thread, so that the streams of others do not wait.
OFF_LOOP = 128 * 1024
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_NAME = re.compile(r"[^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]{0,254}[^\x00-\x20\x7f])?")


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request, and what is needed to ask any upstream for it."""

    path: Path
    target: bytes  # raw path and query
    headers: tuple[tuple[bytes, bytes], ...]  # for the upstream, without credentials
    credentials: tuple[tuple[bytes, bytes], ...]  # the client's own: for upstreams with `auth: client` only
    body: bytes | None
    stream: bool
    route: Route
    identity: Identity = ANONYMOUS
    answer: Answer | None = None  # a plugin's, in place of an upstream's


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What requests are checked against. `max_body` in bytes, and `max_bodies` of the routes that allow less;
    `forward_headers` are passed on beside the allow-list."""

    paths: Paths
    keys: Keys
    routes: RouteTable
    drain: Drain
    pressure: Pressure = field(default_factory=Pressure)
    max_body: int = 33554432
    max_bodies: Mapping[Route, int] = field(default_factory=dict)
    forward_headers: frozenset[bytes] = frozenset()
    plugins: Plugins | None = None  # None: there are none
    member: Member | None = None  # with plugins: what they say of who asks, as an identity


def known_path(scope: Scope, record: StreamRecord, policy: Policy) -> Path:
    """The path of this request, its id and client noted in the record. Raises Refusal 404, 405."""
    record.request_id = _request_id(scope["headers"])
    record.method = scope["method"]
    client = scope.get("client")
    record.client = client[0] if client else ""
    path = policy.paths.find(scope.get("raw_path") or scope["path"].encode())
    if path is None:
        raise Refusal(Reason.NOT_FOUND, 404, "There is no such path.", code="unknown_path")
    record.route = path.template
    if record.method != path.method:
        allowed = ((b"allow", path.method.encode()),)
        raise Refusal(
            Reason.METHOD, 405, f"This path takes {path.method} only.", code="method_not_allowed", headers=allowed
        )
    return path


async def read_request(
    scope: Scope, receive: Receive, path: Path, record: StreamRecord, policy: Policy, hooks: StreamHooks | None = None
) -> Request:
    """Authenticate, read and check one request and find its route. Raises `Refusal`."""
    headers = scope["headers"]
    identity = None
    if policy.plugins is not None and policy.member is not None:
        identity = await identity_by(policy.plugins, scope, path, record, policy.member)
    identity = identity or await policy.keys.identify(headers, wall())
    record.tenant = identity.tenant
    if policy.drain.refusing:
        raise Refusal(Reason.DRAINING, 503, "The gateway is shutting down.", code="gateway_draining", retry_after=1.0)
    policy.pressure.check()
    limit = policy.max_body if not identity.max_body else min(policy.max_body, identity.max_body)
    _check_content(headers, path, limit)
    body = await _read_body(scope, receive, limit)
    if path.body is Body.NONE and body:
        raise Refusal(Reason.BAD_REQUEST, 400, "A GET request takes no body.")
    record.t_read = monotonic()
    asked = await _parsed(body) if path.body is Body.JSON else {}
    route = _route(asked, path, record, policy, identity)
    if policy.max_bodies and len(body) > policy.max_bodies.get(route, limit):
        raise _too_large(policy.max_bodies[route])
    answer = None
    if hooks is not None and not path.local:
        hooks.routed(record.model, route.plugins)
        given = request_for(path, record, headers, asked if path.body is Body.JSON else None, body)
        said = await hooks.request(given)
        if isinstance(said, Answer):
            answer = said
        elif said is not given:
            headers, asked, body = raw(said.headers), _checked(dict(said.json or {})), said.body
            route = _route(asked, path, record, policy, identity)
    record.stream = bool(asked.get("stream", path.streams))
    if route.alias is not None and asked:
        # ASCII, escaped: a lone surrogate is good JSON, but there are no bytes for it in UTF-8.
        body = json.dumps(asked | {"model": route.alias}, separators=(",", ":")).encode()
    passed, credentials = forwarded(headers, policy.forward_headers, record.request_id)
    query = scope.get("query_string", b"")
    target = path.template.encode() + (b"?" + query if query else b"")
    return Request(path, target, passed, credentials, body or None, record.stream, route, identity, answer)


def _request_id(headers: list[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return "req_" + secrets.token_hex(12)


def _check_content(headers: list[tuple[bytes, bytes]], path: Path, limit: int) -> None:
    """Judge the body before reading it: kind, coding, and the length it claims."""
    kinds: list[bytes] = []
    for name, value in headers:
        if name == b"content-type":
            kinds.append(value)
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise Refusal(Reason.UNSUPPORTED, 415, "Compressed bodies are not accepted.", code="content_encoding")
        elif name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
    if len(kinds) > 1:  # two readers may each believe another one
        raise Refusal(Reason.BAD_REQUEST, 400, "The request has more than one content type.", code="content_type")
    if path.body is Body.JSON and b"".join(kinds).partition(b";")[0].strip().lower() != b"application/json":
        raise Refusal(Reason.UNSUPPORTED, 415, "The body must be application/json.", code="content_type")


async def _read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body. Raises Refusal 413, or client_left; or whatever the edge has already answered with."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise late_refusal(scope) or Refusal(Reason.CLIENT_LEFT, 499, "The client left.")
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return piece if not pieces else b"".join([*pieces, piece])
        pieces.append(piece)


def late_refusal(scope: Scope) -> Refusal | None:
    """What the edge answered by itself after this request had reached ASGI (a slow or broken body), if it did."""
    edge = scope.get("extensions", {}).get("streamgate.edge")
    late: Refusal | None = getattr(edge, "late", None)
    return late


def _too_large(limit: int) -> Refusal:
    return Refusal(Reason.TOO_LARGE, 413, f"The body is larger than {limit} bytes.", code="body_too_large")


async def _parsed(body: bytes) -> dict[str, Any]:
    try:
        asked = await anyio.to_thread.run_sync(parse, body) if len(body) > OFF_LOOP else parse(body)
    except BadJson as exc:
        raise Refusal(Reason.BAD_REQUEST, 400, str(exc), code="invalid_json") from None
    return _checked(asked)


def _checked(asked: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(asked.get("stream", False), bool) and asked["stream"] is not None:
        raise _wrong("stream", "must be true or false")
    return asked


def _route(asked: Mapping[str, Any], path: Path, record: StreamRecord, policy: Policy, identity: Identity) -> Route:
    model = asked.get("model")
    if model is None:
        if path.needs_model:
            raise _wrong("model", "is required")
        return _any_route(path, policy, identity)
    if not isinstance(model, str) or not _NAME.fullmatch(model) or not model.isprintable():
        raise _wrong("model", "must be a printable string of at most 256 characters")
    record.model = model
    if identity.models and not identity.may(model):  # whether it exists or not: a key learns only of its own
        raise _not_allowed(f"This API key may not use the model {json.dumps(model)}.")
    match = policy.routes.find(model)
    if match is None:
        raise Refusal(
            Reason.NOT_FOUND,
            404,
            f"The model {json.dumps(model)} does not exist.",
            code="model_not_found",
            param="model",
        )
    record.model_label = match.label
    return match.route


def _any_route(path: Path, policy: Policy, identity: Identity) -> Route:
    """For a request that names no model, or names it where nobody reads."""
    route = policy.routes.any_route(path.template)
    if route is None:
        raise Refusal(Reason.NOT_FOUND, 404, "No route takes this path without a model.", code="unknown_path")
    if not path.local and not identity.may_all(route.models):
        raise _not_allowed("This API key may only be used for requests that name a model it is for.")
    return route


def _not_allowed(message: str) -> Refusal:
    return Refusal(Reason.FORBIDDEN, 403, message, code="model_not_allowed", param="model")


def _wrong(param: str, what: str) -> Refusal:
    return Refusal(Reason.BAD_REQUEST, 400, f"`{param}` {what}.", code="invalid_value", param=param)
