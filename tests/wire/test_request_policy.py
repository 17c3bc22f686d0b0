"""What a client may ask: everything else is refused in its own family's form, and nothing of it reaches an upstream."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from stage import Client, Peer, Stage

from streamgate import demo
from streamgate.server import Server

pytestmark = pytest.mark.anyio

CHAT, MESSAGES, OLLAMA = "/v1/chat/completions", "/v1/messages", "/api/chat"
FAMILIES = (CHAT, MESSAGES, OLLAMA)
JSON = "content-type: application/json"
GOOD = b'{"model":"demo-n2-t0","messages":[]}'


@pytest.fixture
async def upstream(anyio_backend: Any) -> AsyncIterator[demo.DemoUpstream]:
    async with await demo.start() as started:
        yield started


async def sent(
    stage: Stage, server: Server, body: bytes, *lines: str, path: str = CHAT, method: str = "POST"
) -> tuple[Client, bytes]:
    """Send one request, its length counted; the client with the head, and the body of the answer."""
    client = await stage.client(server)
    length = [f"content-length: {len(body)}"] if body else []
    head = "\r\n".join([f"{method} {path} HTTP/1.1", "host: gateway", *length, *lines, "", ""])
    client.send(head.encode("latin-1") + body)
    await client.head()
    return client, await client.body()


def message(path: str, body: bytes) -> str:
    """The words of an error, out of the shape that the path's family must have."""
    said = json.loads(body)
    if path.startswith("/v1/messages"):
        assert said.keys() >= {"type", "error"} and said["type"] == "error"
        assert said["error"].keys() == {"type", "message"}
        return str(said["error"]["message"])
    if path.startswith("/api/"):
        assert said.keys() == {"error"}
        return str(said["error"])
    assert said.keys() == {"error"} and said["error"].keys() == {"message", "type", "param", "code"}
    return str(said["error"]["message"])


def untouched(upstream: demo.DemoUpstream) -> None:
    assert upstream.connections_opened == upstream.requests == 0
    assert not upstream.received and not upstream.unfinished


class Bad(NamedTuple):
    """A body, and what the answer says is wrong with it."""

    name: str
    body: bytes
    says: str


def around(value: bytes) -> bytes:
    return b'{"model":"demo-n2-t0","messages":[{"role":"user","content":"hi"}],"x":' + value + b"}"


