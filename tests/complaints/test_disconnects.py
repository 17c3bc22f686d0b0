"""How a stream notices that its client left, and that it does so without owning the loop."""

# Each complaint, where it was made, and the tests that hold it.
# the listener spins while receive keeps answering (subclasses that add a sleep)
#     listener_spins
# content that never waits starves the loop (fastapi/fastapi#14680)
#     generator_that_never_awaits
# uvicorn said http.disconnect when it began to shut down (Kludex/uvicorn#2829, #2913)
#     disconnect_at_shutdown, disconnect_in_the_grace_period
# a close handler gets the message only, and is cut short (sysid/sse-starlette#97)
#     close_handler_is_cut_short
# the server's goodbye after the final message counts as a lost client (seen on hypercorn with trio)
#     disconnect_that_answers
# a disconnect that comes at just the wrong moment
#     disconnect_at_any_moment

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Any

import anyio
import pytest
import sse_starlette
from anyio.lowlevel import checkpoint
from complaints.client import Client, quiet, running, served
from complaints.endings import one_and_silence, two
from starlette.types import Message

from streamgate.sse import Account, Ending, EventSourceResponse, StreamGroup

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unwatched")]

OURS, THEIRS = EventSourceResponse, sse_starlette.EventSourceResponse
TURNS = 200


class Chatterbox(Client):
    """Its `receive` never waits for anything, as those of some test clients and middleware."""

    async def receive(self) -> Message:
        self.receives += 1
        await checkpoint()
        return {"type": "http.disconnect"} if self.gone.is_set() else {"type": "http.request", "body": b""}


@pytest.mark.parametrize(("response", "most"), [(OURS, 20), (THEIRS, TURNS + 2)])
async def test_listener_spins_while_receive_keeps_answering(response: type[Any], most: int) -> None:
    """Third parties subclass the response for this alone: 200 turns of the loop cost a handful of receives."""
    client = Chatterbox()
    async with running(response(one_and_silence()), client):
        await client.offers(b"one")
        for _ in range(TURNS):
            await checkpoint()
        assert most / 2 < client.receives <= most or client.receives <= min(most, 20)
        client.leave()


class Greedy(Client):
    """Its `send` never gives a turn to anybody; after some messages something happens."""

    def __init__(self, after: Callable[[], object]) -> None:
        super().__init__()
        self.taken = 0
        self.pings = 0
        self._after = after

    async def send(self, message: Message) -> None:
        self.taken += 1
        self.pings += message.get("body", b"").startswith(b":")
        if self.taken == 20:
            self._after()


async def flood(until: Callable[[], object]) -> AsyncIterator[bytes]:
    """Content that never waits; it gives up after a while, so that a failure is one and no hang."""
    end = monotonic() + 2.0
    while monotonic() < end and not until():
        yield b"x"


@pytest.mark.parametrize("what", ["disconnect", "shutdown"])
async def test_generator_that_never_awaits_starves_the_loop(what: str) -> None:
    """fastapi/fastapi#14680: content and a send that never wait still let a disconnect and a shutdown be seen."""
    group = StreamGroup()
    told: list[Account] = []
    client = Greedy(lambda: client.leave() if what == "disconnect" else group.end())
    began = monotonic()
    response = EventSourceResponse(flood(lambda: False), drain=group, on_close=told.append)
    assert await served(response, client) is None
    assert told[0].ending is (Ending.CLIENT_DISCONNECT if what == "disconnect" else Ending.SHUTDOWN)
    assert monotonic() - began < 1.0


async def test_generator_that_never_awaits_starves_the_pings() -> None:
    """fastapi/fastapi#14680: pings go out as well."""
    client = Greedy(lambda: None)
    assert await served(EventSourceResponse(flood(lambda: client.pings > 1), ping=0.02), client) is None
    assert client.pings > 1


async def test_generator_that_never_awaits_starves_the_neighbours() -> None:
    """fastapi/fastapi#14680: other tasks of the loop get a turn every 10 ms or so."""
    turns = 0
    client = Greedy(lambda: None)

    async def neighbour() -> None:
        nonlocal turns
        while turns < 5:
            await checkpoint()
            turns += 1

    async with anyio.create_task_group() as group:
        group.start_soon(neighbour)
        await served(EventSourceResponse(flood(lambda: turns >= 5)), client)
    assert turns == 5


class Transport:
    def abort(self) -> None:
        raise AssertionError("nobody is to be cut off")

    def is_closing(self) -> bool:
        return False


class Cycle(Client):
    """A request as uvicorn has it; `receive` can say http.disconnect although the client is there."""

    def __init__(self) -> None:
        super().__init__()
        self.transport = Transport()
        self.disconnected = False


@contextlib.asynccontextmanager
async def draining(client: Client, told: list[Any]) -> AsyncIterator[anyio.Event]:
    """A stream in its grace period, whose server says http.disconnect; the event is the content's to go on."""
    group, leaving, finish = StreamGroup(), anyio.Event(), anyio.Event()

    async def content() -> AsyncIterator[str]:
        yield "one"
        await leaving.wait()
        await finish.wait()
        yield "two"

    response = EventSourceResponse(
        content(),
        drain=group,
        shutdown_event=leaving,
        shutdown_grace_period=30,
        on_close=lambda account: told.append(account.ending),
    )
    async with running(response, client):
        await client.offers(b"one")
        group.end()
        await leaving.wait()
        client.leave()
        yield finish


