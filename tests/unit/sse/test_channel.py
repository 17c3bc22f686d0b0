"""Directed push: a recipient exists while somebody listens, or while its history is worth keeping."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import anyio.to_thread
import pytest

from streamgate.sse.broadcast import Slow, Subscription
from streamgate.sse.channel import Channel
from streamgate.sse.event import ServerSentEvent, ensure_bytes

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        # The check for tasks left behind is asyncio's; trio has no task without a nursery.
        pytest.param(("trio", {}), id="trio", marks=pytest.mark.leaves_tasks),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


def numbered(number: int) -> ServerSentEvent:
    return ServerSentEvent(str(number), id=number)


def wire(*items: object) -> list[bytes]:
    return [ensure_bytes(item, "\r\n") for item in items]


async def rest(subscription: Subscription) -> list[bytes]:
    return [frame async for frame in subscription]


class Untold:
    """Cannot be encoded."""

    def __str__(self) -> str:
        raise ZeroDivisionError


async def test_only_the_recipient_gets_it() -> None:
    """What is sent reaches all subscribers of that recipient and nobody else."""
    channel = Channel(sep="\n")
    ann, bob, bob_again = channel.subscribe("ann"), channel.subscribe("bob"), channel.subscribe("bob")
    assert (channel.send("bob", "x"), channel.send("ann", "y"), channel.send("cid", "z")) == (2, 1, 0)
    channel.close()
    assert await rest(ann) == [b"data: y\n\n"]
    assert await rest(bob) == await rest(bob_again) == [b"data: x\n\n"]


async def test_presence() -> None:
    """A recipient is there from the first subscription to the end of the last, however that ends."""
    channel = Channel()
    assert "bob" not in channel
    first, second, third = (channel.subscribe("bob") for _ in range(3))
    assert len(channel) == 1
    await first.aclose()
    del second
    assert "bob" in channel
    async with third:
        pass
    assert "bob" not in channel
    assert len(channel) == 0
    assert 7 not in channel


async def test_nobody_listens() -> None:
    """Without history what nobody gets is not even encoded, and nothing is kept."""
    channel = Channel()
    assert channel.send("bob", Untold()) == 0
    subscription = channel.subscribe("bob", "")
    with pytest.raises(ZeroDivisionError):
        channel.send("bob", Untold())
    channel.close()
    assert await rest(subscription) == []


async def test_comes_back() -> None:
    """With history, who comes back with an id gets what was sent meanwhile, and then what is sent live."""
    channel = Channel(history=10)
    async with channel.subscribe("bob") as subscription:
        channel.send("bob", numbered(1))
        assert await anext(subscription) == wire(numbered(1))[0]
    assert channel.send("bob", numbered(2)) == 0
    channel.send("bob", "without an id")
    subscription = channel.subscribe("bob", "1")
    assert channel.send("bob", numbered(3)) == 1
    channel.close()
    assert await rest(subscription) == wire(numbered(2), numbered(3))


async def test_sent_before_the_first_subscription() -> None:
    """With history, what has an id also waits for a recipient that never was there."""
    channel = Channel(history=1)
    for number in (1, 2):
        assert channel.send("bob", numbered(number)) == 0
    assert len(channel) == 0
    subscription = channel.subscribe("bob", "")
    assert await anext(subscription) == wire(numbered(2))[0]


async def test_how_many_are_kept() -> None:
    """Beyond `max_idle` recipients nobody listens to, the one that has been so for longest is forgotten."""
    channel = Channel(history=5, max_idle=2)
    listening = channel.subscribe("here")
    channel.send("here", numbered(9))
    for name in ("a", "b"):
        channel.send(name, numbered(1))
    channel.send("a", numbered(2))  # now b has been silent for longest
    channel.send("c", numbered(1))
    channel.send("d", "nothing to keep")
    kept = {name: channel.subscribe(name, "") for name in "abcd"}
    channel.close()
    got = {name: await rest(subscription) for name, subscription in kept.items()}
    assert got == {"a": wire(numbered(1), numbered(2)), "b": [], "c": wire(numbered(1)), "d": []}
    assert await rest(listening) == wire(numbered(9))


@pytest.mark.parametrize("history", [0, 3])
async def test_no_growth(history: int) -> None:
    """However many recipients come, go and are sent something, memory holds no more of them than `max_idle`."""
    channel = Channel(history=history, max_idle=10)
    for number in range(1000):
        async with channel.subscribe(f"visitor {number}"):
            channel.send(f"visitor {number}", numbered(number))
        channel.send(f"stranger {number}", numbered(number))
        channel.send(f"stranger {number}", "without an id")
    assert len(channel) == 0
    assert not channel._left
    assert len(channel._idle) == (10 if history else 0)


@pytest.mark.parametrize("history", [0, 5])
async def test_counts(history: int) -> None:
    """What was dropped and who was disconnected is still counted when the recipient is forgotten."""
    dropping = Channel(queue=1, slow=Slow.DROP_NEWEST, history=history, max_idle=1)
    ending = Channel(queue=1, history=history)
    for channel in (dropping, ending):
        for name in "abc":
            async with channel.subscribe(name):
                for number in range(3):
                    channel.send(name, numbered(number))
    assert (dropping.dropped, dropping.disconnected) == (6, 0)
    assert (ending.dropped, ending.disconnected) == (0, 3)
    assert (len(dropping), len(ending)) == (0, 0)


async def test_after_close() -> None:
    """Closed, a channel sends nothing; who still subscribes gets what is kept after his id, and the end."""
    channel = Channel(history=5)
    channel.send("idle", numbered(1))
    active = channel.subscribe("active")
    channel.send("active", numbered(2))
    channel.close()
    channel.close()
    assert [channel.send(name, numbered(3)) for name in ("idle", "active", "new")] == [0, 0, 0]
    assert await rest(active) == wire(numbered(2))
    got = [await rest(channel.subscribe(name, "")) for name in ("idle", "active", "new")]
    assert got == [wire(numbered(1)), wire(numbered(2)), []]
    assert len(channel) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"queue": 0}, "queue"), ({"history": -1}, "history"), ({"sep": "x"}, "sep"), ({"max_idle": -1}, "max_idle")],
)
async def test_settings(settings: dict[str, Any], message: str) -> None:
    """A setting out of range is an error at once."""
    with pytest.raises(ValueError, match=message):
        Channel(**settings)


async def test_threads_at_once() -> None:
    """Recipients that come and go in several threads never lose what is sent while they are there."""
    channel, lost = Channel(), list[str]()
    done = threading.Event()

    async def visits(name: str) -> None:
        for number in range(300):
            subscription = channel.subscribe(name)
            if channel.send(name, number) < 1:
                lost.append(f"{name} {number}")
            if await anext(subscription) != wire(number)[0]:
                lost.append(f"{name} {number}: another's")
            del subscription

    def visitor(name: str) -> None:
        anyio.run(visits, name)

    def crowd() -> None:
        while not done.is_set():
            channel.subscribe("ann-lookalike")
            assert len(channel) <= 4

    with anyio.fail_after(20):
        async with anyio.create_task_group() as everybody:
            everybody.start_soon(anyio.to_thread.run_sync, crowd)
            async with anyio.create_task_group() as visitors:
                for name in ("ann", "bob", "cid"):
                    visitors.start_soon(anyio.to_thread.run_sync, visitor, name)
            done.set()
    assert lost == []
    assert len(channel) == 0
