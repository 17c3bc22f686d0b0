"""The fault catalogue through the whole gateway: what the client sees, what is counted, and that nothing is left.

One row per fault, by the catalogue's numbers. What an upstream does wrong is asked of the demo upstream by the model's
name; every row may try once more, so that the codes of the attempts show what is tried again and what is not.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from stage import DONE, FINISH, Client, Peer, Stage, delta

from streamgate import demo
from streamgate.demo.bodies import WORDS
from streamgate.record import Outcome
from streamgate.server import Server
from tests.ports import free_port
from tests.wire.test_cancellation import balanced
from tests.wire.test_dial import black_hole, certificates, tls

__all__ = ["certificates", "tls"]  # fixtures

pytestmark = pytest.mark.anyio

SAID = "The demo upstream was asked to fail."
HOP_BY_HOP = {
    "x-named", "keep-alive", "proxy-authenticate", "upgrade", "trailer", "access-control-allow-origin", "x-two",
    "connection",
}  # fmt: skip
PING = b": ping\n"
RID = "fault-1"
HELD = {"first_token": 0.4, "idle": 0.4, "connect": 0.4, "answer": 0.4, "send": 0.8}
ONE_MORE = {"attempts": 1}
Until = Callable[..., Awaitable[None]]


class Told(NamedTuple):
    """Before the first byte: a status, and JSON in the family's form."""

    status: int
    code: str
    message: str = ""
    headers: Mapping[str, str] = MappingProxyType({})


class Broken(NamedTuple):
    """After the first byte: so many tokens, the error event, a proper end and no `[DONE]`."""

    tokens: int
    code: str
    message: str = ""


class Same(NamedTuple):
    """The very bytes that the upstream gives when it is asked directly, up to `until`."""

    until: bytes = b""


class Like(NamedTuple):
    """The bytes that the upstream gives for another model, this one's name aside."""

    model: str


Expected = Told | Broken | Same | Like


class Row(NamedTuple):
    number: int
    model: str
    expected: Expected
    outcome: Outcome
    attempts: str  # the codes of the tries, in the order of the alphabet
    stream: bool = True
    settings: Mapping[str, Any] = MappingProxyType({})


UP, CUT, OK = Outcome.UPSTREAM_ERROR, Outcome.TRUNCATED, Outcome.COMPLETED
SLOW, IDLE, LATE = Outcome.TIMEOUT_FIRST_TOKEN, Outcome.TIMEOUT_IDLE, Outcome.DEADLINE
ROOMY = {"clocks": {"first_token": 1.2, "idle": 1.0}}
BEATING = {"clocks": HELD | {"heartbeat": 0.05}}
SMALL = {"limits": {"max_event": 65536}}

