"""The paths that pass."""

from __future__ import annotations

import pytest

from streamgate.dialects.bodies import Family
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.dialects.openai_completions import OPENAI_COMPLETIONS
from streamgate.dialects.plain import PLAIN_SSE
from streamgate.relay.paths import KNOWN, Body, Paths

PATHS = Paths()


def test_all_of_the_contract() -> None:
    """Every path, its method, and what it carries."""
    posts = {
        "chat/completions", "completions", "embeddings", "responses", "responses/compact", "messages",
        "messages/count_tokens", "moderations", "rerank", "score", "images/generations", "audio/speech",
    }  # fmt: skip
    json = {*(f"/v1/{path}" for path in posts), "/tokenize", "/detokenize"}
    json |= {f"/api/{path}" for path in ("chat", "generate", "embed", "embeddings", "show")}
    uploads = {f"/v1/{path}" for path in ("images/edits", "images/variations", "audio/transcriptions")}
    uploads.add("/v1/audio/translations")
    gets = {"/v1/models", "/api/tags", "/api/version"}
    assert {path.template for path in KNOWN.values() if path.body is Body.JSON} == json
    assert {path.template for path in KNOWN.values() if path.body is Body.ANY} == uploads
    assert {path.template for path in KNOWN.values() if path.body is Body.NONE} == gets
    assert {path.template for path in KNOWN.values() if path.method == "GET"} == gets
    assert {path.template for path in KNOWN.values() if path.local} == {"/v1/models"}


def test_dialects_and_families() -> None:
    """Two paths have events that are known; families go by prefix."""
    known = {b"/v1/chat/completions": OPENAI_CHAT, b"/v1/completions": OPENAI_COMPLETIONS}
    for raw, path in KNOWN.items():
        assert path.dialect is known.get(raw, PLAIN_SSE)
        family = Family.ANTHROPIC if raw.startswith(b"/v1/messages") else Family.OPENAI
        assert path.family is (Family.OLLAMA if raw.startswith(b"/api/") else family)


def test_which_stream_by_themselves() -> None:
    """Ollama's two."""
    assert {path.template for path in KNOWN.values() if path.streams} == {"/api/chat", "/api/generate"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"/",
        b"/v1/chat/completions/",
        b"/v1/Chat/completions",
        b"/v1/chat%2fcompletions",
        b"//v1/models",
        b"/v1/models/",
    ],
)
def test_unknown(raw: bytes) -> None:
    """Equal byte for byte, or unknown."""
    assert PATHS.find(raw) is None


@pytest.mark.parametrize("name", [b"a", b"org/model", b"a%20b", b"a:b@c+d", b"x" * 256])
def test_one_model(name: bytes) -> None:
    """Any name under one template, so that metrics have one label."""
    found = PATHS.find(b"/v1/models/" + name)
    assert found is not None and found.template == "/v1/models/{id}" and found.local


@pytest.mark.parametrize("name", [b"x" * 257, b"a b", b"a?b", b'a"', b"\xc5\xbc"])
def test_no_model(name: bytes) -> None:
    """What cannot be a name in a path."""
    assert PATHS.find(b"/v1/models/" + name) is None


def test_added_paths() -> None:
    """POST, JSON, plain events, no model needed; a known one may be opened up in the same way."""
    found = Paths(("/v2/x", "/api/y")).find(b"/v2/x")
    assert found is not None
    assert (found.method, found.body, found.dialect, found.needs_model) == ("POST", Body.JSON, PLAIN_SSE, False)
    added = Paths(("/api/y",)).find(b"/api/y")
    assert added is not None and added.family is Family.OLLAMA
    assert PATHS.find(b"/v2/x") is None
