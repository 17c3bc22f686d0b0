"""How an error reaches the client: a status before the first byte, an error event after it.

The one seam at which faults become words for outsiders: never a traceback, an upstream's address or a key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from starlette.responses import Response

from streamgate.dialects.bodies import Family, error_body, error_type, read_error
from streamgate.dialects.dialect import Dialect
from streamgate.dialects.plain import PLAIN_SSE
from streamgate.errors import BadStatus, Drained, ErrorEvent, Fault, Killed, Refusal
from streamgate.record import StreamRecord
from streamgate.relay.headers import Headers, own, returned
from streamgate.relay.quota import limited
from streamgate.sse.outlet import Farewell, Outlet

LONGEST_WAIT = 60.0  # s: one SDK sleeps whatever it is told, two others ignore more than 60 and retry at once


@dataclass(frozen=True, slots=True)
class Words:
    """An error as it may be told to anybody."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


def words_for(problem: Refusal | Fault) -> Words:
    match problem:
        case Refusal():
            return Words(
                problem.status, problem.code, problem.message, problem.param, problem.retry_after, problem.headers
            )
        case ErrorEvent(said=said, said_code=code) if said:
            return Words(problem.status, code or problem.code, said)
        case BadStatus():
            read = read_error(problem.body)
            message, code = read or (f"The upstream answered with status {problem.answered}.", None)
            return Words(problem.answered, code or problem.code, message, retry_after=problem.retry_after)
        case Drained():
            return Words(problem.status, problem.code, problem.message, retry_after=1.0)
        case Killed():  # the SDKs of OpenAI and Anthropic try a 503 again, unless they read this
            return Words(problem.status, problem.code, problem.message, headers=((b"x-should-retry", b"false"),))
        case _:
            return Words(problem.status, problem.code, problem.message)


def refuse(refusal: Refusal, record: StreamRecord, family: Family) -> Response:
    """A whole response for a request that never became a stream."""
    record.refusal = refusal
    record.status = refusal.status
    words = words_for(refusal)
    body = _body(words, family, record)
    response = Response(body, refusal.status)
    response.raw_headers = _headers(words, record, body)
    return response


def tell(
    problem: Refusal | Fault,
    outlet: Outlet,
    spoken: Dialect | None,
    family: Family,
    record: StreamRecord,
    quota: Headers = (),
) -> Farewell:
    """Tell the client of a problem in whichever way is still open; `spoken` None: a body that is not events.

    After the first byte a known family gets its error event and a clean end, an unknown one `event: error` and no
    terminating chunk, a body that is not events only the missing chunk: so that any client notices.
    """
    words = words_for(problem)
    if not outlet.started:
        body = _passed_on(problem) or _body(words, family, record)
        record.status = words.status
        headers = _headers(words, record, body, _upstream_headers(problem, record))
        outlet.start(words.status, limited(headers, quota))
        return Farewell(body, whole=True)
    record.status = record.status or 200  # an early commit said so
    if spoken is None:
        return Farewell(whole=False)
    kind = error_type(words.status)
    event = spoken.error_event(words.message, type=kind, code=words.code, param=words.param)
    return Farewell(event, whole=spoken is not PLAIN_SSE)


def _passed_on(problem: Refusal | Fault) -> bytes | None:
    """An upstream's own JSON error, as it came."""
    return problem.body if isinstance(problem, BadStatus) and read_error(problem.body) is not None else None


def _upstream_headers(problem: Refusal | Fault, record: StreamRecord) -> list[tuple[bytes, bytes]]:
    if not isinstance(problem, BadStatus):
        return own(record.request_id)
    passed, record.upstream_request_id = returned(problem.headers, record.request_id)
    return [pair for pair in passed if pair[0] != b"content-type"]


def _body(words: Words, family: Family, record: StreamRecord) -> bytes:
    return error_body(
        family,
        status=words.status,
        message=words.message,
        code=words.code,
        param=words.param,
        request_id=record.request_id,
    )


def _headers(
    words: Words, record: StreamRecord, body: bytes, upstream: list[tuple[bytes, bytes]] | None = None
) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += own(record.request_id) if upstream is None else upstream
    headers += words.headers
    if words.retry_after is not None and not any(name == b"retry-after" for name, _ in headers):
        wait = min(LONGEST_WAIT, max(0.0, words.retry_after))
        headers.append((b"retry-after", str(math.ceil(wait)).encode()))
        headers.append((b"retry-after-ms", str(round(wait * 1000)).encode()))
    if words.code == "gateway_draining" and not upstream:
        headers.append((b"connection", b"close"))
    return headers
