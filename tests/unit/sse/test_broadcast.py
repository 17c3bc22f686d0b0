"""One producer, many subscribers: bounded, replayed, left behind by nobody."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from starlette.types import Message

from streamgate.sse.broadcast import Broadcast, Slow, Subscription
from streamgate.sse.event import ServerSentEvent, ensure_bytes
from streamgate.sse.response import EventSourceResponse

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        # The check for tasks left behind is asyncio's; trio has no task without a nursery.
        pytest.param(("trio", {}), id="trio", marks=pytest.mark.leaves_tasks),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


def numbered(number: object) -> ServerSentEvent:
    return ServerSentEvent(str(number), id=number)


def wire(*items: object) -> list[bytes]:
    return [ensure_bytes(item, "\r\n") for item in items]


async def rest(subscription: Subscription) -> list[bytes]:
    return [frame async for frame in subscription]


async def test_everyone_gets_the_same_bytes() -> None:
    """Each item is encoded once, and every subscriber gets those very bytes, in order."""
    broadcast = Broadcast(sep="\n")
    subscriptions = [broadcast.subscribe() for _ in range(3)]
    assert [broadcast.publish(item) for item in ("a", {"data": "b", "event": "e"}, b": raw\n\n", 4)] == [3, 3, 3, 3]
    broadcast.close()
    first, *others = [await rest(each) for each in subscriptions]
    assert first == [b"data: a\n\n", b"event: e\ndata: b\n\n", b": raw\n\n", b"data: 4\n\n"]
    assert all(mine is theirs for other in others for mine, theirs in zip(first, other, strict=True))


async def test_a_view_is_copied() -> None:
    """Bytes that may still change do not change while they wait."""
    broadcast, buffer = Broadcast(), bytearray(b"data: a\n\n")
    subscription = broadcast.subscribe()
    broadcast.publish(memoryview(buffer))
    buffer[6:7] = b"b"
    assert await anext(subscription) == b"data: a\n\n"


async def test_waiting_subscribers_are_woken() -> None:
    """A subscriber that waits gets what is published then, and its iteration ends when the broadcast is closed."""
    broadcast, got = Broadcast(), list[bytes]()

    async def subscriber() -> None:
        async for frame in broadcast.subscribe():
            got.append(frame)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(subscriber)
        for number in range(3):
            await wait_all_tasks_blocked()
            assert broadcast.publish(number) == 1
        await wait_all_tasks_blocked()
        broadcast.close()
    assert got == wire(0, 1, 2)
    assert len(broadcast) == 0


async def test_takes_part_before_it_is_iterated() -> None:
    """What is published between subscribing and the first item asked for is not missed."""
    broadcast = Broadcast()
    subscription = broadcast.subscribe()
    assert broadcast.publish("early") == 1
    assert await anext(subscription) == wire("early")[0]


# ---- the end of a subscription


async def test_leaves_with_the_context() -> None:
    """Leaving the `async with` ends the subscription, also through an exception; closing again does nothing."""
    broadcast = Broadcast()
    with pytest.raises(ZeroDivisionError):
        async with broadcast.subscribe() as subscription:
            assert len(broadcast) == 1
            broadcast.publish("held")
            raise ZeroDivisionError
    assert len(broadcast) == 0
    assert broadcast.publish("x") == 0
    await subscription.aclose()
    assert await rest(subscription) == []


async def test_leaves_when_nobody_holds_it() -> None:
    """A subscription that is dropped, iterated or not, is gone without a call and without the garbage collector."""
    broadcast = Broadcast()
    gc.disable()
    try:
        subscription = broadcast.subscribe()
        broadcast.publish("x")
        broadcast.subscribe()
        assert len(broadcast) == 1
        async for _ in subscription:
            break
        del subscription
        assert len(broadcast) == 0
    finally:
        gc.enable()


async def test_leaves_when_its_task_is_cancelled() -> None:
    """A task that is cancelled while it iterates leaves no subscriber behind, though nobody closed it."""
    broadcast = Broadcast()

    async def subscriber() -> None:
        async for _ in broadcast.subscribe():
            pass

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(subscriber)
        await wait_all_tasks_blocked()
        assert len(broadcast) == 3
        tasks.cancel_scope.cancel()
    assert len(broadcast) == 0


async def test_a_deadline_costs_nothing() -> None:
    """A wait that is given up leaves the subscription as it was: the next event is still had."""
    broadcast = Broadcast()
    subscription = broadcast.subscribe()
    with anyio.move_on_after(0) as scope:
        await anext(subscription)
    assert scope.cancelled_caught
    assert broadcast.publish("x") == 1
    assert await anext(subscription) == wire("x")[0]


async def test_closing_lets_a_waiting_task_out() -> None:
    """Whoever waits in the iteration when it is closed comes out of it."""
    broadcast = Broadcast()
    subscription = broadcast.subscribe()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rest, subscription)
        await wait_all_tasks_blocked()
        await subscription.aclose()


async def test_one_task_at_a_time() -> None:
    """A second task in the same iteration is an error, not two halves of a stream; the first goes on."""
    broadcast = Broadcast()
    subscription, got = broadcast.subscribe(), list[bytes]()

    async def first() -> None:
        got.extend(await rest(subscription))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="one task at a time"):
            await anext(subscription)
        broadcast.publish("x")
        broadcast.close()
    assert got == wire("x")


async def test_the_next_task_may_hang_its_own_bell() -> None:
    """A task that begins to wait before the woken one runs is woken by the next event."""
    broadcast, got = Broadcast(), list[bytes]()
    subscription = broadcast.subscribe()

    async def one() -> None:
        got.append(await anext(subscription))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            await wait_all_tasks_blocked()
            broadcast.publish(1)
            got.append(await anext(subscription))  # takes it before the woken task does, which waits again
            await wait_all_tasks_blocked()
            broadcast.publish(2)
    assert got == wire(1, 2)


async def test_after_close() -> None:
    """Closed, a broadcast takes nothing; who still subscribes gets what is kept after his id, and the end."""
    broadcast = Broadcast(history=5)
    for number in range(1, 4):
        broadcast.publish(numbered(number))
    early = broadcast.subscribe()
    broadcast.close()
    broadcast.close()
    assert broadcast.publish(numbered(4)) == 0
    assert await rest(early) == []
    assert await rest(broadcast.subscribe("2")) == wire(numbered(3))
    assert await rest(broadcast.subscribe()) == []
    assert len(broadcast) == 0


# ---- slow subscribers


@pytest.mark.parametrize(
    ("slow", "kept", "took", "dropped", "disconnected"),
    [
        (Slow.DROP_OLDEST, [3, 4], 1, 3, 0),
        (Slow.DROP_NEWEST, [0, 1], 0, 3, 0),
        (Slow.DISCONNECT, [0, 1], 0, 0, 1),
    ],
)
async def test_slow(slow: Slow, kept: list[int], took: int, dropped: int, disconnected: int) -> None:
    """A full queue does to its subscriber what the policy says, and nothing to the others or to the producer."""
    broadcast = Broadcast(queue=2, slow=slow)
    lazy, eager, got = broadcast.subscribe(), broadcast.subscribe(), list[bytes]()
    taken = 0
    for number in range(5):
        taken = broadcast.publish(number)
        got.append(await anext(eager))
    assert taken == 1 + took
    assert (broadcast.dropped, broadcast.disconnected) == (dropped, disconnected)
    assert len(broadcast) == 2 - disconnected
    broadcast.close()
    assert await rest(lazy) == wire(*kept)
    assert got == wire(*range(5))


async def test_replayed_events_have_their_own_room() -> None:
    """Replay takes no place of the queue, and when it is read its room is gone: no more than `queue` wait then."""
    broadcast = Broadcast(queue=2, history=10, slow=Slow.DROP_NEWEST)
    for number in range(5):
        broadcast.publish(numbered(number))
    subscription = broadcast.subscribe("1")
    assert [broadcast.publish(number) for number in (5, 6, 7)] == [1, 1, 0]
    assert [await anext(subscription) for _ in range(5)] == wire(*map(numbered, (2, 3, 4)), 5, 6)
    assert [broadcast.publish(number) for number in (8, 9, 10)] == [1, 1, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"queue": 0}, "queue"), ({"history": -1}, "history"), ({"sep": "x"}, "sep")],
)
async def test_settings(settings: dict[str, Any], message: str) -> None:
    """A setting out of range is an error at once."""
    with pytest.raises(ValueError, match=message):
        Broadcast(**settings)


async def test_an_item_that_cannot_be_encoded() -> None:
    """It is the producer's error, before anybody got anything."""
    broadcast = Broadcast(history=3)
    subscription = broadcast.subscribe()
    with pytest.raises(ValueError, match="negative"):
        broadcast.publish(ServerSentEvent("x", id=1, retry=-1))
    broadcast.publish("y")
    assert await anext(subscription) == wire("y")[0]


