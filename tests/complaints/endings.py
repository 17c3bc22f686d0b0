"""Every way in which a stream ends, played through: complaints about endings are put to each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import anyio
from complaints.client import Client, running, served

from streamgate.sse import Ending, EventSourceResponse, SendTimeoutError, StreamGroup

Make = Callable[..., EventSourceResponse]  # (content, **options)


class Broken(Exception):
    """What content, callbacks and servers raise here."""


@dataclass(frozen=True)
class Way:
    """One way to end: how to play it, what it is called, what is raised."""

    play: Callable[[Make], Awaitable[BaseException | None]]
    ending: Ending
    raises: type[Exception] | None = None

    @property
    def name(self) -> str:
        return self.play.__name__


async def two() -> AsyncIterator[str]:
    yield "one"
    yield "two"


async def one_and_silence() -> AsyncIterator[str]:
    yield "one"
    await anyio.sleep_forever()


async def one_and_a_fault() -> AsyncIterator[str]:
    yield "one"
    raise Broken("content")


async def fails(*_: object) -> None:
    raise Broken("callback")


def fails_at_once() -> str:
    raise Broken("callback")


def broken_send() -> Broken:
    return Broken("send")


async def exhausted(make: Make) -> BaseException | None:
    return await served(make(two()), Client())


async def head_request(make: Make) -> BaseException | None:
    return await served(make(one_and_silence()), Client(method="HEAD"))


async def gone_while_the_content_waits(make: Make) -> BaseException | None:
    client = Client()
    async with running(make(one_and_silence()), client) as run:
        await client.offers(b"one")
        client.leave()
    return run.raised


async def gone_while_a_send_waits(make: Make) -> BaseException | None:
    client = Client()
    async with running(make(held_at(client, "one")), client) as run:
        await client.offers(b"one")
        client.leave()
    return run.raised


async def gone_before_the_head(make: Make) -> BaseException | None:
    client = Client()
    client.hold()
    async with running(make(two()), client) as run:
        await client.until(lambda _: client.offered)
        client.leave()
    return run.raised


async def gone_before_the_first_item(make: Make) -> BaseException | None:
    client = Client()

    async def silence() -> AsyncIterator[str]:
        client.leave()
        await anyio.sleep_forever()
        yield "never"

    return await served(make(silence(), wait_for_first=True), client)


async def gone_says_send(make: Make) -> BaseException | None:
    client = Client(asgi={"version": "3.0", "spec_version": "2.4"})
    return await served(make(breaking(client, OSError)), client)


async def shut_down_while_the_content_waits(make: Make) -> BaseException | None:
    client, group = Client(), StreamGroup()
    async with running(make(one_and_silence(), drain=group), client) as run:
        await client.offers(b"one")
        group.end()
    return run.raised


async def shut_down_while_a_send_waits(make: Make) -> BaseException | None:
    client, group = Client(), StreamGroup()
    async with running(make(held_at(client, "one"), drain=group), client) as run:
        await client.offers(b"one")
        group.end()
    return run.raised


async def shut_down_before(make: Make) -> BaseException | None:
    group = StreamGroup()
    group.end()
    return await served(make(one_and_silence(), drain=group), Client())


async def shut_down_with_a_farewell(make: Make) -> BaseException | None:
    client, group = Client(), StreamGroup()
    async with running(make(one_and_silence(), drain=group, farewell="bye"), client) as run:
        await client.offers(b"one")
        group.end()
    return run.raised


async def content_fails(make: Make) -> BaseException | None:
    return await served(make(one_and_a_fault()), Client())


async def content_fails_and_that_is_told(make: Make) -> BaseException | None:
    return await served(make(one_and_a_fault(), error_event=str), Client())


async def content_is_nothing_to_iterate(make: Make) -> BaseException | None:
    return await served(make(0), Client())


async def encoding_fails(make: Make) -> BaseException | None:
    return await served(make(iter([{"unknown": "key"}])), Client())


async def send_fails(make: Make) -> BaseException | None:
    client = Client()
    return await served(make(breaking(client, broken_send)), client)


async def head_fails(make: Make) -> BaseException | None:
    client = Client()
    client.broken = broken_send
    return await served(make(two()), client)


async def answer_to_head_fails(make: Make) -> BaseException | None:
    client = Client(method="HEAD")
    client.broken = broken_send
    return await served(make(two()), client)


async def answer_to_head_is_not_taken(make: Make) -> BaseException | None:
    client = Client(method="HEAD")
    client.hold()
    return await served(make(two(), send_timeout=0.02), client)


async def receive_fails(make: Make) -> BaseException | None:
    client = Client()
    client.receive = fails  # type: ignore[assignment, method-assign]
    return await served(make(one_and_silence()), client)


async def item_is_not_taken(make: Make) -> BaseException | None:
    client = Client()
    return await served(make(held_at(client, "one"), send_timeout=0.02), client)


async def ping_is_not_taken(make: Make) -> BaseException | None:
    client = Client()

    async def silence() -> AsyncIterator[str]:
        client.hold()
        await anyio.sleep_forever()
        yield "never"

    return await served(make(silence(), ping=0.01, send_timeout=0.02), client)


async def ping_cannot_be_made(make: Make) -> BaseException | None:
    return await served(make(one_and_silence(), ping=0.01, ping_message_factory=fails_at_once), Client())


async def data_sender_fails(make: Make) -> BaseException | None:
    return await served(make(one_and_silence(), data_sender_callable=fails), Client())


async def close_handler_fails(make: Make) -> BaseException | None:
    client = Client()
    async with running(make(one_and_silence(), client_close_handler_callable=fails), client) as run:
        await client.offers(b"one")
        client.leave()
    return run.raised


async def cancelled_from_outside(make: Make) -> BaseException | None:
    client = Client()
    async with running(make(one_and_silence()), client) as run:
        await client.offers(b"one")
        run.scope.cancel()
    assert run.scope.cancelled_caught
    return run.raised


async def held_at(client: Client, item: str) -> AsyncIterator[str]:
    """The client stops reading before this item."""
    client.hold()
    yield item
    yield "never"


async def breaking(client: Client, error: Callable[[], Exception]) -> AsyncIterator[str]:
    """The connection breaks before the second item."""
    yield "one"
    client.broken = error
    yield "two"


GONE, DOWN, BAD = Ending.CLIENT_DISCONNECT, Ending.SHUTDOWN, Ending.CONTENT_ERROR
LATE, CALL, SEND = Ending.SEND_TIMEOUT, Ending.CALLBACK_ERROR, Ending.SEND_ERROR
WAYS = (
    Way(exhausted, Ending.COMPLETE),
    Way(head_request, Ending.COMPLETE),
    Way(gone_while_the_content_waits, GONE),
    Way(gone_while_a_send_waits, GONE),
    Way(gone_before_the_head, GONE),
    Way(gone_before_the_first_item, GONE),
    Way(gone_says_send, GONE),
    Way(shut_down_while_the_content_waits, DOWN),
    Way(shut_down_while_a_send_waits, DOWN),
    Way(shut_down_before, DOWN),
    Way(shut_down_with_a_farewell, DOWN),
    Way(content_fails, BAD, Broken),
    Way(content_fails_and_that_is_told, BAD),
    Way(content_is_nothing_to_iterate, BAD, TypeError),
    Way(encoding_fails, Ending.ENCODE_ERROR, TypeError),
    Way(send_fails, SEND, Broken),
    Way(head_fails, SEND, Broken),
    Way(answer_to_head_fails, SEND, Broken),
    Way(answer_to_head_is_not_taken, LATE, SendTimeoutError),
    Way(receive_fails, SEND, Broken),
    Way(item_is_not_taken, LATE, SendTimeoutError),
    Way(ping_is_not_taken, LATE, SendTimeoutError),
    Way(ping_cannot_be_made, CALL, Broken),
    Way(data_sender_fails, CALL, Broken),
    Way(close_handler_fails, CALL, Broken),
    Way(cancelled_from_outside, Ending.CANCELLED),
)