async def test_disconnect_at_shutdown_beats_the_grace_period() -> None:
    """Kludex/uvicorn#2829: what uvicorn 0.43 said of a client that is still there does not end its stream."""
    client, told = Cycle(), []
    async with draining(client, told) as finish:
        for _ in range(TURNS):
            await checkpoint()
        assert told == []
        finish.set()
    assert told == [Ending.COMPLETE]
    assert client.body == b"data: one\r\n\r\ndata: two\r\n\r\n"
    assert client.whole


async def test_disconnect_in_the_grace_period_is_overlooked() -> None:
    """Kludex/uvicorn#2913: a client that really leaves meanwhile is noticed, on a server that tells the truth too."""
    client, told = Cycle(), []
    async with draining(client, told):
        client.disconnected = True
    assert told == [Ending.CLIENT_DISCONNECT]

    told = []
    async with draining(Client(), told):
        pass
    assert told == [Ending.CLIENT_DISCONNECT]


async def test_close_handler_is_cut_short_by_content_that_ends() -> None:
    """sysid/sse-starlette#97: a close handler that has begun gets to its end, and is called once."""
    client, told, more = Client(), [], anyio.Event()

    async def content() -> AsyncIterator[str]:
        yield "one"
        await more.wait()

    async def closed(message: Message) -> None:
        told.append(message["type"])
        more.set()
        await quiet_turns()
        told.append("done")

    async with running(EventSourceResponse(content(), client_close_handler_callable=closed), client) as run:
        await client.offers(b"one")
        await quiet()
        client.leave()
    assert (told, run.raised) == (["http.disconnect", "done"], None)


async def test_close_handler_is_cut_short_at_the_cleanup_timeout() -> None:
    """sysid/sse-starlette#97: one that does not come to an end is given up, and the ending is still a disconnect."""
    client = Client(asgi={"version": "3.0", "spec_version": "2.4"})
    told: list[Ending | None] = []

    async def content() -> AsyncIterator[str]:
        yield "one"
        client.leave()
        await quiet()
        client.broken = OSError
        yield "two"

    async def closed(message: Message) -> None:
        await anyio.sleep_forever()

    response = EventSourceResponse(
        content(),
        client_close_handler_callable=closed,
        cleanup_timeout=0.02,
        on_close=lambda account: told.append(account.ending),
    )
    assert await served(response, client) is None
    assert told == [Ending.CLIENT_DISCONNECT]


class Prompt(Client):
    """Says http.disconnect as soon as it has the final message, whose send returns later: hypercorn does on trio."""

    async def send(self, message: Message) -> None:
        await super().send(message)
        if message.get("more_body") is False:
            self.leave()
            await quiet_turns()


async def test_disconnect_that_answers_the_final_message_is_taken_for_a_lost_client() -> None:
    """A stream whose end was sent is complete; its close handler is not called for the server's own goodbye."""
    told: list[object] = []

    async def closed(message: Message) -> None:
        told.append("close handler")

    for _ in range(3):
        response = EventSourceResponse(
            two(), client_close_handler_callable=closed, on_close=lambda account: told.append(account.ending)
        )
        assert await served(response, Prompt()) is None
    assert told == [Ending.COMPLETE] * 3


async def test_disconnect_that_answers_the_final_message_with_an_error_is_no_success() -> None:
    """A close handler is under way and the final message fails: the client left, and the stream is not complete."""
    client = Client(asgi={"version": "3.0", "spec_version": "2.4"})
    told: list[Ending | None] = []
    more = anyio.Event()

    async def content() -> AsyncIterator[str]:
        yield "one"
        await more.wait()

    async def closed(message: Message) -> None:
        client.broken = OSError
        more.set()
        await client.offers_the_end()
        await quiet_turns()

    response = EventSourceResponse(
        content(), client_close_handler_callable=closed, on_close=lambda account: told.append(account.ending)
    )
    async with running(response, client) as run:
        await client.offers(b"one")
        client.leave()
    assert run.raised is None
    assert told == [Ending.CLIENT_DISCONNECT]


async def quiet_turns() -> None:
    for _ in range(5):
        await checkpoint()


@pytest.mark.parametrize("hold", [False, True], ids=["flowing", "held"])
@pytest.mark.parametrize("turns", range(12))
async def test_disconnect_at_any_moment_ends_in_one_way_only(turns: int, hold: bool) -> None:
    """A disconnect in whichever turn of the loop: no error, one ending, content closed."""
    client, told, closed = Client(), [], []

    async def content() -> AsyncIterator[str]:
        try:
            for item in "abc":
                await checkpoint()
                yield item
        finally:
            closed.append(True)

    if hold:
        client.hold()
    response = EventSourceResponse(content(), on_close=lambda account: told.append(account.ending))
    async with running(response, client) as run:
        for _ in range(turns):
            await checkpoint()
        client.leave()
    assert run.raised is None
    assert told in ([Ending.COMPLETE], [Ending.CLIENT_DISCONNECT])
    assert (told == [Ending.COMPLETE]) is client.whole
    assert closed == [True] or not any(sent.get("body") for sent in client.offered)
