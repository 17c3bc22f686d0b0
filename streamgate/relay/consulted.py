"""What plugins say of a request before it waits for a place: who is asking, a changed request, an answer of their own.

Only where there are plugins; the values of the relay become those of the promise here, and back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

from streamgate.admission.identity import Identity
from streamgate.errors import Reason, Refusal
from streamgate.hooks import values
from streamgate.hooks.chain import Plugins, StreamHooks
from streamgate.record import StreamRecord
from streamgate.relay.headers import Headers, own
from streamgate.relay.paths import Path
from streamgate.upstream.client import Call

# tenant, name of the key or person, models, class -> the identity with the limits that the configuration has for them
Member = Callable[[str, str, Sequence[str], str], Identity]


async def identity_by(
    plugins: Plugins, scope: Scope, path: Path, record: StreamRecord, member: Member
) -> Identity | None:
    """Who is asking, by the first plugin that knows; None: the gateway's own keys decide. Raises Refusal."""
    head = values.RequestHead(
        method=record.method, path=path.template, headers=words(scope["headers"]), client=record.client
    )
    known = await plugins.authenticate(head)
    return member(known.tenant, known.name, known.models, known.priority) if known is not None else None


def request_for(
    path: Path, record: StreamRecord, headers: Headers, asked: Mapping[str, Any] | None, body: bytes
) -> values.Request:
    """A checked request, as `on_request` is given it; `asked` None: the body is not JSON."""
    stream = bool(asked.get("stream", path.streams)) if asked is not None else False
    return values.Request(
        method=record.method,
        path=path.template,
        model=record.model,
        stream=stream,
        headers=words(headers),
        json=asked,
        body=body,
        client=record.client,
    )


async def amended(call: Call, upstream: str, hooks: StreamHooks) -> Call:
    """What is sent to this upstream, after plugins have seen it. Raises PluginFailed, a fault of this try."""
    given = values.UpstreamRequest(
        upstream=upstream,
        method=call.method.decode(),
        path=call.path.decode("latin-1"),
        headers=words(call.headers),
        body=call.body,
    )
    changed = await hooks.upstream_request(given)
    return call if changed is given else replace(call, headers=tuple(raw(changed.headers)), body=changed.body)


def is_refusal(answer: values.Answer) -> bool:
    """A whole body with an error status: an answer without a stream."""
    return answer.events is None and answer.status >= 400


def refused_by(answer: values.Answer, record: StreamRecord) -> Response:
    """A plugin's refusal in its own words: as it gave them, and counted as any refusal by a plugin."""
    record.refusal = Refusal(Reason.PLUGIN, answer.status, "A plugin answered.")
    record.status = answer.status
    response = Response(answer.body, answer.status)
    given = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    length = (b"content-length", str(len(answer.body)).encode())
    response.raw_headers = [*(pair for pair in given if pair[0] != b"content-length"), length, *own(record.request_id)]
    return response


def words(headers: Headers) -> values.Headers:
    return values.Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])


def raw(headers: values.Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.pairs]
