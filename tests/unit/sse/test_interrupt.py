"""Ending a wait from outside, in every order in which things can happen together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from streamgate.sse.interrupt import Interrupted, interrupted_by, unless

pytestmark = pytest.mark.anyio


def future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def soon(call: Callable[..., object], *arguments: object) -> None:
    asyncio.get_running_loop().call_soon(call, *arguments)


def pending() -> int:
    """Cancellations of this task that nobody has taken back."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def settled() -> None:
    """Nothing is left that would hit the next wait."""
    for _ in range(3):
        await checkpoint()
    assert pending() == 0


async def test_a_wait_ends_when_the_future_is_done() -> None:
    """`Interrupted` is raised, and no cancellation stays behind."""
    until = future()
    soon(until.set_result, "over")
    with pytest.raises(Interrupted), interrupted_by(until):
        await future()
    await settled()


async def test_a_future_that_is_done_before_lets_nobody_in() -> None:
    """The body does not begin."""
    until = future()
    until.set_result(None)
    with pytest.raises(Interrupted), interrupted_by(until):
        pytest.fail("the body ran")
    await settled()


@pytest.mark.parametrize("how", ["set_exception", "cancel"])
async def test_any_end_of_the_future_interrupts(how: str) -> None:
    """A future that failed or was cancelled is done as well."""
    until = future()
    soon(*((until.set_exception, ValueError()) if how == "set_exception" else (until.cancel,)))
    with pytest.raises(Interrupted), interrupted_by(until):
        await future()
    assert until.cancelled() or until.exception()
    await settled()


async def test_a_body_that_finishes_first_stays_finished() -> None:
    """The future may be done later without anybody noticing."""
    until = future()
    with interrupted_by(until):
        await checkpoint()
    until.set_result(None)
    await settled()


async def test_a_body_that_never_waits_is_not_interrupted() -> None:
    """The future is done while the body runs, and the body's end comes before the callback."""
    until = future()
    with interrupted_by(until):
        until.set_result(None)
    await settled()


async def test_a_result_that_was_first_is_kept() -> None:
    """Both come in the same turn of the loop, the body's first: the body finishes."""
    until, mine = future(), future()

    def both() -> None:
        mine.set_result("kept")
        until.set_result(None)

    soon(both)
    with interrupted_by(until):
        assert await mine == "kept"
    await settled()


async def test_an_interruption_that_was_first_wins() -> None:
    """Both come in the same turn of the loop, the future's first: the body is interrupted."""
    until, mine = future(), future()

    def both() -> None:
        until.set_result(None)
        mine.set_result("lost")

    soon(both)
    with pytest.raises(Interrupted), interrupted_by(until):
        await mine
    await settled()


async def test_a_body_may_finish_in_spite_of_it() -> None:
    """One that took the cancellation and went on to its end stays finished, and is not hit again."""
    until = future()
    soon(until.set_result, None)
    with interrupted_by(until):
        with contextlib.suppress(asyncio.CancelledError):
            await future()
        await checkpoint()
    await settled()


async def test_an_error_on_the_way_out_is_not_hidden() -> None:
    """What the body raises while it is being interrupted comes out as it is."""
    until = future()
    soon(until.set_result, None)
    with pytest.raises(ZeroDivisionError), interrupted_by(until):
        try:
            await future()
        finally:
            _ = 1 / 0
    await settled()


async def test_an_error_of_the_body_is_its_own() -> None:
    """Without an interruption the body's error passes, and the future is left alone."""
    until = future()
    with pytest.raises(KeyError), interrupted_by(until):
        raise KeyError
    assert not until._callbacks
    await settled()


@pytest.mark.parametrize("order", ["future first", "cancel first"])
async def test_a_cancellation_from_outside_goes_through(order: str) -> None:
    """In the same turn as the future, in either order: it is the outsider's cancellation that comes out."""
    until, entered = future(), asyncio.Event()
    came: list[type[BaseException]] = []

    async def work() -> None:
        try:
            with interrupted_by(until):
                entered.set()
                await future()
        except BaseException as error:
            came.append(type(error))
            raise

    task = asyncio.get_running_loop().create_task(work())
    await entered.wait()
    first, second = (until.set_result, task.cancel) if order == "future first" else (task.cancel, until.set_result)
    for call in (first, second):
        call(None)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert came == [asyncio.CancelledError]
    assert task.cancelled()


async def test_a_cancellation_alone_goes_through() -> None:
    """The future has nothing to do with it, and keeps no callback."""
    until, entered = future(), asyncio.Event()

    async def work() -> None:
        with interrupted_by(until):
            entered.set()
            await future()

    task = asyncio.get_running_loop().create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not until.done() and not until._callbacks