TWICE = 'The key "a" appears twice'
RANGE = "a number that is out of range"
BODIES = [
    Bad("empty", b"", "not valid JSON"),
    Bad("no JSON", b"hello", "not valid JSON"),
    Bad("half", GOOD[:-1], "not valid JSON"),
    Bad("something behind", GOOD + b"{}", "not valid JSON"),
    Bad("two objects", GOOD + b"\n" + GOOD, "not valid JSON"),
    Bad("comma at the end", b'{"model":"demo-n2-t0",}', "not valid JSON"),
    Bad("single quotes", b"{'model':'demo-n2-t0'}", "not valid JSON"),
    Bad("a comment", b'{"model":"demo-n2-t0"/* here */}', "not valid JSON"),
    Bad("a line break in a string", b'{"model":"demo\n"}', "not valid JSON"),
    Bad("a NUL in a string", around(b'"\x00"'), "not valid JSON"),
    Bad("a byte order mark", b"\xef\xbb\xbf" + GOOD, "not valid JSON"),
    Bad("not UTF-8", around(b'"\xff\xfe"'), "not valid UTF-8"),
    Bad("an overlong encoding", around(b'"\xc0\xaf"'), "not valid UTF-8"),
    Bad("a surrogate in UTF-8", around(b'"\xed\xa0\x80"'), "not valid UTF-8"),
    Bad("UTF-16", GOOD.decode().encode("utf-16"), "not valid UTF-8"),
    Bad("an array", b"[" + GOOD + b"]", "must be a JSON object"),
    Bad("a string", b'"demo-n2-t0"', "must be a JSON object"),
    Bad("a number", b"1", "must be a JSON object"),
    Bad("null", b"null", "must be a JSON object"),
    Bad("a key twice", b'{"a":1,"model":"demo-n2-t0","a":2}', TWICE),
    Bad("a model twice", b'{"model":"demo-n2-t0","model":"other"}', 'The key "model" appears twice'),
    Bad("a key twice, once escaped", b'{"a":1,"model":"demo-n2-t0","\\u0061":2}', TWICE),
    Bad("a key twice, one level down", around(b'{"a":1,"a":1}'), TWICE),
    Bad("a key twice, in arrays", around(b'[[{"b":[{"a":1,"a":1}]}]]'), TWICE),
    Bad("a key twice, 60 deep", around(b'{"b":' * 60 + b'{"a":1,"a":1}' + b"}" * 60), TWICE),
    Bad("1e999", around(b"1e999"), RANGE),
    Bad("-1e999", around(b"[-1e999]"), RANGE),
    Bad("1.5e400", around(b'{"b":1.5e400}'), RANGE),
    Bad("NaN", around(b"NaN"), "NaN is not JSON"),
    Bad("Infinity", around(b"Infinity"), "Infinity is not JSON"),
    Bad("-Infinity", around(b"[-Infinity]"), "-Infinity is not JSON"),
    Bad("a number of 5,000 digits", around(b"9" * 5000), "too many digits"),
    Bad("a negative one", around(b"-" + b"9" * 5000), "too many digits"),
    Bad("a leading zero", around(b"01"), "not valid JSON"),
    Bad("arrays 200 deep", around(b"[" * 200 + b"]" * 200), "more than 64 levels"),
    Bad("arrays 64 deep in the object", around(b"[" * 64 + b"]" * 64), "more than 64 levels"),
    Bad("objects 200 deep", around(b'{"a":' * 200 + b"1" + b"}" * 200), "more than 64 levels"),
    Bad("both, 100,000 deep", around(b'[{"a":' * 50000 + b"1" + b"}]" * 50000), "more than 64 levels"),
    Bad("100,000 brackets and no end", b"[" * 100_000, "more than 64 levels"),
    Bad("large and wrong", around(b'"' + b"x" * 200_000 + b'","x":1'), 'The key "x" appears twice'),
    Bad("stream as a string", b'{"model":"demo-n2-t0","stream":"true"}', "`stream` must be true or false"),
    Bad("stream as a number", b'{"model":"demo-n2-t0","stream":1}', "`stream` must be true or false"),
    Bad("stream as an array", b'{"model":"demo-n2-t0","stream":[]}', "`stream` must be true or false"),
    Bad("no model", b'{"messages":[]}', "`model` is required"),
    Bad("no model in an empty object", b"{}", "`model` is required"),
    Bad("model null", b'{"model":null}', "`model` is required"),
    Bad("model a number", b'{"model":7}', "`model` must be a printable string"),
    Bad("model false", b'{"model":false}', "`model` must be a printable string"),
    Bad("model an array", b'{"model":["demo"]}', "`model` must be a printable string"),
    Bad("model an object", b'{"model":{"demo":1}}', "`model` must be a printable string"),
    Bad("model empty", b'{"model":""}', "`model` must be a printable string"),
    Bad("model of 257 characters", b'{"model":"' + b"m" * 257 + b'"}', "`model` must be a printable string"),
    Bad("model with a line break", b'{"model":"demo\\r\\nx: y"}', "`model` must be a printable string"),
    Bad("model with a NUL", b'{"model":"demo\\u0000"}', "`model` must be a printable string"),
    Bad("model with an escape", b'{"model":"demo\\u001b[31m"}', "`model` must be a printable string"),
    Bad("model with a direction mark", b'{"model":"demo\\u202e"}', "`model` must be a printable string"),
    Bad("model with half a surrogate pair", b'{"model":"demo\\ud800"}', "`model` must be a printable string"),
    Bad("model with a space before", b'{"model":" demo"}', "`model` must be a printable string"),
    Bad("model with a space behind", b'{"model":"demo "}', "`model` must be a printable string"),
]


@pytest.mark.parametrize("bad", BODIES, ids=lambda bad: bad.name)
async def test_bad_body(stage: Stage, upstream: demo.DemoUpstream, bad: Bad) -> None:
    """400, in the words and the shape of each family, on a connection that stays; and nothing goes up."""
    server = await stage.gateway(upstream.url)
    for path in FAMILIES:
        client, body = await sent(stage, server, bad.body, JSON, path=path)
        assert client.status == 400
        assert bad.says in message(path, body)
        assert "connection" not in client.headers
        client.send(b"GET /livez HTTP/1.1\r\nhost: gateway\r\n\r\n")
        assert await client.head() == 200
    untouched(upstream)
    assert sum(server.observer.tally.rejected.cells.values()) == 3
    assert server.observer.statistics()["started"] == 0