BEFORE = [
    Row(6, "demo-resethead", Told(502, "upstream_reset"), UP, "reset reset"),
    Row(6, "demo-n4-t0-first1:resethead", Like("demo-n4-t0"), OK, "2xx reset"),
    Row(7, "demo-eofhead", Told(502, "upstream_closed"), UP, "eof eof"),
    Row(7, "demo-n4-t0-first1:eofhead", Like("demo-n4-t0"), OK, "2xx eof"),
    Row(8, "demo-silent", Told(504, "first_token_timeout"), SLOW, "timeout timeout"),
    Row(8, "demo-halfhead", Told(504, "first_token_timeout"), SLOW, "timeout timeout"),
    Row(8, "demo-n4-t0-first1:silent", Like("demo-n4-t0"), OK, "2xx timeout"),
    Row(9, "demo-stall0", Told(504, "first_token_timeout"), SLOW, "timeout timeout"),
    Row(9, "demo-stall1", Told(504, "first_token_timeout"), SLOW, "timeout timeout"),
    Row(10, "demo-dribble20", Told(504, "first_token_timeout"), SLOW, "timeout timeout"),
    Row(11, "demo-garbage", Told(502, "upstream_protocol"), UP, "protocol protocol"),
    Row(12, "demo-headerbomb", Told(502, "upstream_protocol"), UP, "protocol protocol"),
    Row(13, "demo-jsonerror", Told(502, "demo_error", SAID), UP, "error_event error_event"),
    Row(14, "demo-html200", Told(502, "upstream_content_type"), UP, "protocol protocol"),
    Row(15, "demo-empty", Told(502, "upstream_empty"), CUT, "empty empty"),
    Row(15, "demo-n4-t0-first1:empty", Like("demo-n4-t0"), OK, "2xx empty"),
    Row(15, "demo-cleaneof0", Told(502, "upstream_empty"), CUT, "empty empty"),
    Row(16, "demo-errorevent0", Told(502, "demo_error", SAID), UP, "error_event error_event"),
    Row(16, "demo-errornamed0", Told(502, "demo_error", SAID), UP, "error_event error_event"),
    Row(16, "demo-errorold0", Told(502, "500", SAID), UP, "error_event error_event"),
    Row(16, "demo-errorevent1", Told(502, "demo_error", SAID), UP, "error_event error_event"),
    Row(17, "demo-status400", Told(400, "demo_error", SAID), OK, "4xx"),
    Row(17, "demo-status404", Told(404, "demo_error", SAID), OK, "4xx"),
    Row(17, "demo-status413", Told(413, "demo_error", SAID), OK, "4xx"),
    Row(17, "demo-status422", Told(422, "demo_error", SAID), OK, "4xx"),
    Row(17, "demo-html404", Told(404, "upstream_error"), OK, "4xx"),
    Row(18, "demo-status401", Told(502, "upstream_auth"), UP, "4xx"),
    Row(18, "demo-status403", Told(502, "upstream_auth"), UP, "4xx"),
    Row(19, "demo-status429-r30", Told(429, "demo_error", SAID, {"retry-after": "30"}), OK, "429"),
    Row(19, "demo-n4-t0-first1:status429-r0", Like("demo-n4-t0"), OK, "2xx 429"),
    Row(20, "demo-status500", Told(500, "demo_error", SAID), UP, "5xx"),
    Row(20, "demo-html500", Told(500, "upstream_error"), UP, "5xx"),
    Row(20, "demo-html503", Told(503, "upstream_error"), UP, "5xx 5xx"),
    Row(20, "demo-status503-r30", Told(503, "demo_error", SAID, {"retry-after": "30"}), UP, "5xx"),
    Row(20, "demo-empty500", Told(500, "upstream_error"), UP, "5xx"),
    Row(22, "demo-redirect", Told(502, "upstream_redirect"), UP, "3xx"),
    Row(22, "demo-redirect307", Told(502, "upstream_redirect"), UP, "3xx"),
    Row(25, "demo-commentsonly20", Told(504, "first_token_timeout"), SLOW, "timeout timeout"),
    Row(28, "demo-cleaneof1", Told(502, "upstream_truncated"), CUT, "eof eof"),
    Row(30, "demo-half0", Told(502, "upstream_truncated"), CUT, "eof eof"),
    Row(31, "demo-badchunk0", Told(502, "upstream_protocol"), UP, "protocol protocol"),
    Row(33, "demo-status500-inject", Told(500, "demo_error", SAID), UP, "5xx"),
    Row(33, "demo-errorevent0-inject", Told(502, "demo_error", SAID), UP, "error_event error_event"),
    Row(36, "demo-giant0", Told(502, "event_too_large"), UP, "protocol", settings=SMALL),
    Row(37, "demo-gzip", Told(502, "upstream_encoding"), UP, "protocol protocol"),
    Row(37, "demo-gzipbomb2000000", Told(502, "upstream_encoding"), UP, "protocol protocol"),
    Row(40, "demo-clte", Told(502, "upstream_protocol"), UP, "protocol protocol"),
    Row(43, "demo-badheaders", Told(502, "upstream_protocol"), UP, "protocol protocol"),
]

MIDDLE = [
    Row(24, "demo-t0-stall3", Broken(2, "idle_timeout"), IDLE, "timeout", settings=BEATING),
    Row(26, "demo-t0-reset3", Broken(2, "upstream_reset"), UP, "reset"),
    Row(27, "demo-t0-cut3", Broken(2, "upstream_truncated"), CUT, "eof"),
    Row(27, "demo-t0-eof3", Broken(2, "upstream_truncated"), CUT, "eof"),
    Row(28, "demo-t0-cleaneof3", Broken(2, "upstream_truncated"), CUT, "eof"),
    Row(28, "demo-t0-http10-eof3", Broken(2, "upstream_truncated"), CUT, "eof"),
    Row(28, "demo-n2-t0-split4-nofinish", Broken(2, "upstream_truncated"), CUT, "eof"),
    Row(30, "demo-t0-half3", Broken(2, "upstream_truncated"), CUT, "eof"),
    Row(31, "demo-t0-badchunk3", Broken(2, "upstream_protocol"), UP, "protocol"),
    Row(32, "demo-t0-split4-errorevent3", Broken(2, "demo_error", SAID), UP, "error_event"),
    Row(32, "demo-t0-split4-errornamed3", Broken(2, "demo_error", SAID), UP, "error_event"),
    Row(32, "demo-t0-split4-errorold3", Broken(2, "500", SAID), UP, "error_event"),
    Row(33, "demo-t0-split4-errorevent3-inject", Broken(2, "demo_error", SAID), UP, "error_event"),
    Row(33, "demo-t0-split4-errorold3-inject", Broken(2, "500", SAID), UP, "error_event"),
    Row(36, "demo-t0-giant3", Broken(2, "event_too_large"), UP, "protocol", settings=SMALL),
    Row(36, "demo-t0-giantlines3", Broken(2, "event_too_large"), UP, "protocol", settings=SMALL),
    Row(40, "demo-n2-t0-shortcl", Broken(2, "upstream_truncated"), CUT, "eof"),
]

