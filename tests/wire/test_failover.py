"""A primary that fails before it has said anything: the client sees one whole stream, from the second."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable

import pytest
from stage import DONE, ERROR, FINISH, Peer, Stage, delta

pytestmark = pytest.mark.anyio

WHOLE = [delta(), delta("one"), delta(" opening"), FINISH, DONE]
IN_ORDER = [{"models": ["*"], "upstreams": ["up0", "up1"], "balance": "in_order"}]


async def whole(peer: Peer) -> None:
    while True:
        peer.stream(WHOLE[0])
        for event in WHOLE[1:]:
            peer.chunk(event)
        peer.end()
        await peer.request()


async def resets(peer: Peer) -> None:
    peer.reset()


async def closes(peer: Peer) -> None:
    await peer.close()


async def hangs(peer: Peer) -> None:
    await peer.closed()


async def busy(peer: Peer) -> None:
    peer.answer(429, b'{"error":{"message":"slow down"}}', b"retry-after: 30")


async def unavailable(peer: Peer) -> None:
    peer.answer(503, b"<html>down</html>", kind=b"text/html")


async def error_event(peer: Peer) -> None:
    peer.stream(ERROR)
    await peer.closed()


async def role_then_error(peer: Peer) -> None:
    peer.stream(delta())
    peer.chunk(ERROR)
    await peer.closed()


async def silent_200(peer: Peer) -> None:
    peer.stream(delta())
    await peer.closed()


async def empty_200(peer: Peer) -> None:
    peer.stream()
    peer.end()


async def empty_body(peer: Peer) -> None:
    peer.answer(200, b"")


async def json_error_200(peer: Peer) -> None:
    peer.answer(200, b'{"error":{"message":"loading","code":"loading"}}')


async def html_200(peer: Peer) -> None:
    peer.answer(200, b"<html>welcome</html>", kind=b"text/html")


async def garbage(peer: Peer) -> None:
    peer.send(b"SSH-2.0-OpenSSH_9.2\r\n")


async def gzipped(peer: Peer) -> None:
    peer.answer(200, b"\x1f\x8b\x08", b"content-encoding: gzip", kind=b"text/event-stream")


async def head_bomb(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(2000):
        peer.send(b"x-%d: %s\r\n" % (number, b"a" * 1000))


async def done_only(peer: Peer) -> None:
    peer.stream(DONE)
    peer.end()


PRIMARIES = (
    resets, closes, hangs, busy, unavailable, error_event, role_then_error, silent_200, empty_200, empty_body,
    json_error_200, html_200, garbage, gzipped, head_bomb, done_only,
)  # fmt: skip


@pytest.mark.parametrize("primary", PRIMARIES, ids=lambda primary: primary.__name__)
async def test_primary_fails(stage: Stage, primary: Callable[[Peer], Awaitable[None]]) -> None:
    """One opening, no duplicate, no trace of the first try, within the clocks."""
    first, second = await stage.upstream(primary), await stage.upstream(whole)
    server = await stage.gateway(first, second, routes=IN_ORDER, clocks={"first_token": 0.3})
    began = time.monotonic()
    client = await stage.chat(server)
    assert await client.head() == 200
    assert await client.body() == b"".join(WHOLE)
    assert time.monotonic() - began < 2
    assert (len(first.peers), len(second.peers)) == (1, 1)
    codes = {key: count for key, count in server.observer.tally.attempts.cells.items() if key[0] == "up1"}
    assert codes == {("up1", "2xx"): 1}
    assert sum(server.observer.tally.attempts.cells.values()) == 2
    assert sum(server.observer.tally.failovers.cells.values()) == 1


async def test_primary_refuses(stage: Stage) -> None:
    """A refused connect costs the client nothing, every time."""
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    second = await stage.upstream(whole)
    nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    server = await stage.gateway(nobody, second, routes=IN_ORDER)
    for _ in range(8):  # after five failures in a row it is not even asked
        client = await stage.chat(server)
        assert await client.head() == 200
        assert await client.body() == b"".join(WHOLE)
    assert server.observer.tally.attempts.cells["up0", "connect_error"] == 5
    free.close()


async def test_after_early_commit(stage: Stage) -> None:
    """The head and heartbeats are out, nothing semantic is: another try is still allowed, and its BOM goes."""
    pinged = asyncio.Event()

    async def primary(peer: Peer) -> None:
        await pinged.wait()
        peer.reset()

    async def marked(peer: Peer) -> None:
        peer.stream(b"\xef\xbb\xbf" + WHOLE[0])
        for event in WHOLE[1:]:
            peer.chunk(event)
        peer.end()

    first, second = await stage.upstream(primary), await stage.upstream(marked)
    server = await stage.gateway(first, second, routes=IN_ORDER, clocks={"early_commit": 0, "heartbeat": 0.05})
    client = await stage.chat(server)
    assert await client.head() == 200
    assert await client.piece() == b": ping\n"
    pinged.set()
    body = await client.body()
    assert body.replace(b": ping\n", b"") == b"".join(WHOLE)


async def test_error_after_early_commit(stage: Stage) -> None:
    """Once the head is out an upstream's 404 is an error event with its words."""

    async def script(peer: Peer) -> None:
        await pinged.wait()
        peer.answer(404, b'{"error":{"message":"no such model","code":"model_not_found"}}')

    pinged = asyncio.Event()
    server = await stage.gateway(await stage.upstream(script), clocks={"early_commit": 0, "heartbeat": 0.05})
    client = await stage.chat(server)
    await client.head()
    await client.piece()
    pinged.set()
    last = (await client.body()).split(b"\n")[-3]
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (error["message"], error["code"]) == ("no such model", "model_not_found")


