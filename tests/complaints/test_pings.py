"""When a ping is sent, what it is, and what it never does."""

# Each complaint, where it was made, and the tests that hold it.
# a ping is sent into the middle of a blocked data send (sysid/sse-starlette#55, #77, #78)
#     ping_is_sent_into_the_middle, data_is_sent_into_the_middle, final_message_is_sent_into
# ping=0 spins (sysid/sse-starlette#206)
#     ping_of_zero_spins
# a ping has the wrong line end (fixed in sse-starlette)
#     ping_has_another_separator
# what a ping raises is lost (sysid/sse-starlette#26)
#     ping_error_is_lost
# a ping of a lost connection is reported as a failure
#     ping_to_a_lost_client
# pings break strict OpenAI-style clients (lm-sys/FastChat#1223, sysid/sse-starlette#16, #106)
#     ping_breaks_strict_clients, ping_is_no_comment
# pings although tokens flow (FastAPI's are idle)
#     ping_in_spite_of_traffic
# a factory's ping is made in another request's context
#     ping_is_made_in_another

from __future__ import annotations

import contextvars
import weakref
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import openai
import pytest
import sse_starlette
from anyio.lowlevel import checkpoint
from complaints.client import PATIENCE, Client, quiet, running, served
from complaints.endings import Broken, one_and_silence, two
from starlette.types import Message, Receive, Scope, Send

from streamgate.sse import Ending, EventSourceResponse, ServerSentEvent

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unwatched")]

OURS, THEIRS = EventSourceResponse, sse_starlette.EventSourceResponse


async def pinged(client: Client, times: int = 1) -> None:
    """Wait until this many comments were sent."""
    await client.until(lambda _: sum(sent.get("body", b"").startswith(b":") for sent in client.messages) >= times)


@pytest.mark.parametrize(("response", "window", "overlapped"), [(OURS, 0.06, 0), (THEIRS, PATIENCE, 1)])
async def test_ping_is_sent_into_the_middle_of_a_blocked_data_send(
    response: type[Any], window: float, overlapped: int
) -> None:
    """sysid/sse-starlette#55, #77, #78: a ping that is due while an item is being sent is left out."""
    client = Client()
    made = anyio.Event()

    async def content() -> AsyncIterator[str]:
        client.hold()
        yield "one"
        yield "two"

    def ping() -> dict[str, str]:
        made.set()
        return {"comment": "ping"}

    async with running(response(content(), ping=0.02, ping_message_factory=ping), client):
        await client.offers(b"one")
        with anyio.move_on_after(window):  # three pings are due meanwhile
            await made.wait()
            await checkpoint()
            await checkpoint()
        assert client.overlapped == overlapped
        client.read()


async def test_data_is_sent_into_the_middle_of_a_blocked_ping() -> None:
    """sysid/sse-starlette#78: an item that comes while a ping is being sent waits for it; so does the final message."""
    client = Client()

    async def content() -> AsyncIterator[str]:
        client.hold()
        await client.offers(b": ping")
        yield "one"

    async with running(EventSourceResponse(content(), ping=0.01), client):
        await client.offers(b": ping")
        await quiet()
        assert not any(b"one" in sent.get("body", b"") for sent in client.offered)
        client.read()
    assert client.overlapped == 0
    assert client.whole
    assert client.body.index(b": ping") < client.body.index(b"data: one")


async def test_final_message_is_sent_into_the_middle_of_a_blocked_ping() -> None:
    """sysid/sse-starlette#77: the end of the body waits for the ping in flight, and no ping follows it."""
    client = Client()

    async def content() -> AsyncIterator[str]:
        client.hold()
        await client.offers(b": ping")
        for _ in ():
            yield "never"

    async with running(EventSourceResponse(content(), ping=0.01), client):
        await client.offers(b": ping")
        await quiet()
        client.read()
    assert client.overlapped == 0
    assert [sent.get("more_body") for sent in client.messages] == [None, True, False]


async def test_ping_of_zero_spins() -> None:
    """sysid/sse-starlette#206: 0 sends no ping and looks at nothing."""
    client = Client()
    async with running(EventSourceResponse(one_and_silence(), ping=0), client):
        await client.offers(b"one")
        await quiet()
        assert len(client.offered) == 2
        client.leave()


@pytest.mark.parametrize("sep", ["\n", "\r", "\r\n"])
async def test_ping_has_another_separator_than_the_events(sep: str) -> None:
    """A ping ends as the response's events do."""
    client = Client()
    async with running(EventSourceResponse(one_and_silence(), ping=0.01, sep=sep), client):
        await pinged(client)
        client.leave()
    ping = next(sent["body"] for sent in client.messages if sent.get("body", b"").startswith(b":"))
    assert ping.endswith(2 * sep.encode())
    assert ping.count(b"\n") + ping.count(b"\r") == 2 * len(sep)


async def test_ping_error_is_lost() -> None:
    """sysid/sse-starlette#26: what a ping's factory or its send raises is what the response raises."""

    def factory() -> str:
        raise Broken("factory")

    raised = await served(EventSourceResponse(one_and_silence(), ping=0.01, ping_message_factory=factory), Client())
    assert repr(raised) == "Broken('factory')"

    client = Client()

    async def silence() -> AsyncIterator[str]:
        client.broken = lambda: Broken("send")
        await anyio.sleep_forever()
        yield "never"

    assert repr(await served(EventSourceResponse(silence(), ping=0.01), client)) == "Broken('send')"


