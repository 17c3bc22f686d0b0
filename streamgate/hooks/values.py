"""What hooks are given and what they give back: plain values. All of it is public, by `streamgate.hooks`."""

from __future__ import annotations

import json as _json
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from streamgate.errors import StreamgateError

if TYPE_CHECKING:
    from streamgate.hooks.spec import Stream
    from streamgate.record import Usage
    from streamgate.sse.event import ServerSentEvent


class Refuse(StreamgateError):
    """Raised by `authenticate` and `on_request`: no stream for this request, but a status and an error body.

    `code` is for programs, `message` for people, and the client reads both; `retry_after` in seconds, where waiting
    helps (at most 60 are told). Not a failure of the plugin: nothing is counted against it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after: float | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        if not 400 <= status <= 599:
            raise ValueError(f"a refusal has a status of 400 to 599, not {status}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.headers = dict(headers or {})


class Abort(StreamgateError):
    """Raised by `on_event` and `on_text`: the stream ends here, with an error event in the client's own form.

    What the plugin was holding or was shown when it raised is not sent. The outcome is plugin_abort.
    """

    def __init__(self, message: str, code: str = "plugin_abort") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Headers(Mapping[str, str]):
    """HTTP headers, read-only; names in lower case, looked up in any; the values of a repeated one joined by commas."""

    __slots__ = ("_joined", "pairs")

    def __init__(self, given: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        pairs = given.items() if isinstance(given, Mapping) else given
        self.pairs = tuple((name.lower(), value) for name, value in pairs)  # as they are on the wire, in order
        joined: dict[str, str] = {}
        for name, value in self.pairs:
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
        self._joined = joined

    def __getitem__(self, name: str) -> str:
        return self._joined[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._joined)

    def __len__(self) -> int:
        return len(self._joined)

    def __repr__(self) -> str:
        return f"Headers({', '.join(self._joined)})"  # names alone: values may be keys

    def replaced(self, changes: Mapping[str, str | None]) -> Headers:
        """The same headers with these set; None takes one out."""
        lowered = {name.lower(): value for name, value in changes.items()}
        kept = [pair for pair in self.pairs if pair[0] not in lowered]
        return Headers([*kept, *((name, value) for name, value in lowered.items() if value is not None)])


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """A request before its body is read. `client` is its address, as far as trusted proxies tell."""

    method: str
    path: str
    headers: Headers
    client: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who is asking. `tenant` is whom limits and records are kept for, `name` one key or person of that tenant;
    `models` are globs of what may be asked for, empty for all; `priority` the name of a configured class."""

    tenant: str
    name: str = ""
    models: tuple[str, ...] = ()
    priority: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A checked request, before it is given a place and an upstream. `json` is None where the body is not JSON.

    `headers` are the client's, its key among them. Not to be changed in place: `replaced` gives another one.
    """

    method: str
    path: str  # the path's template: "/v1/chat/completions"
    model: str  # as the client asked; "" for a request without one
    stream: bool  # the client asked for events
    headers: Headers
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    body: bytes = field(default=b"", repr=False)
    client: str = ""

    def replaced(
        self, *, json: Mapping[str, Any] | None = None, headers: Mapping[str, str | None] | None = None
    ) -> Request:
        """The same request with another JSON body (its model and stream follow), or with some headers set or, by None,
        taken out."""
        changed = self
        if json is not None:
            model, stream = json.get("model"), json.get("stream", False)
            changed = replace(
                changed,
                json=json,
                body=to_json(json),
                model=model if isinstance(model, str) else "",
                stream=stream is True,
            )
        return changed if headers is None else replace(changed, headers=self.headers.replaced(headers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A plugin's own answer instead of an upstream's: a whole `body`, or `events` for a client that asked for a stream.

    Events pass the text and event hooks of the plugins after the one that answered, as an upstream's would; an async
    iterable sets their pace. They end as the family's streams end: for OpenAI's, finish reasons and `[DONE]` are the
    plugin's to give.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    events: Iterable[ServerSentEvent | bytes] | AsyncIterable[ServerSentEvent | bytes] | None = field(
        default=None, repr=False
    )

    @classmethod
    def of_json(cls, value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
        """A whole answer of one JSON value."""
        return cls(status=status, headers={"content-type": "application/json", **(headers or {})}, body=to_json(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRequest:
    """What is about to be sent to an upstream, once for each try. Its address is not a plugin's to choose."""

    upstream: str  # its configured name
    method: str
    path: str  # with the query
    headers: Headers
    body: bytes | None = field(default=None, repr=False)  # None: there is none, or it is passed on unread

    @property
    def json(self) -> Any:
        """The body as a JSON value, parsed at each use. Raises ValueError when it is something else."""
        return _json.loads(self.body or b"")

    def replaced(
        self,
        *,
        headers: Mapping[str, str | None] | None = None,
        body: bytes | None = None,
        json: Mapping[str, Any] | None = None,
    ) -> UpstreamRequest:
        """The same request with another body, or with some headers set or, by None, taken out."""
        changed = self
        if json is not None:
            body = to_json(json)
        if body is not None:
            changed = replace(changed, body=body)
        return changed if headers is None else replace(changed, headers=self.headers.replaced(headers))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """The head of the response, before it goes to the client: the upstream's status, and its headers that pass."""

    status: int
    headers: Headers

    def replaced(self, *, status: int | None = None, headers: Mapping[str, str | None] | None = None) -> ResponseHead:
        """The same head with another status, or with some headers set or, by None, taken out."""
        changed = self if status is None else replace(self, status=status)
        return changed if headers is None else replace(changed, headers=self.headers.replaced(headers))


Kind = Literal["content", "reasoning"]


class Text(NamedTuple):
    """Text of one choice that has not been released yet: what was kept the last time, and what came since.

    `final`: nothing comes after it, because the choice or the stream ends; all of it must be released now. `field` is
    where it stands in the API's own words: two fields of one choice are two texts, even of one kind.
    """

    choice: int
    kind: Kind
    pending: str
    final: bool
    field: str = ""


class Kept(NamedTuple):
    """Release `out`, which stands for `pending` without its last `keep` characters; keep those for the next call."""

    out: str
    keep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a request went: a stream that ended, or a request that never became one. Times in seconds.

    Exactly one of `outcome` and `reason` is set.
    """

    id: str  # the request's id, as the client and the upstream know it
    outcome: str = ""  # a word of `streamgate.record.Outcome`: "completed", "client_closed", ...
    reason: str = ""  # why it was refused, a word of `streamgate.errors.Reason`: "auth", "rate", "plugin", ...
    code: str = ""  # the error's, as the client read it; "" when there was none
    tenant: str = ""
    client: str = ""
    method: str = ""
    path: str = ""
    model: str = ""
    upstream: str = ""  # the last one tried
    stream: Stream  # the plugin's own view: its `state` is the plugin's
    status: int = 0  # 0: nothing was sent
    attempts: int = 0
    finish_reason: str = ""  # of all choices, joined by commas
    usage: Usage | None = None  # tokens, as the upstream stated them
    events: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    at: float  # the end, in seconds since the epoch
    duration: float  # from the request's first byte to the last of the answer
    queued: float = 0.0  # spent waiting for a place
    first_token: float | None = None  # from the request's first byte to the first token's
    max_gap: float = 0.0  # the longest silence between two tokens


def to_json(value: object) -> bytes:
    """Compact and in ASCII: a lone surrogate is good JSON, but there are no bytes for it in UTF-8."""
    return _json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