async def test_a_cancellation_during_the_way_out_goes_through() -> None:
    """The body is being interrupted and cleans up when the outsider comes."""
    until, cleaning = future(), asyncio.Event()

    async def work() -> None:
        with interrupted_by(until):
            try:
                await future()
            finally:
                cleaning.set()
                await future()

    task = asyncio.get_running_loop().create_task(work())
    soon(until.set_result, None)
    await cleaning.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_was_cancelled_before_can_still_wait() -> None:
    """Only the interruption's own cancellation is taken back: one from earlier, being cleaned up after, is not."""
    until, entered = future(), asyncio.Event()
    seen: list[int] = []

    async def work() -> None:
        try:
            entered.set()
            await future()
        except asyncio.CancelledError:
            soon(until.set_result, None)
            with pytest.raises(Interrupted), interrupted_by(until):
                await future()
            seen.append(pending())
            raise

    task = asyncio.get_running_loop().create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [1]


@pytest.mark.parametrize(("fires", "caught"), [("inner", "inner"), ("outer", "outer"), ("both", "outer")])
async def test_nested(fires: str, caught: str) -> None:
    """Each is ended by its own future; when both are done the outer one is."""
    inner, outer = future(), future()
    calls = {"inner": [inner], "outer": [outer], "both": [inner, outer]}
    for each in calls[fires]:
        soon(each.set_result, None)
    ended = ""
    try:
        with interrupted_by(outer):
            try:
                with interrupted_by(inner):
                    await future()
            except Interrupted:
                ended = "inner"
                await checkpoint()
    except Interrupted:
        ended = "outer"
    assert ended == caught
    await settled()


async def test_nested_in_one_future() -> None:
    """The same future twice: everything inside the outer one is over."""
    until = future()
    soon(until.set_result, None)
    with pytest.raises(Interrupted), interrupted_by(until):
        with interrupted_by(until):
            await future()
        pytest.fail("the outer body went on")
    await settled()


async def test_beside_a_timeout() -> None:
    """A timeout inside or outside keeps its own meaning."""
    until = future()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            with interrupted_by(until):
                await future()
    with pytest.raises(TimeoutError), interrupted_by(until):
        async with asyncio.timeout(0.01):
            await future()
    with pytest.raises(Interrupted):
        async with asyncio.timeout(5):
            with interrupted_by(until):
                soon(until.set_result, None)
                await future()
    await settled()


async def test_beside_a_cancel_scope_of_anyio() -> None:
    """A scope that is cancelled around it ends the body, and an interruption does not cancel the scope."""
    until = future()
    with anyio.move_on_after(0.01) as scope:
        with interrupted_by(until):
            await future()
    assert scope.cancelled_caught
    with anyio.CancelScope() as scope:
        soon(until.set_result, None)
        with pytest.raises(Interrupted), interrupted_by(until):
            await future()
        await checkpoint()
    assert not scope.cancelled_caught
    await settled()


async def test_only_a_task_can_be_interrupted() -> None:
    """In a callback there is nothing to end."""
    failure = future()

    def callback() -> None:
        try:
            with interrupted_by(future()):
                pass
        except RuntimeError as error:
            failure.set_result(error)

    soon(callback)
    assert "task" in str(await failure)


class Door:
    """A context that waits to be let in, and notes how it was left."""

    def __init__(self, opens: asyncio.Future[Any] | None = None, *, swallows: bool = False) -> None:
        self.opens = opens
        self.swallows = swallows
        self.notes: list[object] = []

    async def __aenter__(self) -> str:
        if self.opens is not None:
            try:
                await self.opens
            except asyncio.CancelledError:
                self.notes.append("turned away")
                raise
        self.notes.append("in")
        return "thing"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.notes.append(kind)
        return self.swallows


async def test_unless_gives_what_the_context_gives() -> None:
    """Entered in time, it is left in the ordinary way, and the future no longer matters."""
    until, door = future(), Door()
    async with unless(until, door) as thing:
        assert thing == "thing"
        until.set_result(None)
        await checkpoint()
    assert door.notes == ["in", None]
    await settled()


async def test_unless_ends_the_wait_for_entry() -> None:
    """A context that was not entered is not left either; it sees the cancellation and can clean up."""
    until, door = future(), Door(future())
    soon(until.set_result, None)
    with pytest.raises(Interrupted):
        async with unless(until, door):
            pytest.fail("entered")
    assert door.notes == ["turned away"]
    await settled()


async def test_unless_does_not_even_knock() -> None:
    """A future that is done before lets nobody in."""
    until, door = future(), Door()
    until.set_result(None)
    with pytest.raises(Interrupted):
        async with unless(until, door):
            pytest.fail("entered")
    assert door.notes == []


@pytest.mark.parametrize("swallows", [False, True])
async def test_unless_hands_errors_to_the_context(swallows: bool) -> None:
    """The context decides whether they go on, as it would without `unless`."""
    door = Door(swallows=swallows)
    raised = None
    try:
        async with unless(future(), door):
            raise KeyError
    except KeyError as error:
        raised = error
    assert (raised is None) is swallows
    assert door.notes == ["in", KeyError]