HARMLESS = [
    Row(23, "demo-n4-t0-earlyhints", Same(), OK, "2xx"),
    Row(29, "demo-n4-t0-nodone", Same(), OK, "2xx"),
    Row(29, "demo-n4-t0-http10-nodone", Same(), OK, "2xx"),
    Row(35, "demo-n4-t0-nonjson3", Same(), OK, "2xx"),
    Row(35, "demo-n4-t0-nul3", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-crlf", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-cr", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-bom", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-bom-crlf", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-multiline", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-multiline-crlf-split1", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-split1", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-cr-split1", Same(), OK, "2xx"),
    Row(38, "demo-n20-t0-burst", Same(), OK, "2xx"),
    Row(38, "demo-n20-t0-burst-split7", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-bigevent70000", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-bigevent70000-split1000", Same(), OK, "2xx"),
    Row(38, "demo-n12-t0-utf8-split1", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-length", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-http10", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-closeafter", Same(), OK, "2xx"),
    Row(38, "demo-t0-tools", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-reasoning", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-roles-usagefinish", Same(), OK, "2xx"),
    Row(38, "demo-n4-t0-comments", Like("demo-n4-t0"), OK, "2xx"),
    Row(39, "demo-n4-t0-donemore", Same(until=b"data: [DONE]\n\n"), OK, "2xx"),
    Row(40, "demo-n4-t0-longcl", Same(), OK, "2xx"),
    Row(43, "demo-n4-t0-hopheaders", Same(), OK, "2xx"),
    Row(44, "demo-n3-d150-t150", Same(), OK, "2xx", settings=ROOMY),
    Row(44, "demo-n3-hb150-t150", Same(), OK, "2xx", settings=ROOMY),
    Row(44, "demo-n2-t0-dribble0", Same(), OK, "2xx"),
    Row(32, "demo-n4-t0-split4-finishabort", Same(), UP, "error_event"),
    Row(32, "demo-n4-t0-split4-finisherror", Same(), UP, "error_event"),
]

ANSWERS = [
    Row(6, "demo-t0-resethead", Told(502, "upstream_reset"), UP, "reset reset", stream=False),
    Row(8, "demo-t0-silent", Told(504, "deadline"), LATE, "timeout", stream=False),
    Row(8, "demo-t0-stall0", Told(504, "deadline"), LATE, "timeout", stream=False),
    Row(13, "demo-t0-jsonerror", Told(502, "demo_error", SAID), UP, "error_event error_event", stream=False),
    Row(14, "demo-t0-html200", Told(502, "upstream_content_type"), UP, "protocol protocol", stream=False),
    Row(15, "demo-t0-empty", Told(502, "upstream_empty"), CUT, "empty empty", stream=False),
    Row(17, "demo-t0-status404", Told(404, "demo_error", SAID), OK, "4xx", stream=False),
    Row(22, "demo-t0-redirect", Told(502, "upstream_redirect"), UP, "3xx", stream=False),
    Row(26, "demo-t0-reset1", Told(502, "upstream_reset"), UP, "reset reset", stream=False),
    Row(27, "demo-t0-cut1", Told(502, "upstream_truncated"), CUT, "eof eof", stream=False),
    Row(31, "demo-t0-badchunk1", Told(502, "upstream_protocol"), UP, "protocol protocol", stream=False),
    Row(37, "demo-t0-gzip", Told(502, "upstream_encoding"), UP, "protocol protocol", stream=False),
    Row(40, "demo-t0-shortcl", Told(502, "upstream_truncated"), CUT, "eof eof", stream=False),
    Row(40, "demo-t0-longcl", Told(502, "upstream_truncated"), CUT, "eof eof", stream=False),
    Row(38, "demo-n4-t0-chunked", Same(), OK, "2xx", stream=False),
    Row(38, "demo-n4-t0-http10", Same(), OK, "2xx", stream=False),
]

ROWS = [*BEFORE, *MIDDLE, *HARMLESS, *ANSWERS]


def named(row: Row) -> str:
    return f"{row.number} {row.model}{'' if row.stream else ' without stream'}"


class Level:
    """How many descriptors and tasks there were, and that there are no more of them."""

    def __init__(self) -> None:
        self.descriptors = descriptors()
        self.tasks = asyncio.all_tasks()

    async def restored(self, server: Server, until: Until) -> None:
        """The books balance; of descriptors only those of kept connections are left, at both of their ends."""
        await balanced(server, until)
        await until(lambda: server.census.connections == 0)
        await until(lambda: descriptors() == self.descriptors + 2 * kept(server), 2)
        await until(lambda: asyncio.all_tasks() <= self.tasks, 2)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def kept(server: Server) -> int:
    return sum(books.pooled + books.settling for books in server.gateway.upstreams.statistics().values())


def outcomes(server: Server) -> Counter[str]:
    return Counter({key[-1]: count for key, count in server.observer.tally.ended.cells.items()})


def attempts(server: Server) -> str:
    """The codes of all tries, in the order of the alphabet."""
    cells = server.observer.tally.attempts.cells.items()
    return " ".join(sorted(code for (_, code), count in cells for _ in range(count)))


def drop(client: Client) -> None:
    client.writer.transport.abort()


def question(model: str, *, stream: bool) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}


