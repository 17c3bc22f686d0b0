"""Whole JSON error bodies: writing the gateway's own in each family's shape, reading an upstream's in any shape."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, Final

import orjson

UNSAID: Final = "The upstream reported an error."  # what an upstream "said" when it gave no words


class Family(Enum):
    """Which SDKs read the answer: each raises its own errors only for its own shape."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"


_OPENAI_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def family_of(path: str) -> Family:
    """The family whose shape an error on this path must have."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return Family.ANTHROPIC
    return Family.OLLAMA if path.startswith("/api/") else Family.OPENAI


def error_type(status: int) -> str:
    """OpenAI's `type` for a status."""
    return _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def error_body(
    family: Family, *, status: int, message: str, code: str | None, param: str | None = None, request_id: str = ""
) -> bytes:
    """One JSON body. Only OpenAI's shape has room for `code` and `param`, only Anthropic's for the request id."""
    body: dict[str, object]
    match family:
        case Family.OPENAI:
            body = {"error": {"message": message, "type": error_type(status), "param": param, "code": code}}
        case Family.ANTHROPIC:
            kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
            body = {"type": "error", "error": {"type": kind, "message": message}}
            if request_id:
                body["request_id"] = request_id
        case Family.OLLAMA:
            body = {"error": message}
    return to_json(body)


def read_error(body: bytes) -> tuple[str, str | None] | None:
    """Message and code of an upstream's own JSON error; None when the body is something else.

    The shapes that servers were seen to use: `error` as an object or a string, FastAPI's `detail` as a string or a
    list, and the older vLLM's `object: "error"`.
    """
    told = from_json(body)
    if not isinstance(told, dict):
        return None
    if told.get("error"):
        return said_in(told["error"])
    if told.get("object") == "error":
        return said_in(told)
    detail = told.get("detail")
    if isinstance(detail, str) and detail:
        return detail, None
    if isinstance(detail, list) and detail:
        return "; ".join(map(_detail, detail)), None
    return None


def said_in(error: object) -> tuple[str, str | None]:
    """Message and code of an `error` value, whatever its type; codes are ints in some servers."""
    if isinstance(error, str):
        return error, None
    if not isinstance(error, dict):
        return UNSAID, None
    message, code = error.get("message"), error.get("code")
    said = message if isinstance(message, str) and message else UNSAID
    return said, str(code) if isinstance(code, str | int) and code else None


def from_json(text: bytes) -> Any:
    """The value, or None for what is not JSON. What only Python writes passes, too: NaN, Infinity, lone surrogates."""
    try:
        return orjson.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def to_json(value: object) -> bytes:
    """Compact JSON on one line; a lone surrogate, which UTF-8 has no bytes for, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _detail(item: object) -> str:
    """One of FastAPI's validation errors: where, and what."""
    if not isinstance(item, dict):
        return str(item)
    where = item.get("loc")
    path = ".".join(map(str, where)) if isinstance(where, list) else ""
    what = item.get("msg") or UNSAID
    return f"{path}: {what}" if path else str(what)