@pytest.mark.parametrize("status", [400, 404, 422, 500])
async def test_never_on_another_status(stage: Stage, status: int) -> None:
    """What another try could not mend is answered as it came, with its words."""
    said = b'{"error":{"message":"no","type":"x","param":null,"code":null}}'

    async def script(peer: Peer) -> None:
        peer.answer(status, said)

    first, second = await stage.upstream(script), await stage.upstream(whole)
    server = await stage.gateway(first, second, routes=IN_ORDER)
    client = await stage.chat(server)
    assert await client.head() == status
    assert await client.body() == said
    assert not second.peers


async def test_never_after_the_first_token(stage: Stage) -> None:
    """A reset after a token is an error event, not a second opening."""

    async def primary(peer: Peer) -> None:
        peer.stream(delta("one"))
        await got.wait()
        peer.reset()

    got = asyncio.Event()
    first, second = await stage.upstream(primary), await stage.upstream(whole)
    server = await stage.gateway(first, second, routes=IN_ORDER)
    client = await stage.chat(server)
    await client.head()
    assert await client.piece() == delta("one")
    got.set()
    assert b"upstream_reset" in await client.body()
    assert not second.peers


async def test_own_key_is_masked(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """401 for the gateway's own key: 502, without the upstream's words."""

    async def script(peer: Peer) -> None:
        peer.answer(401, b'{"error":{"message":"Incorrect API key provided: sk-secret"}}')

    upstream = await stage.upstream(script)
    server = await stage.gateway(
        upstreams=[{"name": "up0", "url": upstream.url, "auth": "none"}], retry={"attempts": 0}
    )
    client = await stage.chat(server)
    assert await client.head() == 502
    body = await client.body()
    assert json.loads(body)["error"]["code"] == "upstream_auth" and b"secret" not in body


async def test_clients_key_is_told(stage: Stage) -> None:
    """With `auth: client` the upstream judged the client's own key, so its words are the client's business."""
    said = b'{"error":"Unauthorized"}'

    async def script(peer: Peer) -> None:
        peer.answer(401, said)

    upstream = await stage.upstream(script)
    server = await stage.gateway(upstreams=[{"name": "up0", "url": upstream.url, "auth": "client"}])
    client = await stage.chat(server, "m", "authorization: Bearer sk-client", "openai-organization: org-1")
    assert await client.head() == 401
    assert await client.body() == said
    head = upstream.peers[0].head.lower()
    assert b"authorization: bearer sk-client" in head and b"openai-organization: org-1" in head


async def test_retry_after_is_honoured(stage: Stage) -> None:
    """The only upstream says 429 and when to come back: the second try comes then, and not before."""
    asked: list[float] = []

    async def script(peer: Peer) -> None:
        asked.append(time.monotonic())
        if len(asked) == 1:
            peer.answer(429, b'{"error":{"message":"slow down"}}', b"retry-after-ms: 200")
            await peer.request()
            asked.append(time.monotonic())
        await whole(peer)

    server = await stage.gateway(await stage.upstream(script))
    client = await stage.chat(server)
    assert await client.head() == 200
    assert await client.body() == b"".join(WHOLE)
    assert 0.19 <= asked[1] - asked[0] < 1