async def ask(stage: Stage, url: str, model: str, *, stream: bool = True) -> Client:
    """A client that has asked whoever listens there."""
    client = await stage.client(_At(url))  # type: ignore[arg-type]
    client.post("/v1/chat/completions", question(model, stream=stream), f"x-request-id: {RID}")
    return client


class _At(NamedTuple):
    url: str


async def directly(stage: Stage, upstream: demo.DemoUpstream, model: str, *, stream: bool) -> bytes:
    """What the upstream says to whoever asks without a gateway."""
    client = await ask(stage, upstream.url, model, stream=stream)
    client.writer.write_eof() if "doneopen" in model else None
    raw = b""
    await client.head()
    while client.status < 200 or (client.status == 103):
        await client.head()
    if "transfer-encoding" in client.headers:
        raw = await client.body()
    elif "longcl" in model or "content-length" not in client.headers:
        raw = await asyncio.wait_for(client.reader.read(), 5)
    else:
        raw = await client.body()
    client.writer.transport.abort()
    return raw


# What a client must have read.


def check_told(client: Client, body: bytes, told: Told, upstream: demo.DemoUpstream | None) -> None:
    assert client.status == told.status, body
    assert client.headers["content-type"] == "application/json"
    assert client.headers["content-length"] == str(len(body))
    assert client.headers["x-request-id"] == client.headers["request-id"] == RID
    assert client.headers["cache-control"] == "no-cache, no-transform"
    assert "location" not in client.headers
    for name, value in told.headers.items():
        assert client.headers[name] == value
    check_words(json.loads(body), told.code, told.message)
    check_discreet(body, upstream)


def check_words(said: dict[str, Any], code: str, message: str) -> None:
    """OpenAI's shape, with words in it."""
    assert said.keys() == {"error"}
    assert said["error"].keys() == {"message", "type", "param", "code"}
    assert str(said["error"]["code"]) == code, said
    words = said["error"]["message"]
    assert words.startswith(message) and words[0].isupper() and len(words.split()) > 3


def check_discreet(body: bytes, upstream: demo.DemoUpstream | None) -> None:
    """No page, no traceback, no address."""
    assert b"<html" not in body and b"<h1" not in body and b"Traceback" not in body and b"internal" not in body
    assert upstream is None or str(upstream.port).encode() not in body


def check_broken(body: bytes, broken: Broken, upstream: demo.DemoUpstream | None) -> None:
    events = body.replace(PING, b"").strip().split(b"\n\n")
    *before, last = [event.splitlines()[-1].removeprefix(b"data: ") for event in events]
    tokens = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in before]
    assert [token for token in tokens if token] == [f"{word} " for word in WORDS[: broken.tokens]]
    check_words(json.loads(last), broken.code, broken.message)
    assert b"\ndata: [DONE]" not in body
    check_discreet(last, upstream)


async def check(stage: Stage, client: Client, row: Row, upstream: demo.DemoUpstream) -> None:
    """Read the whole answer, and compare."""
    await client.head()
    body = await client.body()
    match row.expected:
        case Told() as told:
            check_told(client, body, told, upstream)
        case Broken() as broken:
            assert client.status == 200
            check_broken(body, broken, upstream)
            assert (PING in body) == ("heartbeat" in row.settings.get("clocks", {}))
        case Same(end):
            assert client.status == 200
            direct = await directly(stage, upstream, row.model, stream=row.stream)
            assert body == (direct[: direct.index(end) + len(end)] if end else direct)
        case Like(model):
            assert client.status == 200
            assert body.replace(row.model.encode(), model.encode()) == await directly(
                stage, upstream, model, stream=row.stream
            )
    assert not HOP_BY_HOP & client.headers.keys()


async def serves(stage: Stage, url: str, model: str = "demo-n3-t0") -> None:
    """A normal stream arrives whole."""
    client = await ask(stage, url, model)
    assert await client.head() == 200
    body = await client.body()
    assert body.endswith(b"data: [DONE]\n\n") and body.count(b'"content":"') == 4
    drop(client)


@pytest.fixture
async def upstream(anyio_backend: Any) -> AsyncIterator[demo.DemoUpstream]:
    async with await demo.start() as started:
        yield started


