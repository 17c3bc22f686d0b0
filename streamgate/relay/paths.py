"""The API paths that pass: method, body, dialect. A path is equal byte for byte, or it is unknown."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

from streamgate.dialects.bodies import Family, family_of
from streamgate.dialects.dialect import Dialect
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.dialects.openai_completions import OPENAI_COMPLETIONS
from streamgate.dialects.plain import PLAIN_SSE


class Body(Enum):
    """What a request on this path carries."""

    NONE = "none"
    JSON = "json"
    ANY = "any"  # passes unread: multipart uploads


@dataclass(frozen=True, slots=True)
class Path:
    """One known path. `template` is its metric label; `local` means that the gateway answers it itself."""

    template: str
    method: str
    body: Body
    dialect: Dialect
    family: Family
    local: bool = False
    needs_model: bool = False  # a JSON body without `model` is refused
    streams: bool = False  # a request that does not say `stream` asks for one


_STREAM_UNLESS_TOLD = frozenset(("/api/chat", "/api/generate"))
_MODEL_OPTIONAL = frozenset(["/v1/moderations", "/v1/images/generations", "/tokenize", "/detokenize"])


def _path(template: str, method: str = "POST", body: Body = Body.JSON, dialect: Dialect = PLAIN_SSE) -> Path:
    needs_model = body is Body.JSON and template not in _MODEL_OPTIONAL
    streams = template in _STREAM_UNLESS_TOLD
    return Path(template, method, body, dialect, family_of(template), needs_model=needs_model, streams=streams)


# fmt: off
_JSON = (
    "/v1/embeddings", "/v1/responses", "/v1/responses/compact", "/v1/messages", "/v1/messages/count_tokens",
    "/v1/moderations", "/v1/rerank", "/v1/score", "/v1/images/generations", "/v1/audio/speech", "/tokenize",
    "/detokenize", "/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show",
)
# fmt: on
_UPLOADS = ["/v1/images/edits", "/v1/images/variations", "/v1/audio/transcriptions", "/v1/audio/translations"]
_GETS = ["/api/tags", "/api/version"]

KNOWN: dict[bytes, Path] = {
    path.template.encode(): path
    for path in (
        _path("/v1/chat/completions", dialect=OPENAI_CHAT),
        _path("/v1/completions", dialect=OPENAI_COMPLETIONS),
        *(_path(template) for template in _JSON),
        *(_path(template, body=Body.ANY) for template in _UPLOADS),
        *(_path(template, "GET", Body.NONE) for template in _GETS),
        Path("/v1/models", "GET", Body.NONE, PLAIN_SSE, Family.OPENAI, local=True),
    )
}
_MODEL = Path("/v1/models/{id}", "GET", Body.NONE, PLAIN_SSE, Family.OPENAI, local=True)
_MODEL_PATH = re.compile(rb"/v1/models/([A-Za-z0-9._:@+/%-]{1,256})")


class Paths:
    """The known paths and those the operator added (POST, JSON, plain)."""

    def __init__(self, more: tuple[str, ...] = ()) -> None:
        added = (replace(_path(template), needs_model=False) for template in more)
        self._known = KNOWN | {path.template.encode(): path for path in added}

    def find(self, raw: bytes) -> Path | None:
        found = self._known.get(raw)
        if found is None and _MODEL_PATH.fullmatch(raw):
            return _MODEL
        return found
