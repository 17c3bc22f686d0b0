"""GET /v1/models, answered by the gateway: the names that routes allow, and what upstreams have behind the globs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from streamgate.clock import monotonic
from streamgate.dialects.bodies import Family
from streamgate.errors import Fault, Reason, Refusal
from streamgate.record import StreamRecord
from streamgate.relay.headers import own
from streamgate.relay.reply import refuse
from streamgate.relay.request import Request
from streamgate.relay.targets import Target, Targets
from streamgate.routing.table import Route, RouteTable, is_glob
from streamgate.upstream.client import Call, Upstreams

KEPT = 30.0  # s that an upstream's list is kept
LIMIT = 4 * 1024 * 1024  # bytes of such a list
PATIENCE = 5.0  # s to wait for it: a list without one slow upstream's models is better than none


class Models:
    """The list of models. An upstream with `auth: client` is asked anew each time: its answer is that client's own."""

    def __init__(self, routes: Sequence[Route], table: RouteTable, targets: Targets, upstreams: Upstreams) -> None:
        self._routes = routes
        self._table = table
        self._targets = targets
        self._upstreams = upstreams
        self._kept: dict[str, tuple[float, list[str]]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def answer(self, request: Request, record: StreamRecord, scope: Scope, receive: Receive, send: Send) -> None:
        names = await self.names(request)
        wanted = scope["path"].removeprefix("/v1/models").removeprefix("/")
        if wanted and unquote(wanted) not in names:
            refusal = Refusal(
                Reason.NOT_FOUND, 404, f"The model {json.dumps(wanted)} does not exist.", code="model_not_found"
            )
            await refuse(refusal, record, Family.OPENAI)(scope, receive, send)
            return
        record.status = 200
        body = _model(unquote(wanted)) if wanted else {"object": "list", "data": [_model(name) for name in names]}
        response = Response(json.dumps(body), media_type="application/json")
        response.raw_headers += own(record.request_id)
        await response(scope, receive, send)

    async def names(self, request: Request) -> list[str]:
        """Every name that whoever asks may use, once, in the order of the routes."""
        names = dict.fromkeys(self._table.names())
        asked: dict[str, list[str]] = {}
        for route in self._routes:
            if not any(is_glob(model) for model in route.models):
                continue
            for upstream in route.upstreams:
                if upstream not in asked:
                    asked[upstream] = await self._of(self._targets[upstream], request)
                names |= dict.fromkeys(name for name in asked[upstream] if self._allowed(name, route.upstreams))
        return [name for name in names if request.identity.may(name)]

    def _allowed(self, name: str, upstreams: Iterable[str]) -> bool:
        match = self._table.find(name)
        return match is not None and set(match.route.upstreams) == set(upstreams)

    async def _of(self, target: Target, request: Request) -> list[str]:
        if target.client_key:
            return await self._ask(target, request)
        async with self._asking.setdefault(target.name, asyncio.Lock()):
            until, names = self._kept.get(target.name, (0.0, []))
            if monotonic() >= until:
                names = await self._ask(target, request)
                if names:  # one that failed is asked again by the next request
                    self._kept[target.name] = (monotonic() + KEPT, names)
            return names

    async def _ask(self, target: Target, request: Request) -> list[str]:
        """Its models; none when it cannot be asked."""
        call = Call(b"GET", b"/v1/models", target.headers(request), None)
        try:
            answer = await self._upstreams.fetch(target.origin, call, limit=LIMIT, deadline=PATIENCE)
            return _names_in(json.loads(answer.body)) if answer.status == 200 else []
        except (Fault, ValueError):
            return []


def _names_in(listed: Any) -> list[str]:
    models = listed.get("data") if isinstance(listed, dict) else None
    rows = models if isinstance(models, list) else []
    return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "streamgate"}