@pytest.mark.parametrize("row", ROWS, ids=named)
async def test_row(stage: Stage, upstream: demo.DemoUpstream, row: Row, until: Until) -> None:
    """The client hears of the fault in the right way, it is counted right, nothing is left of it, others are served."""
    server = await stage.gateway(upstream.url, **{"clocks": HELD, "retry": ONE_MORE} | row.settings)
    level = Level()
    client = await ask(stage, server.url, row.model, stream=row.stream)
    await check(stage, client, row, upstream)
    await until(lambda: server.observer.statistics()["ended"] == 1)
    assert outcomes(server) == {row.outcome.value: 1}
    assert attempts(server) == row.attempts
    drop(client)
    await serves(stage, server.url)
    await level.restored(server, until)


@pytest.mark.parametrize("row", [row for row in BEFORE if isinstance(row.expected, Told)], ids=named)
async def test_row_after_an_early_commit(stage: Stage, upstream: demo.DemoUpstream, row: Row, until: Until) -> None:
    """Once the head is out, the same fault is an error event with the same code, then a proper end."""
    told = row.expected
    assert isinstance(told, Told)
    settings = {"clocks": HELD | {"early_commit": 0}, "retry": {"attempts": 0}} | row.settings
    settings["clocks"] = HELD | {"early_commit": 0}
    server = await stage.gateway(upstream.url, **settings)
    level = Level()
    client = await ask(stage, server.url, row.model.replace("demo-", "demo-hb30-", 1))
    assert await client.head() == 200
    check_broken(await client.body(), Broken(0, told.code, told.message), upstream)
    await until(lambda: server.observer.statistics()["ended"] == 1)
    assert outcomes(server) == {row.outcome.value: 1}
    drop(client)
    await serves(stage, server.url)
    await level.restored(server, until)


async def test_json_that_is_no_error_after_an_early_commit(stage: Stage, upstream: demo.DemoUpstream) -> None:
    """Where events were promised, a JSON answer cannot be relayed, and says so in an event."""
    server = await stage.gateway(upstream.url, clocks=HELD | {"early_commit": 0}, retry={"attempts": 0})
    upstream.play = "demo-hb30-n2-t0"
    client = await stage.client(server)
    body = question("m", stream=True) | {"model": "m"}
    client.post("/v1/completions", body | {"prompt": "hi"}, f"x-request-id: {RID}")
    assert await client.head() == 200
    assert (await client.body()).endswith(b"data: [DONE]\n\n")
    client.post("/v1/embeddings", body | {"input": "hi"}, f"x-request-id: {RID}")
    assert await client.head() == 200
    said = await client.cut_body()  # the events of no known family: an error event, and no proper end
    assert said.startswith(b"event: error\ndata: ") and b"upstream_content_type" in said


# 1 to 5, 50: upstreams that cannot be reached, and of two, one.


async def two(stage: Stage, url: str, good: demo.DemoUpstream, **settings: Any) -> Server:
    """A gateway where the model `bad` goes to that url and nowhere else, all others to the good upstream."""
    routes = [{"models": ["bad"], "upstreams": ["up0"]}, {"models": ["*"], "upstreams": ["up1"]}]
    return await stage.gateway(url, good.url, **{"routes": routes, "clocks": HELD, "retry": ONE_MORE} | settings)


async def unreachable(
    stage: Stage, upstream: demo.DemoUpstream, url: str, told: Told, codes: str, until: Until
) -> None:
    server = await two(stage, url, upstream)
    level = Level()
    began = time.monotonic()
    client = await ask(stage, server.url, "bad")
    assert await client.head() == told.status
    body = await client.body()
    assert time.monotonic() - began < 1
    check_told(client, body, told, None)
    assert url.partition("//")[2].encode() not in body
    await until(lambda: server.observer.statistics()["ended"] == 1)
    assert outcomes(server) == {"upstream_error": 1}
    assert attempts(server) == codes
    drop(client)
    await serves(stage, server.url)
    await level.restored(server, until)


async def test_1_refused(stage: Stage, upstream: demo.DemoUpstream, until: Until) -> None:
    """Nobody listens: 502 at once."""
    url = f"http://127.0.0.1:{free_port()}"
    await unreachable(stage, upstream, url, Told(502, "upstream_unreachable"), "connect_error connect_error", until)


async def test_2_one_of_two_is_down(stage: Stage, upstream: demo.DemoUpstream, until: Until) -> None:
    """Of two upstreams one refuses: every request succeeds, every time."""
    server = await stage.gateway(f"http://127.0.0.1:{free_port()}", upstream.url)
    level = Level()
    for _ in range(10):
        await serves(stage, server.url)
    assert outcomes(server) == {"completed": 10}
    await level.restored(server, until)


async def test_3_nobody_answers_the_syn(stage: Stage, upstream: demo.DemoUpstream, until: Until) -> None:
    """A black hole: 504 within the connect clock times the tries."""
    told = Told(504, "upstream_connect_timeout")
    with black_hole() as port:
        url = f"http://127.0.0.1:{port}"
        await unreachable(stage, upstream, url, told, "connect_timeout connect_timeout", until)


