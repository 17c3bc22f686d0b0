"""SERVING -> DRAINING -> DRAINED, and the streams inside."""

from __future__ import annotations

import asyncio

import pytest
from anyio.lowlevel import checkpoint

from streamgate.drain import MOVES, Drain, IllegalMove, Phase, Signal

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_knows_its_moves(phase: Phase) -> None:
    """The table is total over phases, and a drain never goes back."""
    order = list(Phase)
    assert Signal.BEGIN in MOVES[phase], "a second signal is no error in any phase"
    for reached in MOVES[phase].values():
        assert order.index(reached) >= order.index(phase)


async def test_the_way_down() -> None:
    """Beginning is idempotent, readiness goes before newcomers are refused, and empty ends it."""
    drain = Drain()
    assert (drain.phase, drain.refusing) == (Phase.SERVING, False)
    for _ in range(2):
        drain.begin()
        assert (drain.phase, drain.refusing) == (Phase.DRAINING, False)
    drain.refuse()
    assert drain.refusing
    for _ in range(2):
        assert await drain.empty(0)
        assert drain.phase is Phase.DRAINED
    drain.begin()
    assert drain.phase is Phase.DRAINED


async def test_a_server_that_serves_is_not_emptied() -> None:
    """Waiting for the last stream before the drain began is a mistake of the caller's."""
    drain = Drain()
    with pytest.raises(IllegalMove, match="EMPTY while SERVING"):
        await drain.empty(1)
    assert drain.phase is Phase.SERVING


async def test_streams_are_counted_while_inside() -> None:
    """However a stream leaves, by an error or in any order, the count is right."""
    drain = Drain()
    with drain.inside(lambda: None):
        with pytest.raises(KeyError), drain.inside(lambda: None):
            assert len(drain) == 2
            raise KeyError
        assert len(drain) == 1
    first, second = drain.inside(lambda: None), drain.inside(lambda: None)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert len(drain) == 1
    second.__exit__(None, None, None)
    assert len(drain) == 0


async def test_empty_waits_for_the_last() -> None:
    """Not for the first that leaves, and also for one that came during the drain."""
    drain = Drain()
    stays = [drain.inside(lambda: None) for _ in range(3)]
    for stay in stays[:2]:
        stay.__enter__()
    drain.begin()
    waiting = asyncio.get_running_loop().create_task(drain.empty(5))
    await checkpoint()
    stays[0].__exit__(None, None, None)
    stays[2].__enter__()
    stays[1].__exit__(None, None, None)
    for _ in range(3):
        await checkpoint()
    assert not waiting.done() and drain.phase is Phase.DRAINING
    stays[2].__exit__(None, None, None)
    assert await waiting
    assert drain.phase is Phase.DRAINED


async def test_empty_is_not_fooled_by_one_that_came_and_one_that_went() -> None:
    """In the moment in which the last leaves another enters: that is not empty."""
    drain = Drain()
    drain.begin()
    first, second = drain.inside(lambda: None), drain.inside(lambda: None)
    first.__enter__()
    waiting = asyncio.get_running_loop().create_task(drain.empty(5))
    await checkpoint()
    first.__exit__(None, None, None)
    second.__enter__()
    for _ in range(3):
        await checkpoint()
    assert not waiting.done()
    second.__exit__(None, None, None)
    assert await waiting


async def test_empty_gives_up_in_time() -> None:
    """With streams left when the time is over it says so, and the drain goes on."""
    drain = Drain()
    drain.begin()
    with drain.inside(lambda: None):
        assert not await drain.empty(0.01)
        assert not await drain.empty(0)
        assert drain.phase is Phase.DRAINING
    assert await drain.empty(0)


async def test_expire_tells_everyone_inside() -> None:
    """Each is told, even if a stream leaves at once while others are still to be told; the number is returned."""
    drain = Drain()
    told: list[str] = []
    stays = {}

    def leave(name: str) -> None:
        told.append(name)
        stays[name].__exit__(None, None, None)

    for name in ("a", "b", "c"):
        stays[name] = drain.inside(lambda name=name: leave(name))
        stays[name].__enter__()
    drain.begin()
    assert drain.expire() == 3
    assert told == ["a", "b", "c"]
    assert len(drain) == 0
    assert drain.expire() == 0


async def test_a_stream_is_told_once() -> None:
    """One that takes its time to leave is not told again, and not counted again."""
    drain = Drain()
    told: list[int] = []
    with drain.inside(lambda: told.append(1)):
        assert drain.expire() == 1
        assert drain.expire() == 0
        assert len(drain) == 1
    assert told == [1]
