"""Every path that passes, streaming and not; more by configuration; the probes beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stage import DONE, FINISH, Client, Peer, Scripted, Stage, delta

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
POSTS = [
    CHAT, "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/responses/compact", "/v1/messages",
    "/v1/messages/count_tokens", "/v1/moderations", "/v1/rerank", "/v1/score", "/v1/images/generations",
    "/v1/audio/speech", "/tokenize", "/detokenize", "/api/chat", "/api/generate", "/api/embed", "/api/embeddings",
    "/api/show",
]  # fmt: skip
UPLOADS = ["/v1/images/edits", "/v1/images/variations", "/v1/audio/transcriptions", "/v1/audio/translations"]
GETS = ["/api/tags", "/api/version"]
WITHOUT_MODEL = ["/v1/moderations", "/v1/images/generations", "/tokenize", "/detokenize"]

EVENTS = {
    CHAT: delta("a") + FINISH + DONE,
    "/v1/completions": b'data: {"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}\n\n' + DONE,
}
PLAIN = b"event: one\ndata: {}\n\nid: 7\ndata: two\n\n"
ANSWER = b'{"object":"whatever","data":[1,2,3]}'


async def echo(peer: Peer) -> None:
    """Events for whoever asked for them, else JSON; again and again."""
    while True:
        path = peer.head.split(b" ")[1].decode()
        if b'"stream":true' in peer.body:
            peer.stream(EVENTS.get(path, PLAIN))
            peer.end()
        else:
            peer.answer(200, ANSWER)
        await peer.request()


async def asked(stage: Stage, url: str, method: str, path: str, body: bytes = b"", *lines: str) -> Client:
    client = await stage.client(_At(url))  # type: ignore[arg-type]
    length = [f"content-length: {len(body)}"] if body else []
    client.send("\r\n".join([f"{method} {path} HTTP/1.1", "host: gateway", *length, *lines, "", ""]).encode() + body)
    await client.head()
    return client


class _At:
    def __init__(self, url: str) -> None:
        self.url = url


def went_up(upstream: Scripted) -> tuple[bytes, bytes]:
    """The request line and the body of the last request."""
    peer = upstream.peers[-1]
    return peer.head.split(b"\r\n")[0], peer.body


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "answer"])
@pytest.mark.parametrize("path", POSTS)
async def test_json_paths(stage: Stage, path: str, stream: bool) -> None:
    """They pass as they are, and so does the answer; one stream, completed, under its own path."""
    upstream = await stage.upstream(echo)
    server = await stage.gateway(upstream)
    body = b'{"model": "m", "stream":%b}' % (b"true" if stream else b"false")
    client = await asked(stage, server.url, "POST", path, body, "content-type: application/json")
    assert client.status == 200
    assert await client.body() == (EVENTS.get(path, PLAIN) if stream else ANSWER)
    assert client.headers["content-type"] == ("text/event-stream" if stream else "application/json")
    assert went_up(upstream) == (f"POST {path} HTTP/1.1".encode(), body)
    ended = {key[0]: key[-1] for key in server.observer.tally.ended.cells}
    assert ended == {path: "completed"}


@pytest.mark.parametrize("path", UPLOADS)
async def test_upload_paths(stage: Stage, path: str) -> None:
    """Bodies that are not read pass as well, JSON or not."""
    upstream = await stage.upstream(echo)
    server = await stage.gateway(upstream)
    for kind in ("multipart/form-data; boundary=x", "application/json", "application/octet-stream"):
        client = await asked(stage, server.url, "POST", path, b"\x00{", f"content-type: {kind}")
        assert (client.status, await client.body()) == (200, ANSWER)
        assert went_up(upstream) == (f"POST {path} HTTP/1.1".encode(), b"\x00{")


@pytest.mark.parametrize("path", GETS)
async def test_get_paths(stage: Stage, path: str) -> None:
    """They pass without a body, in either direction of the word."""
    upstream = await stage.upstream(echo)
    server = await stage.gateway(upstream)
    client = await asked(stage, server.url, "GET", path + "?a=b")
    assert (client.status, await client.body()) == (200, ANSWER)
    assert went_up(upstream) == (f"GET {path}?a=b HTTP/1.1".encode(), b"")
    assert b"content-length" not in upstream.peers[-1].head.lower()


@pytest.mark.parametrize("path", [*POSTS, *UPLOADS, *GETS, "/v1/models"])
async def test_other_methods(stage: Stage, path: str) -> None:
    """405 in the family's form, and which method it takes."""
    server = await stage.gateway(await stage.upstream(echo))
    takes = "GET" if path in [*GETS, "/v1/models"] else "POST"
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - {takes}:
        client = await asked(stage, server.url, method, path)
        assert client.status == 405
        assert client.headers["allow"] == takes
        check_shape(path, await client.body())


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/messages/nothing", "/api/nothing", "/nothing", "/v1/chat"])
async def test_other_paths(stage: Stage, path: str) -> None:
    """404 in the family's form."""
    server = await stage.gateway(await stage.upstream(echo))
    client = await asked(stage, server.url, "POST", path, b"{}", "content-type: application/json")
    assert client.status == 404
    check_shape(path, await client.body())