async def test_4_no_such_name(stage: Stage, upstream: demo.DemoUpstream, until: Until) -> None:
    """A name that cannot be resolved: 502, and the name is not told."""
    url = f"http://{'a' * 70}.test"
    await unreachable(stage, upstream, url, Told(502, "upstream_unreachable"), "dns_error dns_error", until)


async def test_5_not_trusted(
    stage: Stage,
    upstream: demo.DemoUpstream,
    tls: tuple[ssl.SSLContext, str, list[str | None]],
    until: Until,
) -> None:
    """A certificate that nobody vouches for: 502, and not one byte of the request was sent."""
    async with await demo.start(tls=tls[0]) as strange:
        await unreachable(stage, upstream, strange.url, Told(502, "upstream_tls"), "tls_error tls_error", until)
        assert not strange.requests and not strange.received and not strange.unfinished


async def test_21_a_retry_storm(stage: Stage, upstream: demo.DemoUpstream, until: Until) -> None:
    """When everything fails, the tries are bounded over all streams, and each client hears why."""
    retry = {"attempts": 2, "budget": 0.2, "budget_min_per_s": 0}
    server = await stage.gateway(upstream.url, retry=retry)
    level = Level()

    async def one() -> None:
        client = await ask(stage, server.url, "demo-hb20-status503")
        await client.head()
        check_told(client, await client.body(), Told(503, "demo_error", SAID), upstream)
        drop(client)

    async with asyncio.TaskGroup() as group:
        for _ in range(60):
            group.create_task(one())
    assert 60 < upstream.requests <= 60 * 1.2
    assert outcomes(server) == {"upstream_error": 60}
    await serves(stage, server.url)
    await level.restored(server, until)


async def test_34_invalid_utf8(stage: Stage, upstream: demo.DemoUpstream, until: Until) -> None:
    """What is not UTF-8 becomes U+FFFD; all else is as it came."""
    server = await stage.gateway(upstream.url)
    level = Level()
    client = await ask(stage, server.url, "demo-n12-t0-utf8-badbytes3")
    await client.head()
    body = await client.body()
    direct = await directly(stage, upstream, "demo-n12-t0-utf8-badbytes3", stream=True)
    assert body == direct.decode(errors="replace").encode()
    assert "Grüße" in body.decode() and "\ufffd" in body.decode()
    drop(client)
    await level.restored(server, until)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "answer"])
@pytest.mark.parametrize("fault", ["twice", "twicelate30", "stale", "hangup0", "shortcl", "clte", "donemore"])
async def test_41_42_the_next_request(
    stage: Stage, upstream: demo.DemoUpstream, fault: str, stream: bool, until: Until
) -> None:
    """Whatever a connection was left with, the next request on the gateway gets its own answer and no other."""
    server = await stage.gateway(upstream.url)
    level = Level()
    for turn in range(3):
        client = await ask(stage, server.url, f"demo-n2-t0-{fault}", stream=stream)
        await client.head()
        await client.body()
        drop(client)
        for number in range(3):
            client = await ask(stage, server.url, f"demo-n{turn + 2}-t{number}", stream=stream)
            assert await client.head() == 200
            body = await client.body()
            assert f'"model":"demo-n{turn + 2}-t{number}"'.encode() in body
            assert b"nobody" not in body
            drop(client)
    await level.restored(server, until)


async def test_39_done_and_open(stage: Stage, upstream: demo.DemoUpstream, until: Until) -> None:
    """`[DONE]` ends the answer at once, although the upstream keeps its body open; its connection is not kept."""
    server = await stage.gateway(upstream.url)
    level = Level()
    client = await ask(stage, server.url, "demo-n4-t0-doneopen")
    await client.head()
    assert (await client.body()).endswith(b"data: [DONE]\n\n")
    await until(lambda: server.observer.statistics()["ended"] == 1)
    assert outcomes(server) == {"completed": 1}
    drop(client)
    await serves(stage, server.url)
    await until(lambda: server.gateway.upstreams.statistics()["up0"].settling == 0, 2)
    await level.restored(server, until)


# 45 to 58: what clients do.

LEAVE = {"fin": Client.close, "rst": Client.reset, "half": lambda client: client.writer.write_eof()}


