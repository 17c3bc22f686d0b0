"""What another thread may do between two steps of a filler or a taker; each moment is made to happen here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from threading import get_ident

import pytest

from streamgate.sse.mailbox import Home, Mailbox, here


class Watched(deque[bytes]):
    """Frames that call somebody in right after an append, or right before a removal."""

    appended: Callable[[], object] | None = None
    removing: Callable[[], object] | None = None

    def append(self, frame: bytes, /) -> None:
        super().append(frame)
        call, self.appended = self.appended, None
        if call:
            call()

    def popleft(self) -> bytes:
        call, self.removing = self.removing, None
        if call:
            call()
        return super().popleft()


def full(*frames: bytes) -> tuple[Mailbox, Watched]:
    mailbox, watched = Mailbox(len(frames)), Watched(frames)
    mailbox.frames = watched
    return mailbox, watched


def test_push() -> None:
    """The oldest makes room, also for one that is the very same object."""
    mailbox, frames = full(b"a", b"b")
    assert mailbox.push(b"c")
    same = b"d"
    assert mailbox.push(same)
    assert mailbox.push(same)
    assert mailbox.push(same)
    assert list(frames) == [same, same]


def test_push_when_all_are_taken_before() -> None:
    """The subscriber took all that waited, and not the new one: it is not lost, and neither is another."""
    mailbox, frames = full(b"a")
    frames.appended = mailbox.take
    assert not mailbox.push(b"b")
    assert list(frames) == [b"b"]


def test_push_when_the_new_one_is_taken_too() -> None:
    """The subscriber took the new one as well: nothing is lost, and nothing comes twice."""
    mailbox, frames = full(b"a")
    frames.appended = frames.clear
    assert not mailbox.push(b"b")
    assert list(frames) == []


@pytest.mark.anyio
async def test_push_when_the_subscriber_waits_again() -> None:
    """The subscriber took all and hung its bell before the new one was removed and put back: it is woken."""
    mailbox, frames = full(b"a")
    home = here()
    bell = home.bell()
    assert isinstance(bell, asyncio.Future)

    def waits() -> None:
        mailbox.take()
        mailbox._home, mailbox._bell = home, bell

    frames.appended = waits
    assert not mailbox.push(b"b")
    assert bell.done()
    assert await within(mailbox) == b"b"


async def within(mailbox: Mailbox) -> bytes:
    async with asyncio.timeout(5):
        return await mailbox.next()


@pytest.mark.anyio
async def test_next_while_it_is_put_back() -> None:
    """The only frame is away for a moment: the subscriber waits for it, and is not told of an end."""
    mailbox, frames = full(b"a")

    def away() -> None:
        frames.clear()
        asyncio.get_running_loop().call_soon(mailbox.put, b"a")

    frames.removing = away
    assert await within(mailbox) == b"a"


@pytest.mark.anyio
async def test_a_frame_that_comes_while_the_bell_is_hung() -> None:
    """A filler that saw no bell yet is not waited for."""
    mailbox, home = Mailbox(1), here()

    def late() -> asyncio.Future[object]:
        mailbox.frames.append(b"a")
        return asyncio.get_running_loop().create_future()

    mailbox._home = Home(get_ident(), late, home.ring, home.soon)
    assert await within(mailbox) == b"a"


@pytest.mark.anyio
async def test_the_last_frame_and_the_end_at_once() -> None:
    """What was put in before the end is taken before the end, though both came between two looks."""
    mailbox = Mailbox(1)

    class Late(Watched):
        def __len__(self) -> int:
            nothing_yet = super().__len__()
            if not nothing_yet and not mailbox.ended:
                self.append(b"last")
                mailbox.end()
            return nothing_yet

    mailbox.frames = Late()
    assert await within(mailbox) == b"last"
    with pytest.raises(StopAsyncIteration):
        await mailbox.next()


@pytest.mark.anyio
async def test_a_bell_that_nobody_waits_for() -> None:
    """A ring from another thread that arrives after the wait was given up disturbs nobody."""
    home = here()
    bell = home.bell()
    assert isinstance(bell, asyncio.Future)
    bell.cancel()
    home.ring(bell)
    assert bell.cancelled()