KINDS = {
    "none": [],
    "text": ["content-type: text/plain"],
    "empty": ["content-type:"],
    "form": ["content-type: application/x-www-form-urlencoded"],
    "multipart": ["content-type: multipart/form-data; boundary=x"],
    "another JSON": ["content-type: application/jsonlines"],
    "a list": ["content-type: application/json, text/plain"],
    "JSON in a parameter": ["content-type: text/plain; application/json"],
    "gzip": [JSON, "content-encoding: gzip"],
    "gzip in capitals": [JSON, "Content-Encoding: GZIP"],
    "br": [JSON, "content-encoding: br"],
    "identity and gzip": [JSON, "content-encoding: identity, gzip"],
    "two codings": [JSON, "content-encoding: identity", "content-encoding: deflate"],
}


@pytest.mark.parametrize("kind", KINDS)
async def test_bad_kind(stage: Stage, upstream: demo.DemoUpstream, kind: str) -> None:
    """415 for what is not plain application/json, before the body is looked at."""
    server = await stage.gateway(upstream.url)
    for path in FAMILIES:
        client, body = await sent(stage, server, GOOD, *KINDS[kind], path=path)
        assert client.status == 415
        assert "must be application/json" in message(path, body) or "Compressed" in message(path, body)
    untouched(upstream)


@pytest.mark.parametrize(
    "lines",
    [
        ["content-type: application/json; charset=utf-8"],
        ["Content-Type: APPLICATION/JSON"],
        [JSON, "content-encoding: identity"],
        [JSON, "content-encoding:"],
    ],
)
async def test_good_kind(stage: Stage, upstream: demo.DemoUpstream, lines: list[str]) -> None:
    """A charset, capitals, and no coding by name are all plain JSON."""
    server = await stage.gateway(upstream.url)
    for path in FAMILIES:
        client, _ = await sent(stage, server, GOOD, *lines, path=path)
        assert client.status == 200


@pytest.mark.parametrize("kinds", [("text/plain", "application/json"), ("application/json", "text/plain")])
async def test_two_kinds(stage: Stage, upstream: demo.DemoUpstream, kinds: tuple[str, str]) -> None:
    """Two content types are two opinions: what one reader takes for JSON may be something else for the next."""
    server = await stage.gateway(upstream.url)
    client, _ = await sent(stage, server, GOOD, *(f"content-type: {kind}" for kind in kinds))
    assert client.status in (400, 415)
    untouched(upstream)


@pytest.mark.parametrize("how", ["counted", "chunked"])
@pytest.mark.parametrize("path", FAMILIES)
async def test_too_large(stage: Stage, upstream: demo.DemoUpstream, path: str, how: str) -> None:
    """413 before the body is there."""
    server = await stage.gateway(upstream.url, edge={"max_body": 4096})
    client = await stage.client(server)
    framing = "content-length: 4097\r\n\r\n" if how == "counted" else "transfer-encoding: chunked\r\n\r\n1001\r\n{"
    client.send(f"POST {path} HTTP/1.1\r\nhost: gateway\r\n{JSON}\r\n{framing}".encode())
    assert await client.head() == 413
    assert "too large" in message(path, await client.body())
    assert client.headers["connection"] == "close"
    assert await client.reader.read() == b""
    untouched(upstream)


@pytest.mark.parametrize("how", ["counted", "chunked"])
async def test_as_large_as_allowed(stage: Stage, upstream: demo.DemoUpstream, how: str) -> None:
    """The limit itself passes."""
    server = await stage.gateway(upstream.url, edge={"max_body": 4096})
    body = GOOD[:-1] + b" " * (4096 - len(GOOD)) + b"}"
    client = await stage.client(server)
    if how == "counted":
        client.post(CHAT, body)
    else:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\n{JSON}\r\ntransfer-encoding: chunked\r\n\r\n"
        client.send(head.encode() + b"800\r\n" + body[:2048] + b"\r\n800\r\n" + body[2048:] + b"\r\n0\r\n\r\n")
    assert await client.head() == 200
    assert upstream.received[-1].body == body


METHODS = [("GET", CHAT), ("PUT", CHAT), ("DELETE", MESSAGES), ("PATCH", OLLAMA), ("OPTIONS", CHAT)]


@pytest.mark.parametrize(("method", "path"), METHODS)
async def test_wrong_method(stage: Stage, upstream: demo.DemoUpstream, method: str, path: str) -> None:
    """405, and which method it would have been."""
    server = await stage.gateway(upstream.url)
    client, body = await sent(stage, server, b"", path=path, method=method)
    assert client.status == 405
    assert client.headers["allow"] == "POST"
    assert "POST" in message(path, body)
    untouched(upstream)