@pytest.mark.parametrize("how", LEAVE)
@pytest.mark.parametrize(
    ("model", "reads", "outcome"),
    [
        ("demo-silent", False, Outcome.CLIENT_GAVE_UP),
        ("demo-stall0", False, Outcome.CLIENT_GAVE_UP),
        ("demo-stall1", False, Outcome.CLIENT_GAVE_UP),
        ("demo-t0-stall3", True, Outcome.CLIENT_CLOSED),
        ("demo-n1000-t5", True, Outcome.CLIENT_CLOSED),
    ],
)
async def test_45_to_47_leaving(
    stage: Stage, upstream: demo.DemoUpstream, model: str, reads: bool, outcome: Outcome, how: str, until: Until
) -> None:
    """A client that leaves, also by halves, cancels its upstream; nothing is tried again; the outcome is its own."""
    server = await stage.gateway(upstream.url)
    level = Level()
    client = await ask(stage, server.url, model)
    if reads:
        await client.head()
        await client.piece()
    else:
        await upstream.wait_active()
    LEAVE[how](client)
    await upstream.wait_aborted(RID, 1)
    await until(lambda: server.observer.statistics()["ended"] == 1)
    assert outcomes(server) == {outcome.value: 1}
    assert upstream.requests == 1
    drop(client)
    await serves(stage, server.url)
    await level.restored(server, until)


async def test_48_a_client_that_never_reads(stage: Stage, upstream: demo.DemoUpstream, until: Until) -> None:
    """What it does not take is not read from the upstream either; at the send clock it is cut, and all is gone."""
    server = await stage.gateway(upstream.url, clocks=HELD)
    level = Level()
    client = await stage.client(server, receive_buffer=4096)
    client.writer.transport.pause_reading()
    client.post("/v1/chat/completions", question("demo-flood50000000", stream=True))
    await until(lambda: server.observer.statistics()["ended"] == 1)
    assert outcomes(server) == {"slow_client": 1}
    assert sum(server.observer.tally.bytes.cells.values()) < 2 * 2_000_000
    await until(lambda: server.census.connections == 0, 2)
    drop(client)
    await serves(stage, server.url)
    await level.restored(server, until)


async def test_48_a_client_that_rests_before_the_end(stage: Stage, until: Until) -> None:
    """The stream is over, the slot is free, and the last bytes still wait: the client gets them all, then the close."""

    def unsent() -> int:
        return sum(each.transport.get_write_buffer_size() for each in server._traffic.server_state.connections)

    async def script(peer: Peer) -> None:
        peer.stream(delta("a"))
        while not unsent():  # until the kernel takes no more
            peer.chunk(delta("x" * 8000))
            await peer.writer.drain()
            await asyncio.wait([never], timeout=0.001)
        peer.chunk(delta("y" * 40_000), FINISH, DONE)
        peer.end()

    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    server = await stage.gateway(await stage.upstream(script))
    client = await stage.client(server, receive_buffer=4096)
    client.writer.transport.pause_reading()
    client.post("/v1/chat/completions", question("m", stream=True), "connection: close")
    await until(lambda: server.gateway.gate.ledger.taken == 0 < unsent())
    assert server.observer.statistics()["live"] == 1
    client.writer.transport.resume_reading()
    assert await client.head() == 200
    assert (await client.body()).endswith(delta("y" * 40_000) + FINISH + DONE)
    assert await client.reader.read() == b""
    await until(lambda: server.observer.statistics()["ended"] == 1)
    assert outcomes(server) == {"completed": 1}


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
CODED = b"transfer-encoding: chunked\r\n\r\n"
IMPATIENT = {"head_timeout": 0.15, "body_timeout": 0.15, "max_body": 4096}