# ---- history


@pytest.mark.parametrize(
    ("last", "replayed"),
    [(None, []), ("3", [4, 5]), ("5", []), ("2", [3, 4, 5]), ("1", [3, 4, 5]), ("other", [3, 4, 5]), ("", [3, 4, 5])],
)
async def test_replay(last: str | None, replayed: list[int]) -> None:
    """What is kept after the id comes first; all of it for an id that is not kept; nothing without one."""
    broadcast = Broadcast(history=3 + (last == "2"))
    for number in range(1, 6):
        broadcast.publish(numbered(number))
    subscription = broadcast.subscribe(last)
    broadcast.publish("live")
    broadcast.close()
    assert await rest(subscription) == wire(*map(numbered, replayed), "live")


async def test_an_id_used_twice() -> None:
    """The later event of that id counts."""
    broadcast = Broadcast(history=9)
    for item in (numbered(1), numbered(2), numbered(1), numbered(3)):
        broadcast.publish(item)
    broadcast.close()
    assert await rest(broadcast.subscribe("1")) == wire(numbered(3))


async def test_what_is_kept() -> None:
    """Kept are the events after which a client has an id, whatever kind of item they were; a cut one is none."""
    broadcast = Broadcast(history=9)
    kept = [numbered(1), {"data": "x", "id": "2"}, b"id: 3\ndata: x\n\n", {"id": "a\rb"}, {"id": 5, "comment": "c"}]
    lost = ["x", {"data": "id: 7"}, b"id: 8\n", b"", {"data": "x", "id": ""}, b"id: \0\ndata: x\n\n"]
    for item in [*kept, *lost]:
        broadcast.publish(item)
    broadcast.close()
    assert await rest(broadcast.subscribe("")) == wire(*kept)
    assert await rest(broadcast.subscribe("ab")) == wire(kept[-1])


