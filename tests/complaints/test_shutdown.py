"""How streams learn of a shutdown, and that those of the next server are left alone."""

# Each complaint, where it was made, and the tests that hold it.
# shutdown is polled for every 0.5 s (sysid/sse-starlette#132, #149)
#     shutdown_is_polled_for
# uvicorn in a background thread: never seen (eventum-generator/eventum#143, Consiliency/pmcp#224)
#     background_thread_never_sees
# handle_exit was bound before the import: never seen (sysid/sse-starlette#124, #132)
#     handle_exit_is_lost
# a signal latches should_exit: later servers are cut off (sysid/sse-starlette#211)
#     should_exit_is_latched
# globals bound to the first event loop (sysid/sse-starlette#59, #68, #135, #140)
#     global_is_bound
# fixtures set AppStatus.should_exit_event, or patch should_exit (gone since 3.0)
#     unknown_attribute, patched_switch

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from signal import SIGTERM
from time import monotonic
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from complaints.client import PATIENCE, Client, quiet, served
from complaints.endings import one_and_silence, two
from complaints.shutting import ASYNCIO, PROMPTLY, Server, streaming

from streamgate.sse import AppStatus, EventSourceResponse, StreamGroup

pytestmark = pytest.mark.anyio


async def test_shutdown_is_polled_for() -> None:
    """sysid/sse-starlette#132, #149: the switch ends streams at once, whichever thread turns it."""
    async with streaming() as (client, run):
        began = monotonic()
        thread = threading.Thread(target=setattr, args=(AppStatus, "should_exit", True))
        thread.start()
        await run.over()
        assert monotonic() - began < PROMPTLY
        thread.join()
    assert not client.whole
    late = Client()
    assert await served(EventSourceResponse(one_and_silence()), late) is None
    assert not late.whole


@ASYNCIO
async def test_shutdown_is_polled_for_under_uvicorn() -> None:
    """sysid/sse-starlette#149: the streams of uvicorn's loop end while it shuts down, not half a second later."""
    async with streaming() as (_, run), anyio.create_task_group() as group:
        began = monotonic()
        group.start_soon(Server().shutdown)
        await run.over()
        assert monotonic() - began < PROMPTLY


@ASYNCIO
async def test_handle_exit_is_lost_when_uvicorn_registers_first() -> None:
    """sysid/sse-starlette#124, #132: no handler is replaced, so it does not matter which of them a signal finds."""
    server = Server()
    handler = server.handle_exit
    async with streaming() as (_, run):
        handler(SIGTERM, None)
        assert server.should_exit
        await server.shutdown()
        await run.over()
    assert uvicorn.Server.handle_exit is type(server).handle_exit


@pytest.mark.parametrize("run", [asyncio.run, anyio.run], ids=["asyncio.run", "anyio.run"])
def test_background_thread_never_sees_the_shutdown(run: Callable[..., Any]) -> None:
    """eventum-generator/eventum#143, Consiliency/pmcp#224: a server in a thread ends its streams, and only those."""
    up, ended, failed = threading.Event(), threading.Event(), []

    async def elsewhere() -> None:
        async with streaming() as (_, stream):
            up.set()
            await anyio.to_thread.run_sync(ended.wait, PATIENCE)
            await quiet()
            if stream.is_over:
                failed.append("the neighbour's stream ended")
            AppStatus.should_exit = True

    async def here() -> None:
        async with streaming() as (_, stream):
            await Server().shutdown()
            await stream.over()

    def work(main: Callable[[], Coroutine[Any, Any, None]], after: threading.Event) -> None:
        try:
            asyncio.run(main()) if run is asyncio.run else anyio.run(main)
        except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
            failed.append(repr(error))
        finally:
            after.set()

    neighbour = threading.Thread(target=work, args=(elsewhere, threading.Event()))
    neighbour.start()
    assert up.wait(PATIENCE)
    thread = threading.Thread(target=work, args=(here, ended))
    thread.start()
    thread.join(PATIENCE)
    neighbour.join(PATIENCE)
    assert not thread.is_alive()
    assert not neighbour.is_alive()
    assert failed == []


@ASYNCIO
async def test_should_exit_is_latched_by_a_signal() -> None:
    """sysid/sse-starlette#211: what follows a server that was shut down streams as if there had been none."""
    server = Server()
    async with streaming():
        server.handle_exit(SIGTERM, None)
        await server.shutdown()
        seen = AppStatus.should_exit
    assert not seen
    assert not AppStatus.should_exit
    client = Client()
    assert await served(EventSourceResponse(two()), client) is None
    assert client.whole


@ASYNCIO
async def test_should_exit_is_latched_while_the_server_shuts_down() -> None:
    """sysid/sse-starlette#211: during the shutdown it reads True, for code that asks; a newcomer ends at once."""
    seen: list[object] = []

    class Asked(Server):
        async def _wait_tasks_to_complete(self) -> None:
            seen.append(AppStatus.should_exit)
            client = Client()
            seen.append(await served(EventSourceResponse(one_and_silence()), client))
            seen.append(client.whole)

    async with streaming():
        await Asked().shutdown()
    assert seen == [True, None, False]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_global_is_bound_to_the_first_event_loop(backend: str) -> None:
    """sysid/sse-starlette#59, #68, #135, #140: one loop after the other, and side by side, in whichever thread."""
    ended: list[BaseException | None] = []

    async def main() -> None:
        group = StreamGroup()
        async with streaming(ping=0.001) as (client, _):
            client.leave()
        async with streaming(drain=group) as (_, run):
            group.end()
            await run.over()
            ended.append(run.raised)

    for _ in range(3):
        anyio.run(main, backend=backend)
    threads = [threading.Thread(target=anyio.run, args=(main,), kwargs={"backend": backend}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert ended == [None] * 6


def test_unknown_attribute_of_the_switch_is_refused() -> None:
    """Test suites still reset `AppStatus.should_exit_event`, gone since 3.0: that is harmless."""
    AppStatus.should_exit_event = None  # type: ignore[attr-defined]
    AppStatus.should_exit = False
    anyio.run(streams_on)


def test_patched_switch_cannot_be_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test suites patch should_exit for a while: pytest then deletes it from the class, or sets what it was."""
    with monkeypatch.context() as patch:
        patch.setattr(AppStatus, "should_exit", True)
        assert AppStatus.should_exit
        patch.setattr(AppStatus, "enable_automatic_graceful_drain", False)
    assert AppStatus.should_exit is False
    assert AppStatus.enable_automatic_graceful_drain is True
    anyio.run(streams_on)


async def streams_on() -> None:
    client = Client()
    assert await served(EventSourceResponse(two()), client) is None
    assert client.whole
