"""Whole JSON error bodies."""

from __future__ import annotations

import json

import pytest

from streamgate.dialects.bodies import UNSAID, Family, error_body, error_type, family_of, read_error

PATHS = [
    ("/v1/chat/completions", Family.OPENAI),
    ("/v1/models", Family.OPENAI),
    ("/v1/messages", Family.ANTHROPIC),
    ("/v1/messages/count_tokens", Family.ANTHROPIC),
    ("/v1/messagesque", Family.OPENAI),
    ("/api/chat", Family.OLLAMA),
    ("/apiary", Family.OPENAI),
    ("", Family.OPENAI),
]


@pytest.mark.parametrize(("path", "family"), PATHS)
def test_family_of(path: str, family: Family) -> None:
    """The path alone chooses the shape, byte for byte."""
    assert family_of(path) is family


def test_openai_body() -> None:
    """OpenAI's shape has message, type, param and code, all four always."""
    body = error_body(Family.OPENAI, status=404, message="No \nmodel", code="not_found", param="model", request_id="r")
    error = {"message": "No \nmodel", "type": "invalid_request_error", "param": "model", "code": "not_found"}
    assert json.loads(body) == {"error": error}
    assert b"\n" not in body


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (529, "overloaded_error"),
    ],
)
def test_anthropic_body(status: int, kind: str) -> None:
    """Anthropic's shape names the type for the status, and the request when it is known."""
    body = error_body(Family.ANTHROPIC, status=status, message="m", code="c")
    assert json.loads(body) == {"type": "error", "error": {"type": kind, "message": "m"}}
    with_id = error_body(Family.ANTHROPIC, status=status, message="m", code=None, request_id="r-1")
    assert json.loads(with_id)["request_id"] == "r-1"


def test_ollama_body() -> None:
    """Ollama's shape is the message."""
    assert error_body(Family.OLLAMA, status=500, message="m é \ud800", code=None) == '{"error":"m é ?"}'.encode()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (504, "server_error"),
    ],
)
def test_error_type(status: int, kind: str) -> None:
    """OpenAI's type follows the status."""
    assert error_type(status) == kind


BODIES = [
    (b'{"error":{"message":"m","type":"t","code":"c"}}', ("m", "c")),
    (b'{"error":{"message":"m","code":404}}', ("m", "404")),
    (b'{"error":{"message":"m","code":null}}', ("m", None)),
    (b'{"error":{"message":"m","code":["c"]}}', ("m", None)),
    (b'{"error":{"message":5}}', (UNSAID, None)),
    (b'{"error":{"message":""}}', (UNSAID, None)),
    (b'{"error":["m"]}', (UNSAID, None)),
    (b'{"error":"Unauthorized"}', ("Unauthorized", None)),
    (b'{"type":"error","error":{"type":"t","message":"m"}}', ("m", None)),
    (b'{"object":"error","message":"m","code":400}', ("m", "400")),
    (b'{"detail":"Not Found"}', ("Not Found", None)),
    (b'{"detail":[{"loc":["body",15],"msg":"bad"},{"msg":"worse"},"worst",{"loc":["x"]}]}', None),
    (b'{"detail":[]}', ()),
    (b'{"detail":""}', ()),
    (b'{"detail":{}}', ()),
    (b'{"error":null,"choices":[]}', ()),
    (b'{"error":{}}', ()),
    (b'{"message":"m"}', ()),
    (b'["error"]', ()),
    (b'"error"', ()),
    (b"Internal Server Error", ()),
    (b"", ()),
    (b'{"error":"\xff"}', ("�", None)),
    (b'{"error":"m","score":NaN}', ("m", None)),
    (b"[" * 100_000, ()),
]


@pytest.mark.parametrize(("body", "said"), BODIES)
def test_read_error(body: bytes, said: tuple[str, str | None] | tuple[()] | None) -> None:
    """Message and code from every shape that servers use, and None for whatever is not an error."""
    if said is None:
        said = (f"body.15: bad; worse; worst; x: {UNSAID}", None)
    assert read_error(body) == (said or None)