async def test_get_with_a_body(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """A body where there can be none is refused, not dropped: whoever sent it means something by it."""
    server = await stage.gateway(upstream.url)
    client, body = await sent(stage, server, b"x", path="/api/tags", method="GET")
    assert client.status == 400
    assert "takes no body" in message("/api/tags", body)
    untouched(upstream)


UNKNOWN = [
    "/", "/v1", "/v1/", "/v1/chat", "/v1/chat/completions/", "/v1//chat/completions", "//v1/chat/completions",
    "/v1/chat/../chat/completions", "/v1/./chat/completions", "/v1/%63hat/completions", "/v1/chat%2fcompletions",
    "/v1/x/%2e%2e/chat/completions", "/V1/chat/completions", "/v1/chat/completions;a=b", "/v1/chat/completions%00",
    "/v1/chat/completions%3fa", "/v1/messages/", "/v1/messages/none", "/v1/files", "/api", "/api/", "/api/none",
    "/metrics", "/streams", "/drain", "/reload", "/admin", "/openai/v1/chat/completions",
]  # fmt: skip


@pytest.mark.parametrize("path", UNKNOWN)
async def test_unknown_path(stage: Stage, upstream: demo.DemoUpstream, path: str) -> None:
    """A path is known byte for byte, or it is a 404 in the family's form; nothing is decoded or tidied."""
    server = await stage.gateway(upstream.url)
    client, body = await sent(stage, server, GOOD, JSON, path=path)
    assert client.status == 404
    assert message(path, body)
    untouched(upstream)


@pytest.mark.parametrize("path", FAMILIES)
async def test_unknown_model(stage: Stage, upstream: demo.DemoUpstream, path: str) -> None:
    """A model that no route has is a 404 that names it, before any queue."""
    routes = [{"models": ["demo-*"], "upstreams": ["up0"]}]
    server = await stage.gateway(upstream.url, routes=routes, limits={"concurrent": 1})
    for model in ("gpt-4", "żółw", 'a"b', "<script>", "m" * 256):
        client, body = await sent(stage, server, json.dumps({"model": model}).encode(), JSON, path=path)
        assert client.status == 404
        assert json.dumps(model) in message(path, body)
    untouched(upstream)
    cells = server.observer.tally.rejected.cells
    assert cells == {(path, "not_found"): 5}


def secret(folder: Path, key: str) -> dict[str, str]:
    """A key of the configuration, which takes references only."""
    (folder / key).write_text(key)
    return {"name": key, "key": f"file:{folder / key}"}


@pytest.mark.parametrize("key", [None, "Bearer wrong", "Basic cmlnaHQ=", "Bearer", "Bearer schl\xfcssel", "right"])
@pytest.mark.parametrize("path", FAMILIES)
async def test_keys_come_first(
    stage: Stage, upstream: demo.DemoUpstream, path: str, key: str | None, tmp_path: Path
) -> None:
    """Without a good key nobody learns anything: 401, whatever else is wrong, and before the body has come."""
    server = await stage.gateway(upstream.url, keys=[secret(tmp_path, "right")])
    client = await stage.client(server)
    line = f"authorization: {key}\r\n" if key is not None else ""
    head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: text/plain\r\ncontent-length: 1000\r\n{line}\r\n"
    client.send(head.encode("latin-1"))
    assert await client.head() == 401
    assert client.headers["www-authenticate"] == "Bearer"
    assert "key" in message(path, await client.body()).lower()
    assert client.headers["connection"] == "close"  # its body is still to come
    untouched(upstream)


async def test_a_good_key(stage: Stage, upstream: demo.DemoUpstream, tmp_path: Path) -> None:
    """Either SDK's way of sending it; two different ones are one too many; and none of it goes up."""
    server = await stage.gateway(upstream.url, keys=[secret(tmp_path, "right"), secret(tmp_path, "other")])
    good = [["authorization: Bearer right"], ["x-api-key: right"], ["authorization: bearer other"]]
    good.append(["x-api-key: right", "authorization: Bearer right"])
    for lines in good:
        client, _ = await sent(stage, server, GOOD, JSON, *lines)
        assert client.status == 200
    client, _ = await sent(stage, server, GOOD, JSON, "x-api-key: right", "authorization: Bearer other")
    assert client.status == 401
    assert not any(b"right" in request.raw or b"other" in request.raw for request in upstream.received)


# What passes.

ODD_BODIES = [
    b'{ "model" :\t"demo-n2-t0",\r\n "messages" : [ ] }',
    b'{"messages":[],"model":"demo-n2-t0","seed":123456789012345678901234567890}',
    b'{"model":"demo-n2-t0","temperature":1.00000000000000000001,"top_p":1E+2,"x":-0}',
    '{"model":"demo-n2-t0","messages":[{"content":"żółw \\u017c\\ud83d\\ude00 🚲"}]}'.encode(),
    b'{"model":"demo-n2-t0","stream":null,"x":"\\ud800"}',
    b'{"model":"demo-n2-t0","x":' + b"[" * 62 + b"]" * 62 + b"}",
    b'{"model":"demo-n2-t0","x":"' + b"[{" * 500 + b'"}',
    b'{"model":"demo-n2-t0","x":' + b"9" * 4300 + b"}",
    b'{"model":"demo-n2-t0","x":"' + b"y" * 300_000 + b'"}',
    b"\n" + GOOD + b"\n",
]


@pytest.mark.parametrize("body", ODD_BODIES, ids=range(len(ODD_BODIES)))
async def test_bytes_go_up_unchanged(stage: Stage, upstream: demo.DemoUpstream, body: bytes) -> None:
    """Whatever form good JSON has, the upstream gets that form."""
    server = await stage.gateway(upstream.url)
    client, _ = await sent(stage, server, body, JSON)
    assert client.status == 200
    assert upstream.received[-1].raw.endswith(b"\r\n\r\n" + body) or upstream.received[-1].body == body[:65536]


@pytest.mark.parametrize("body", ODD_BODIES, ids=range(len(ODD_BODIES)))
async def test_an_alias_changes_the_model(stage: Stage, upstream: demo.DemoUpstream, body: bytes) -> None:
    """And nothing else: the same keys in the same order, with the same values."""
    routes = [{"models": ["alias"], "as": "demo-n2-t0", "upstreams": ["up0"]}]
    server = await stage.gateway(upstream.url, routes=routes)
    client, _ = await sent(stage, server, body.replace(b"demo-n2-t0", b"alias"), JSON)
    assert client.status == 200
    if len(body) < 65536:
        got = json.loads(upstream.received[-1].body)
        assert list(got.items()) == list(json.loads(body).items())


@pytest.mark.parametrize("query", ["", "?", "?api-version=2024-10-21&a=%2f%2E", "?a=b?c=/d&&", "?" + "a" * 1024])
async def test_the_query_passes(stage: Stage, upstream: demo.DemoUpstream, query: str) -> None:
    """As it came; it chooses nothing."""
    server = await stage.gateway(upstream.url)
    client, _ = await sent(stage, server, GOOD, JSON, path=CHAT + query)
    assert client.status == 200
    assert upstream.received[-1].target == CHAT + (query if query != "?" else "")


PASSING = {
    "accept": "text/event-stream",
    "user-agent": "OpenAI/Python 1.0",
    "openai-beta": "assistants=v2",
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "a,b",
    "idempotency-key": "stainless-retry-1",
    "x-client-request-id": "mine",
    "x-stainless-lang": "python",
    "x-stainless-retry-count": "0",
}
STAYING = {
    "cookie": "a=b",
    "authorization": "Bearer sk-mine",
    "x-api-key": "sk-mine",
    "api-key": "sk-mine",
    "openai-organization": "org",
    "openai-project": "proj",
    "forwarded": "for=1.2.3.4",
    "x-forwarded-for": "1.2.3.4",
    "x-forwarded-host": "evil.test",
    "x-forwarded-proto": "https",
    "x-real-ip": "1.2.3.4",
    "x-original-url": "/admin",
    "x-http-method-override": "DELETE",
    "via": "1.1 me",
    "baggage": "a=b",
    "last-event-id": "7",
    "origin": "https://evil.test",
    "referer": "https://evil.test",
    "te": "trailers",
    "trailer": "x-a",
    "upgrade": "websocket",
    "keep-alive": "timeout=5",
    "proxy-connection": "keep-alive",
    "proxy-authorization": "Basic xyz",
    "accept-encoding": "gzip",
    "range": "bytes=0-1",
    "if-none-match": "x",
    "x-openai-base-url": "http://evil.test",
    "x-upstream": "http://evil.test",
    "x-team": "blue",
}


def went_up(upstream: demo.DemoUpstream) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in upstream.received[-1].headers:
        found.setdefault(name, []).append(value)
    return found


async def test_which_headers_go_up(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """Those of the list, once; the rest stays; Host, length and coding are the gateway's own."""
    server = await stage.gateway(upstream.url)
    lines = [f"{name}: {value}" for name, value in (PASSING | STAYING).items()]
    await sent(stage, server, GOOD, JSON, "connection: keep-alive", *lines)
    up = went_up(upstream)
    own = {
        "host": [f"127.0.0.1:{upstream.port}"],
        "content-type": ["application/json"],
        "content-length": [str(len(GOOD))],
        "accept-encoding": ["identity"],
        "x-request-id": up["x-request-id"],
    }
    assert up == {name: [value] for name, value in PASSING.items()} | own


async def test_headers_the_operator_adds(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """`forward_headers` lets more pass, whatever their case."""
    server = await stage.gateway(upstream.url, forward_headers=["X-Team"])
    await sent(stage, server, GOOD, JSON, "x-TEAM: blue", "x-other: red")
    assert went_up(upstream)["x-team"] == ["blue"]
    assert "x-other" not in went_up(upstream)


async def test_nominated_headers_stay(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """What `Connection` names is for this hop, even if it is on a list."""
    server = await stage.gateway(upstream.url, forward_headers=["x-team"])
    lines = ["connection: keep-alive, X-Team", "connection:OpenAI-Beta,accept", "x-team: blue", "openai-beta: a"]
    await sent(stage, server, GOOD, JSON, *lines, "accept: */*", "user-agent: me")
    assert not {"x-team", "openai-beta", "accept"} & went_up(upstream).keys()
    assert went_up(upstream)["user-agent"] == ["me"]


@pytest.mark.parametrize(
    ("auth", "passing"),
    [
        ("none", {}),
        ("client", {"authorization": ["Bearer sk-mine"], "openai-organization": ["org"], "openai-project": ["proj"]}),
        ("ours", {"authorization": ["Bearer sk-ours"], "x-api-key": ["sk-ours"]}),
    ],
    ids=["none", "client", "ours"],
)
async def test_credentials(
    stage: Stage, upstream: demo.DemoUpstream, auth: Any, passing: dict[str, list[str]], tmp_path: Path
) -> None:
    """A client's key passes with `auth: client` only; ours takes its place, and billing headers stay."""
    auth = {"key": secret(tmp_path, "sk-ours")["key"]} if auth == "ours" else auth
    server = await stage.gateway(upstreams=[{"name": "up0", "url": upstream.url, "auth": auth}])
    lines = ["authorization: Bearer sk-mine", "openai-organization: org", "openai-project: proj", "baggage: a=b"]
    await sent(stage, server, GOOD, JSON, *lines)
    names = ("authorization", "x-api-key", "openai-organization", "openai-project", "baggage")
    assert {name: went_up(upstream)[name] for name in names if name in went_up(upstream)} == passing


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("lines", "parent", "state"),
    [
        ([f"traceparent: {TRACE}", "tracestate: a=b"], True, True),
        ([f"traceparent: {TRACE}"], True, False),
        ([f"traceparent: {TRACE}", "tracestate: a=b", "tracestate: c=d"], True, True),
        ([f"traceparent: {TRACE}", "tracestate: a=" + "b" * 511], True, False),
        ([f"traceparent: {TRACE}", "tracestate: a=" + "b" * 300, "tracestate: c=" + "d" * 300], True, False),
        (["tracestate: a=b"], False, False),
        ([f"traceparent: {TRACE}", f"traceparent: {TRACE}", "tracestate: a=b"], False, False),
        ([f"traceparent: {TRACE.upper()}", "tracestate: a=b"], False, False),
        (["traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", "tracestate: a=b"], False, False),
        (["traceparent: ff" + TRACE[2:], "tracestate: a=b"], False, False),
        ([f"traceparent: 00-{'0' * 32}-b7ad6b7169203331-01", "tracestate: a=b"], False, False),
        ([f"traceparent: 00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01"], False, False),
        (["traceparent: hello", "tracestate: a=b"], False, False),
    ],
)
async def test_trace_context(
    stage: Stage, upstream: demo.DemoUpstream, lines: list[str], parent: bool, state: bool
) -> None:
    """A valid context passes; an invalid or repeated one starts anew, and its state stays; large state stays too."""
    server = await stage.gateway(upstream.url)
    client, _ = await sent(stage, server, GOOD, JSON, *lines)
    assert client.status == 200
    assert (went_up(upstream).get("traceparent") == [TRACE]) is parent
    assert ("tracestate" in went_up(upstream)) is state


@pytest.mark.parametrize("good", ["a", "req_1.2-3", "A" * 128])
async def test_request_id_that_is_kept(stage: Stage, upstream: demo.DemoUpstream, good: str) -> None:
    """A plain one goes up, and comes back under both names; the upstream's own under a third."""
    server = await stage.gateway(upstream.url)
    client, _ = await sent(stage, server, GOOD, JSON, f"x-request-id: {good}")
    assert client.headers["x-request-id"] == client.headers["request-id"] == good
    assert went_up(upstream)["x-request-id"] == [good]
    assert client.headers["x-upstream-request-id"] == "demo-1"


@pytest.mark.parametrize("bad", ["", "A" * 129, "a b", "a/b", "żółw", "a,b", "a\tb", "<a>"])
async def test_request_id_that_is_replaced(stage: Stage, upstream: demo.DemoUpstream, bad: str) -> None:
    """Any other is replaced by a new one, refusals included; each request has its own."""
    server = await stage.gateway(upstream.url)
    line = f"x-request-id: {bad}".encode().decode("latin-1")
    seen = set()
    for body in (GOOD, GOOD, b"{"):
        client, _ = await sent(stage, server, body, JSON, line)
        assert client.headers["x-request-id"] == client.headers["request-id"]
        assert client.headers["x-request-id"].startswith("req_")
        seen.add(client.headers["x-request-id"])
    assert len(seen) == 3
    assert went_up(upstream)["x-request-id"][0] in seen and len(went_up(upstream)["x-request-id"]) == 1


async def test_two_request_ids(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """Of two, the first good one; one goes up."""
    server = await stage.gateway(upstream.url)
    client, _ = await sent(stage, server, GOOD, JSON, "x-request-id: <a>", "x-request-id: b", "x-request-id: c")
    assert client.headers["x-request-id"] == "b"
    assert went_up(upstream)["x-request-id"] == ["b"]


DOWN = {
    "x-ratelimit-limit-requests": "5",
    "anthropic-ratelimit-tokens-remaining": "7",
    "openai-processing-ms": "12",
    "openai-version": "2020-10-01",
    "openai-organization": "org",
    "retry-after": "3",
    "x-should-retry": "false",
}
NOT_DOWN = {
    "set-cookie": "a=b",
    "server": "engine/1.0",
    "via": "1.1 inner",
    "alt-svc": 'h3=":443"',
    "keep-alive": "timeout=5",
    "proxy-authenticate": "Basic",
    "upgrade": "h2c",
    "trailer": "x-a",
    "access-control-allow-origin": "*",
    "x-powered-by": "Express",
    "strict-transport-security": "max-age=1",
    "cf-ray": "1",
    "x-ratelimit-nominated": "1",
}


@pytest.mark.parametrize("status", [200, 404, 503])
async def test_which_headers_come_down(stage: Stage, status: int) -> None:
    """What SDKs read passes, with an answer and with an error; hop-by-hop, nominated and the upstream's own stay."""

    async def script(peer: Peer) -> None:
        lines = [f"{name}: {value}".encode() for name, value in (DOWN | NOT_DOWN).items()]
        peer.answer(status, b'{"error":{"message":"x"}}' if status > 200 else b'{"a":1}', *lines, NAMED)

    server = await stage.gateway(await stage.upstream(script), retry={"attempts": 0})
    client, _ = await sent(stage, server, GOOD, JSON)
    assert client.status == status
    assert {name: client.headers.get(name) for name in DOWN} == DOWN
    assert not NOT_DOWN.keys() & client.headers.keys()
    assert "connection" not in client.headers


NAMED = b"connection: keep-alive, X-RateLimit-Nominated"


async def test_a_charset_is_kept(stage: Stage) -> None:
    """The content type comes as the upstream said it."""

    async def script(peer: Peer) -> None:
        peer.answer(200, b'{"a":1}', kind=b"application/json; charset=UTF-8")

    server = await stage.gateway(await stage.upstream(script))
    client, _ = await sent(stage, server, GOOD, JSON)
    assert client.headers["content-type"] == "application/json; charset=UTF-8"


# Bodies that are not JSON.

AUDIO = "/v1/audio/transcriptions"
FORM = "content-type: multipart/form-data; boundary=----x"


@pytest.mark.parametrize("size", [0, 1, 70_000, 1_000_000])
@pytest.mark.parametrize("path", [AUDIO, "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations"])
async def test_uploads_pass_unread(stage: Stage, path: str, size: int) -> None:
    """Byte for byte, with their content type, whatever is in them."""
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        got.append(peer.body)
        peer.answer(200, b'{"text":"hi"}')

    upstream = await stage.upstream(script)
    server = await stage.gateway(upstream)
    body = b'{"model":"x","model":' * (size > 50) + os.urandom(size)
    client, answer = await sent(stage, server, body, FORM, path=path)
    assert (client.status, answer) == (200, b'{"text":"hi"}')
    assert got == [body]
    assert FORM.encode() in upstream.peers[0].head
    assert upstream.peers[0].head.startswith(f"POST {path} HTTP/1.1\r\n".encode())


async def test_chunked_uploads_pass(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """A body without a length goes up with one."""
    server = await stage.gateway(upstream.url)
    client = await stage.client(server)
    client.send(f"POST {AUDIO} HTTP/1.1\r\nhost: gateway\r\n{FORM}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    client.send(b"5\r\nhello\r\n3\r\n\x00\xff\n\r\n0\r\n\r\n")
    assert await client.head() == 200
    assert upstream.received[-1].body == b"hello\x00\xff\n"
    assert went_up(upstream)["content-length"] == ["8"]


async def test_uploads_are_bounded(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """By the same limit as JSON; compressed ones are refused."""
    server = await stage.gateway(upstream.url, edge={"max_body": 4096})
    client, _ = await sent(stage, server, b"x" * 4097, FORM, path=AUDIO)
    assert client.status == 413
    client, _ = await sent(stage, server, b"x", FORM, "content-encoding: gzip", path=AUDIO)
    assert client.status == 415
    untouched(upstream)


async def test_uploads_are_routed_by_path(stage: Stage) -> None:
    """To the route that lists their path, else to the one for every model."""
    asked: list[str] = []

    def named(name: str) -> Any:
        async def script(peer: Peer) -> None:
            asked.append(name)
            peer.answer(200, b"{}")

        return script

    routes = [
        {"models": ["demo"], "upstreams": ["up0"]},
        {"models": ["whisper"], "upstreams": ["up1"], "paths": [AUDIO]},
        {"models": ["*"], "upstreams": ["up2"]},
    ]
    ups = [await stage.upstream(named(name)) for name in ("demo", "whisper", "all")]
    server = await stage.gateway(*ups, routes=routes)
    for path in (AUDIO, "/v1/audio/translations"):
        client, _ = await sent(stage, server, b"x", FORM, path=path)
        assert client.status == 200
    assert asked == ["whisper", "all"]


@pytest.mark.parametrize("fault", ["demo-resethead", "demo-status503", "demo-eofhead", "demo-html200"])
async def test_uploads_are_never_sent_twice(stage: Stage, upstream: demo.DemoUpstream, fault: str) -> None:
    """Once a byte of it went up, a failed upload is the client's to repeat; before that, another try may be made."""
    upstream.play = fault
    server = await stage.gateway(upstream.url, retry={"attempts": 2})
    client, _ = await sent(stage, server, b"x" * 1000, FORM, path=AUDIO)
    assert client.status in (502, 503)
    assert upstream.requests == 1


async def test_uploads_may_fail_over_before(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """A connect that was refused took nothing: the next upstream gets the upload."""
    routes = [{"models": ["*"], "upstreams": ["up0", "up1"], "balance": "in_order"}]
    server = await stage.gateway("http://127.0.0.1:1", upstream.url, routes=routes)
    client, _ = await sent(stage, server, b"x" * 1000, FORM, path=AUDIO)
    assert client.status == 200
    assert upstream.requests == 1


async def test_uploads_do_not_gamble_on_a_kept_connection(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """A kept connection that dies under an upload would mean sending it twice: an upload gets a fresh one."""
    server = await stage.gateway(upstream.url)
    await sent(stage, server, b'{"model":"demo-n2-t0-stale","messages":[]}', JSON)
    client, _ = await sent(stage, server, b"x" * 1000, FORM, path=AUDIO)
    assert client.status == 200
    assert upstream.requests == 2 and not upstream.unfinished