@pytest.mark.parametrize(
    ("number", "pieces", "status", "code"),
    [
        (51, [b"POST /v1/chat/completions HTTP/1.1\r\n", *[b"x-a: b\r\n"] * 50], 408, "request_timeout"),
        (51, [b"PO"], 408, "request_timeout"),
        (51, [], 0, ""),
        (52, [HEAD + b"content-length: 100\r\n\r\n", *[b"{"] * 90], 408, "request_timeout"),
        (52, [HEAD + b"content-length: 100\r\n\r\n{"], 408, "request_timeout"),
        (52, [HEAD + CODED, *[b"1\r\n{\r\n"] * 50], 408, "request_timeout"),
        (52, [HEAD + b"expect: 100-continue\r\ncontent-length: 100\r\n\r\n"], 408, "request_timeout"),
        (54, [HEAD + b"content-length: 4097\r\n\r\n"], 413, "body_too_large"),
        (54, [HEAD + CODED + b"1001\r\n"], 413, "body_too_large"),
        (54, [HEAD + CODED, *[b"400\r\n" + b" " * 1024 + b"\r\n"] * 5], 413, "body_too_large"),
    ],
)
async def test_51_to_54_slow_and_large(
    stage: Stage,
    upstream: demo.DemoUpstream,
    number: int,
    pieces: list[bytes],
    status: int,
    code: str,
    until: Until,
) -> None:
    """Total clocks and sizes: told in the family's form, then closed; and nothing reaches the upstream."""
    server = await stage.gateway(upstream.url, edge=IMPATIENT)
    level = Level()
    client = await stage.client(server)
    began = time.monotonic()
    loop = asyncio.get_running_loop()
    drips = [loop.call_later(0.02 * turn, client.send, piece) for turn, piece in enumerate(pieces)]
    raw = await asyncio.wait_for(client.reader.read(), 2)
    assert time.monotonic() - began < 1
    for drip in drips:
        drip.cancel()
    if status:
        head, _, body = raw.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"").partition(b"\r\n\r\n")
        assert int(head.split()[1]) == status
        assert b"connection: close" in head
        assert json.loads(body)["error"]["code"] == code
    else:
        assert raw == b""
    assert not upstream.requests
    assert server.observer.statistics()["started"] == 0
    drop(client)
    await serves(stage, server.url)
    await level.restored(server, until)


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_53_a_body_that_is_cut(stage: Stage, upstream: demo.DemoUpstream, how: str, until: Until) -> None:
    """A client that leaves while it uploads never was a stream, and nothing of it reaches the upstream."""
    server = await stage.gateway(upstream.url)
    level = Level()
    client = await stage.client(server)
    client.send(HEAD + b'content-length: 100\r\n\r\n{"model":')
    await until(lambda: server.observer.statistics()["live"] == 1)
    LEAVE[how](client)
    await until(lambda: server.observer.statistics()["live"] == 0)
    assert server.observer.tally.rejected.cells == {("/v1/chat/completions", "client_left"): 1}
    assert not upstream.requests
    await serves(stage, server.url)
    await level.restored(server, until)


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_address"])
async def test_56_a_flood_of_connections(stage: Stage, upstream: demo.DemoUpstream, limit: str, until: Until) -> None:
    """Those inside are served, those above the limit are told why, and when some leave others may come."""
    server = await stage.gateway(upstream.url, edge={limit: 20})
    level = Level()
    inside = [await stage.client(server) for _ in range(20)]
    await until(lambda: server.census.connections == 20)
    outside = [await stage.client(server) for _ in range(10)]
    for client in outside:
        client.post("/v1/chat/completions", question("demo-n3-t0", stream=True))
        assert await client.head() == 503
        assert client.headers["retry-after"] == "1"
        assert json.loads(await client.body())["error"]["code"] == "too_many_connections"
    for client in inside:
        client.post("/v1/chat/completions", question("demo-n3-t0", stream=True))
        assert await client.head() == 200
        assert (await client.body()).endswith(b"data: [DONE]\n\n")
    for client in inside + outside:
        client.close()
    await until(lambda: server.census.connections == 0)
    await serves(stage, server.url)
    await level.restored(server, until)


async def test_57_more_streams_than_slots(stage: Stage, upstream: demo.DemoUpstream, until: Until) -> None:
    """Full and waited too long are told apart, both with when to come again; those inside arrive whole."""
    server = await stage.gateway(upstream.url, limits={"concurrent": 2, "queue": 1, "max_wait": 0.1})
    level = Level()
    inside = [await ask(stage, server.url, "demo-n4-t100") for _ in range(2)]
    await upstream.wait_active(2)
    waiting = await ask(stage, server.url, "demo-n3-t0")
    await until(lambda: server.gateway.gate.ledger.waiting == 1)
    surplus = await ask(stage, server.url, "demo-n3-t0")
    for client, code in ((surplus, "queue_full"), (waiting, "queue_timeout")):
        assert await client.head() == 503
        check_told(client, await client.body(), Told(503, code), upstream)
        assert int(client.headers["retry-after"]) >= 1
    for client in inside:
        assert await client.head() == 200
        assert (await client.body()).endswith(b"data: [DONE]\n\n")
    assert upstream.requests == 2
    rejected = {reason: count for (_, reason), count in server.observer.tally.rejected.cells.items()}
    assert rejected == {"queue_full": 1, "queue_timeout": 1}
    for client in (*inside, waiting, surplus):
        drop(client)
    await serves(stage, server.url)
    await level.restored(server, until)


async def test_58_a_connection_after_an_error(stage: Stage, upstream: demo.DemoUpstream, until: Until) -> None:
    """A client's connection outlives every error that left it whole."""
    server = await stage.gateway(upstream.url, clocks=HELD, retry={"attempts": 0})
    level = Level()
    client = await stage.client(server)
    wrongs = ["demo-status404", "demo-resethead", "demo-silent", "demo-t0-errorevent3", "demo-t0-reset3", "demo-n2-t0"]
    for model in wrongs:
        client.post("/v1/chat/completions", question(model, stream=True))
        await client.head()
        await client.body()
    for path, body in (("/v1/nowhere", b"{}"), ("/v1/chat/completions", b"{"), ("/v1/chat/completions", b"[]")):
        client.post(path, body)
        assert await client.head() in (400, 404)
        await client.body()
    client.post("/v1/chat/completions", question("demo-n3-t0", stream=True))
    assert await client.head() == 200
    assert (await client.body()).endswith(b"data: [DONE]\n\n")
    assert server.census.connections == 1
    drop(client)
    await level.restored(server, until)