def check_shape(path: str, body: bytes) -> None:
    said = json.loads(body)
    if path.startswith("/v1/messages"):
        assert said["type"] == "error" and said["error"].keys() == {"type", "message"}
    elif path.startswith("/api/"):
        assert said.keys() == {"error"} and isinstance(said["error"], str)
    else:
        assert said["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", [path for path in POSTS if path not in WITHOUT_MODEL])
async def test_a_model_is_needed(stage: Stage, path: str) -> None:
    """Without one there is no telling where it goes."""
    server = await stage.gateway(await stage.upstream(echo))
    client = await asked(stage, server.url, "POST", path, b"{}", "content-type: application/json")
    assert client.status == 400
    check_shape(path, await client.body())


@pytest.mark.parametrize("path", WITHOUT_MODEL)
async def test_a_model_is_not_needed(stage: Stage, path: str) -> None:
    """APIs that have a default model may be asked without one."""
    upstream = await stage.upstream(echo)
    server = await stage.gateway(upstream)
    client = await asked(stage, server.url, "POST", path, b'{"x":1}', "content-type: application/json")
    assert (client.status, await client.body()) == (200, ANSWER)
    assert went_up(upstream)[1] == b'{"x":1}'


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_ollama_streams_unless_told(stage: Stage, path: str) -> None:
    """Without `stream` these two ask for one: lines pass as they come, under the token clocks."""
    lines = b'{"message":{"content":"a"},"done":false}\n{"done":true}\n'

    async def script(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n")
        peer.chunk(lines)
        peer.end()

    server = await stage.gateway(await stage.upstream(script))
    client = await asked(stage, server.url, "POST", path, b'{"model":"m"}', "content-type: application/json")
    assert (client.status, await client.body()) == (200, lines)
    assert client.headers["content-type"] == "application/x-ndjson"


@pytest.mark.parametrize("prefix", ["", "/v1", "/prefix", "/prefix/v1", "/"])
async def test_prefixes(stage: Stage, prefix: str) -> None:
    """The client's path is appended to the upstream's, and `/v1` is never doubled."""
    upstream = await stage.upstream(echo)
    server = await stage.gateway(upstream.url + prefix)
    body = b'{"model":"m"}'
    client = await asked(stage, server.url, "POST", CHAT + "?a=b", body, "content-type: application/json")
    assert client.status == 200
    before = prefix.rstrip("/").removesuffix("/v1")
    assert went_up(upstream)[0] == f"POST {before}{CHAT}?a=b HTTP/1.1".encode()


async def test_paths_from_the_configuration(stage: Stage) -> None:
    """More paths take POST and JSON; what they stream passes; a model is not needed; near misses are unknown."""
    upstream = await stage.upstream(echo)
    server = await stage.gateway(upstream, paths=["/v2/generate", "/v1/chat/completions/render"])
    for path in ("/v2/generate", "/v1/chat/completions/render"):
        for body, said in ((b'{"stream":true}', PLAIN), (b'{"model":"m"}', ANSWER)):
            client = await asked(stage, server.url, "POST", path, body, "content-type: application/json")
            assert (client.status, await client.body()) == (200, said)
            assert went_up(upstream)[0] == f"POST {path} HTTP/1.1".encode()
        client = await asked(stage, server.url, "GET", path)
        assert client.status == 405
        client = await asked(stage, server.url, "POST", path, b"x", "content-type: text/plain")
        assert client.status == 415
    client = await asked(stage, server.url, "POST", "/v2/generate/", b"{}", "content-type: application/json")
    assert client.status == 404


async def test_faults_on_other_paths(stage: Stage) -> None:
    """Where the events of a family are not known, an error is `event: error`, and the body does not end properly."""

    async def script(peer: Peer) -> None:
        peer.stream(PLAIN)
        await peer.writer.drain()
        await peer.reader.read(1)

    for path in ("/v1/messages", "/v1/responses", "/api/chat"):
        server = await stage.gateway(await stage.upstream(script), clocks={"idle": 0.1})
        body = b'{"model":"m","stream":true}'
        client = await asked(stage, server.url, "POST", path, body, "content-type: application/json")
        assert client.status == 200
        said = await client.cut_body()
        assert said.startswith(PLAIN + b"event: error\ndata: ")
        assert json.loads(said[len(PLAIN) + 19 :])["error"]["code"] == "idle_timeout"


async def test_faults_in_a_body(stage: Stage) -> None:
    """To a body that is not events nothing is added; it does not end properly."""

    async def script(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 1000\r\n\r\nID3")
        await peer.writer.drain()
        await peer.close()

    server = await stage.gateway(await stage.upstream(script))
    body = b'{"model":"m","input":"hi"}'
    client = await asked(stage, server.url, "POST", "/v1/audio/speech", body, "content-type: application/json")
    assert client.status == 200
    assert client.headers["content-type"] == "audio/mpeg"
    assert await client.cut_body() == b"ID3"


@pytest.mark.parametrize("probe", ["/livez", "/readyz"])
async def test_probes(stage: Stage, probe: str, tmp_path: Path) -> None:
    """Also on the traffic port, without a key; GET only; nothing is counted."""
    (tmp_path / "key").write_text("right")
    keys = [{"name": "team", "key": f"file:{tmp_path / 'key'}"}]
    server = await stage.gateway("http://127.0.0.1:1", keys=keys)
    client = await asked(stage, server.url, "GET", probe)
    assert client.status == 200
    await client.body()
    client = await asked(stage, server.url, "POST", probe)
    assert client.status == 405
    assert server.observer.statistics() == {"active": 0, "live": 0, "started": 0, "ended": 0, "rejected": 0}


async def test_probes_while_draining(stage: Stage, until: Callable[..., Any]) -> None:
    """Readiness goes at once, liveness stays, and newcomers on open connections are told to go."""

    async def held(peer: Peer) -> None:
        peer.stream(delta("a"))
        await peer.closed()

    server = await stage.gateway(await stage.upstream(held), drain={"timeout": 5, "lameduck": 0})
    idle = [await stage.client(server) for _ in range(3)]
    await until(lambda: server.census.connections == 3)
    running = await stage.chat(server)
    await running.head()
    server.begin_drain()
    server.gateway.drain.refuse()
    for client, path, status in ((idle[0], "/livez", 200), (idle[1], "/readyz", 503), (idle[2], "/v1/models", 503)):
        client.send(f"GET {path} HTTP/1.1\r\nhost: gateway\r\n\r\n".encode())
        assert await client.head() == status
        assert client.headers["connection"] == "close"
        body = await client.body()
    assert json.loads(body)["error"]["code"] == "gateway_draining"
    assert client.headers["retry-after"] == "1"
    assert await running.piece() == delta("a")
    running.close()
    await until(lambda: len(server.drain) == 0)
