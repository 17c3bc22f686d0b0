"""Whatever the order of publishing, subscribing, coming back and reading: a subscriber gets what it is owed, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.sse.broadcast import Broadcast, Slow, Subscription
from streamgate.sse.channel import Channel
from streamgate.sse.event import ServerSentEvent

QUEUE = 3
WHICH = st.integers(0, 9)
# What happens next: an event with an id or without one, a newcomer that has seen the n-th event (0: none at all), and
# the n-th subscriber takes an event or goes.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 3)),
        st.tuples(st.just("subscribe"), st.integers(0, 12)),
        st.tuples(st.sampled_from(["take", "take", "leave"]), WHICH),
    ),
    max_size=60,
)


def finished(coroutine: Any) -> Any:
    """Its result, without a loop: nothing here may wait, since what is asked for is there."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits, though something is held or the end has come")


def rest(subscription: Subscription) -> list[bytes]:
    frames = []
    while True:
        try:
            frames.append(finished(subscription.__anext__()))
        except StopAsyncIteration:
            return frames


@dataclass(eq=False)
class Reader:
    """A subscriber and what it must still get, of which the first `replayed` take no place of the queue."""

    subscription: Subscription
    owed: list[bytes]
    replayed: int
    ended: bool = False

    def take(self) -> None:
        if self.owed:
            assert finished(self.subscription.__anext__()) == self.owed.pop(0)
            self.replayed = max(0, self.replayed - 1)
        elif self.ended:
            assert rest(self.subscription) == []


class Imitation:
    """What a broadcast should do, in plain lists."""

    def __init__(self, slow: Slow, history: int) -> None:
        self.slow = slow
        self.history = history
        self.kept: list[tuple[str, bytes]] = []
        self.readers: list[Reader] = []
        self.dropped = 0
        self.disconnected = 0

    def publish(self, id: str | None, frame: bytes) -> int:
        if id is not None and self.history:
            self.kept = [*self.kept, (id, frame)][-self.history :]
        return sum(self.put(reader, frame) for reader in self.readers if not reader.ended)

    def put(self, reader: Reader, frame: bytes) -> bool:
        if len(reader.owed) < QUEUE + reader.replayed:
            reader.owed.append(frame)
        elif self.slow is Slow.DISCONNECT:
            self.disconnected += 1
            reader.ended = True
            return False
        else:
            self.dropped += 1
            if self.slow is Slow.DROP_NEWEST:
                return False
            reader.owed = [*reader.owed[1:], frame]
        return True

    def after(self, id: str | None) -> list[bytes]:
        if id is None:
            return []
        ids = [each for each, _ in self.kept]
        return [frame for _, frame in (self.kept[ids.index(id) + 1 :] if id in ids else self.kept)]


@pytest.mark.parametrize("slow", Slow)
@given(history=st.integers(0, 6), steps=STEPS)
def test_broadcast(slow: Slow, history: int, steps: list[tuple[str, int]]) -> None:
    """Queues, policies, replay and counts are those of an imitation in plain lists."""
    broadcast, imitation = Broadcast(queue=QUEUE, slow=slow, history=history), Imitation(slow, history)
    readers = imitation.readers
    for number, (step, which) in enumerate(steps):
        match step:
            case "publish":
                event = ServerSentEvent(number, id=number if which else None)
                kept_as = str(number) if which else None
                assert broadcast.publish(event) == imitation.publish(kept_as, event.encode())
            case "subscribe":
                seen = str(which) if which else None
                owed = imitation.after(seen)
                readers.append(Reader(broadcast.subscribe(seen), owed, len(owed)))
            case "take" if readers:
                readers[which % len(readers)].take()
            case "leave" if readers:
                finished(readers.pop(which % len(readers)).subscription.aclose())
        assert len(broadcast) == sum(not reader.ended for reader in readers)
    assert (broadcast.dropped, broadcast.disconnected) == (imitation.dropped, imitation.disconnected)
    broadcast.close()
    assert [rest(reader.subscription) for reader in readers] == [reader.owed for reader in readers]


@given(steps=st.lists(st.sampled_from(["publish", "publish", "take", "come back"]), max_size=80))
def test_nothing_is_missed(steps: list[str]) -> None:
    """A client that comes back with its last id, at any moment, sees every event once and in order.

    Between its connections, while it is replayed to and while it is disconnected for being slow as well.
    """
    channel = Channel(queue=QUEUE, history=len(steps))
    got: list[bytes] = []
    number, subscription = 0, channel.subscribe("bob", "")

    def come_back() -> Subscription:
        return channel.subscribe("bob", str(len(got)))

    for step in steps:
        match step:
            case "publish":
                number += 1
                channel.send("bob", ServerSentEvent(number, id=number))
            case "take" if len(got) < number:
                try:
                    got.append(finished(subscription.__anext__()))
                except StopAsyncIteration:  # it was too slow; its browser comes back
                    subscription = come_back()
            case "come back":
                finished(subscription.aclose())
                subscription = come_back()
    channel.close()
    got += rest(subscription)
    got += rest(come_back())
    assert got == [ServerSentEvent(each, id=each).encode() for each in range(1, number + 1)]
