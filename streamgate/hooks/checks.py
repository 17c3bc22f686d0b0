"""Whether a hook answered with what was asked for: each check takes the answer and what the hook was given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamgate.hooks.member import Garbage
from streamgate.hooks.spec import Stream
from streamgate.hooks.values import Answer, Headers, Identity, Request, RequestHead, ResponseHead, UpstreamRequest

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def nothing(answer: object, *_: object) -> None:
    """Hooks that are only told."""
    if answer is not None:
        raise _garbage(answer, "None")


def identity(answer: object, _: RequestHead) -> Identity | None:
    if answer is None or isinstance(answer, Identity):
        return answer
    raise _garbage(answer, "Identity or None")


def request(answer: object, given: Request, _: Stream) -> Request | Answer:
    """The same request, where the hook leaves it."""
    if answer is None:
        return given
    if isinstance(answer, Request):
        _legal(answer.headers)
        return answer
    if isinstance(answer, Answer):
        _legal(answer.headers)
        if not 200 <= answer.status <= 599:
            raise Garbage(f"an answer with status {answer.status}")
        return answer
    raise _garbage(answer, "Request, Answer or None")


def upstreams(answer: object, given: Sequence[str], _: Stream) -> Sequence[str]:
    if answer is None:
        return given
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        raise _garbage(answer, "names or None")
    chosen = list(answer)
    if len(set(chosen)) != len(chosen) or not set(chosen) <= set(given):
        raise Garbage("upstreams that were not offered, or one of them twice")
    return chosen


def upstream_request(answer: object, given: UpstreamRequest, _: Stream) -> UpstreamRequest:
    if answer is None:
        return given
    if not isinstance(answer, UpstreamRequest):
        raise _garbage(answer, "UpstreamRequest or None")
    if (answer.upstream, answer.method, answer.path) != (given.upstream, given.method, given.path):
        raise Garbage("another upstream, method or path")
    if (answer.body is None) != (given.body is None):
        raise Garbage("a body where there was none, or none where there was one")
    _legal(answer.headers)
    return answer


def response_head(answer: object, given: ResponseHead, _: Stream) -> ResponseHead:
    if answer is None:
        return given
    if not isinstance(answer, ResponseHead):
        raise _garbage(answer, "ResponseHead or None")
    if not 200 <= answer.status <= 599:
        raise Garbage(f"a head with status {answer.status}")
    _legal(answer.headers)
    return answer


def _legal(headers: Mapping[str, str]) -> None:
    """Names and values that can be sent: nothing in them begins a header of its own."""
    pairs: Any = headers.pairs if isinstance(headers, Headers) else headers.items()
    for name, value in pairs:
        legal = isinstance(name, str) and isinstance(value, str)
        if not legal or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Garbage("a header that cannot be sent")


def _garbage(answer: object, wanted: str) -> Garbage:
    return Garbage(f"{type(answer).__name__} instead of {wanted}")