async def test_ping_to_a_lost_client_is_reported_as_a_failure() -> None:
    """From ASGI 2.4 on an OSError out of `send` says that the client is gone; a ping may be the first to hear it."""
    client = Client(asgi={"version": "3.0", "spec_version": "2.4"})
    told: list[Ending | None] = []
    left: list[Message] = []

    async def silence() -> AsyncIterator[str]:
        client.broken = OSError
        await anyio.sleep_forever()
        yield "never"

    async def closed(message: Message) -> None:
        left.append(message)

    response = EventSourceResponse(
        silence(), ping=0.01, client_close_handler_callable=closed, on_close=lambda account: told.append(account.ending)
    )
    assert await served(response, client) is None
    assert (told, left) == ([Ending.CLIENT_DISCONNECT], [{"type": "http.disconnect"}])


CHUNK = (
    '{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", '
    '"choices": [{"index": 0, "delta": {"content": "%s"}}]}'
)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # that client leaves its generators to the collector
async def test_ping_breaks_strict_clients_of_the_openai_kind() -> None:
    """lm-sys/FastChat#1223, sysid/sse-starlette#16, #106: OpenAI's own client reads on over the default ping."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sent = anyio.Event()

        async def content() -> AsyncIterator[str]:
            yield CHUNK % "to"
            await sent.wait()
            yield CHUNK % "ken"
            yield "[DONE]"

        async def watched(message: Message) -> None:
            await send(message)
            if message.get("body", b"").startswith(b":"):
                sent.set()

        await EventSourceResponse(content(), ping=0.01)(scope, receive, watched)

    transport = httpx.AsyncClient(transport=httpx.ASGITransport(app))
    async with openai.AsyncOpenAI(base_url="http://test", api_key="none", http_client=transport) as client:
        stream = await client.chat.completions.create(model="m", messages=[], stream=True)
        assert [chunk.choices[0].delta.content async for chunk in stream] == ["to", "ken"]


async def test_ping_is_no_comment_unless_somebody_makes_it_one() -> None:
    """lm-sys/FastChat#1223: every line of the default ping is a comment; a factory may make an event of it instead."""
    client = Client()
    async with running(EventSourceResponse(one_and_silence(), ping=0.01), client):
        await pinged(client, times=2)
        client.leave()
    lines = [line for sent in client.messages[2:] for line in sent.get("body", b"").split(b"\r\n") if line]
    assert lines
    assert all(line.startswith(b": ping - ") for line in lines)

    client = Client()
    made = EventSourceResponse(one_and_silence(), ping=0.01, ping_message_factory=lambda: ServerSentEvent(event="ping"))
    async with running(made, client):
        await client.offers(b"event: ping\r\n\r\n")
        client.leave()


@pytest.mark.parametrize(("mode", "interval", "pings"), [("interval", 0.05, True), ("idle", 0.4, False)])
async def test_ping_in_spite_of_traffic(mode: Any, interval: float, pings: bool) -> None:
    """A ping every interval, or, with ping_mode="idle", only after an interval in which nothing was written."""
    client = Client()

    async def content() -> AsyncIterator[str]:
        for _ in range(25):  # half a second in all
            with anyio.move_on_after(0.02):
                await client.gone.wait()
            yield "token"

    assert await served(EventSourceResponse(content(), ping=interval, ping_mode=mode), client) is None
    assert (b": ping" in client.body) is pings


async def test_ping_in_spite_of_traffic_is_for_silence() -> None:
    """ping_mode="idle" pings when the content falls silent."""
    client = Client()
    async with running(EventSourceResponse(one_and_silence(), ping=0.01, ping_mode="idle"), client):
        await pinged(client, times=2)
        client.leave()


request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="nobody's")


async def test_ping_is_made_in_another_requests_context() -> None:
    """What a ping's factory and the middleware under its send see in context variables is their own request's."""
    seen: dict[str, set[str]] = {"first": set(), "second": set()}

    async def request(name: str) -> None:
        request_id.set(name)
        client = Client()

        def ping() -> str:
            seen[name].add(request_id.get())
            return "ping"

        async with running(EventSourceResponse(one_and_silence(), ping=0.01, ping_message_factory=ping), client):
            await client.offers(b"ping")
            client.leave()

    async with anyio.create_task_group() as group:
        group.start_soon(request, "first")
        group.start_soon(request, "second")
    assert seen == {"first": {"first"}, "second": {"second"}}


class Session:
    """What a request keeps in a context variable."""


async def test_ping_is_made_in_another_request_whose_context_lives_on() -> None:
    """A request that is over leaves nothing of its context behind in the timer of those that go on."""
    session: contextvars.ContextVar[Session] = contextvars.ContextVar("session")
    lives: list[weakref.ref[Session]] = []

    async def first() -> None:
        session.set(Session())
        lives.append(weakref.ref(session.get()))
        over = Client()  # no deadline here: a timer that was cancelled keeps its context for a while too
        await EventSourceResponse(two(), ping=0.01)(over.scope, over.receive, over.send)

    client = Client()
    async with anyio.create_task_group() as group:
        group.start_soon(first)
    async with running(EventSourceResponse(one_and_silence(), ping=0.01), client):
        await pinged(client, times=3)
        client.leave()
    assert lives[0]() is None