# ---- threads and loops


async def test_publish_from_a_worker_thread() -> None:
    """Any thread may publish: on the loop by anyio's own means, or directly, as a plain `def` endpoint would."""
    broadcast, got = Broadcast(), list[bytes]()

    async def subscriber() -> None:
        got.extend(await rest(broadcast.subscribe()))

    def producer() -> None:
        assert anyio.from_thread.run_sync(broadcast.publish, "by the loop") == 1
        assert broadcast.publish("directly") == 1

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subscriber)
            await wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(producer)
            await wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(broadcast.publish, "to one that waits")
            await anyio.to_thread.run_sync(broadcast.close)
    assert got == wire("by the loop", "directly", "to one that waits")


NAMES = "abc"


@pytest.mark.parametrize("queue", [1, 10_000])
async def test_threads_at_once(queue: int) -> None:
    """Several threads publishing to subscribers that read meanwhile: nothing lost, nothing twice, nobody asleep."""
    each = 400
    broadcast = Broadcast(queue=queue, slow=Slow.DROP_OLDEST)
    got: dict[int, list[bytes]] = {0: [], 1: []}

    async def subscriber(number: int, subscription: Subscription) -> None:
        async for frame in subscription:
            got[number].append(frame)
            if len(got[number]) % 7 == 0:
                await checkpoint()

    def producer(name: str) -> None:
        for number in range(each):
            broadcast.publish(f"{name}{number}")

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for number in got:
                tasks.start_soon(subscriber, number, broadcast.subscribe())
            async with anyio.create_task_group() as producers:
                for name in NAMES:
                    producers.start_soon(anyio.to_thread.run_sync, producer, name)
            await wait_all_tasks_blocked()  # they sleep, and hold the last one
            broadcast.publish("last")
            broadcast.close()
    for frames in got.values():
        assert frames[-1] == wire("last")[0]
        assert len(frames) == len(set(frames))
        for name in NAMES:
            mine = [int(frame[7:]) for frame in frames if frame.startswith(f"data: {name}".encode())]
            assert mine == sorted(mine)
    assert sum(map(len, got.values())) == 2 * (each * len(NAMES) + 1) - broadcast.dropped


async def test_subscribers_on_two_loops() -> None:
    """Subscribers may live on loops in different threads, each woken on its own."""
    broadcast, got, ready = Broadcast(), list[bytes](), threading.Event()

    async def elsewhere() -> None:
        async with broadcast.subscribe() as subscription:
            ready.set()
            got.extend(await rest(subscription))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, anyio.run, elsewhere)
            await anyio.to_thread.run_sync(ready.wait)
            subscription = broadcast.subscribe()
            assert broadcast.publish("x") == 2
            broadcast.close()
    assert got == await rest(subscription) == wire("x")


def test_a_loop_that_is_gone() -> None:
    """A subscriber whose loop was closed under it does no harm to publisher and others, from any thread."""
    broadcast = Broadcast()
    stray = broadcast.subscribe()
    loop = asyncio.new_event_loop()
    wait = loop.create_task(rest(stray))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    other = threading.Thread(target=broadcast.publish, args=("other thread",))
    other.start()
    other.join()
    assert broadcast.publish("this thread") == 1
    wait._log_destroy_pending = False  # type: ignore[attr-defined]


# ---- as the content of a response


async def call(response: EventSourceResponse, method: str, leave: anyio.Event) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await response({"type": "http", "method": method, "headers": []}, receive, send)
    return sent


async def test_a_response_leaves() -> None:
    """A client that goes leaves no subscriber behind."""
    broadcast, leave = Broadcast(), anyio.Event()
    response = EventSourceResponse(broadcast.subscribe())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, response, "GET", leave)
        await wait_all_tasks_blocked()
        assert broadcast.publish("x") == 1
        await wait_all_tasks_blocked()
        leave.set()
    assert len(broadcast) == 0


async def test_a_response_ends() -> None:
    """A broadcast that is closed ends its responses cleanly, after what they were owed."""
    broadcast = Broadcast()
    response = EventSourceResponse(broadcast.subscribe())
    broadcast.publish("x")
    broadcast.close()
    sent = await call(response, "GET", anyio.Event())
    assert [(message["body"], message["more_body"]) for message in sent[1:]] == [(wire("x")[0], True), (b"", False)]


async def test_head_leaves_nothing() -> None:
    """HEAD never iterates its content; when the response is dropped, so is the subscriber."""
    broadcast = Broadcast()
    response = EventSourceResponse(broadcast.subscribe())
    await call(response, "HEAD", anyio.Event())
    del response
    assert len(broadcast) == 0
