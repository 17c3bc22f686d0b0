"""Names a hook that does not give the event loop back."""

from __future__ import annotations

import asyncio
import faulthandler
import subprocess
import sys
import textwrap
import threading

import pytest

from streamgate.hooks import watchdog
from streamgate.hooks.watchdog import STUCK, Running, Stepped, Watchdog


def test_what_runs_too_long_is_named_once():
    """Not before its time, not again, and the next one anew."""
    running, told, now = Running(), [], [10.0]
    watch = Watchdog(running, lambda *what: told.append(what), now=lambda: now[0])
    watch.look()
    running.plugin, running.hook, running.since = "guard", "on_text", 10.0
    now[0] = 10.0 + STUCK
    watch.look()
    assert told == []
    now[0] += 0.5
    watch.look()
    watch.look()
    assert told == [("guard", "on_text", STUCK + 0.5)]
    running.since = 12.0
    now[0] = 14.0
    watch.look()
    assert told[1:] == [("guard", "on_text", 2.0)]


def test_the_thread_looks_and_ends(monkeypatch):
    """It is joined; started twice it is one."""
    monkeypatch.setattr(watchdog, "TICK", 0.001)
    running, told = Running(), threading.Event()
    watch = Watchdog(running, lambda *_: told.set())
    watch.start()
    watch.start()
    running.plugin, running.hook, running.since = "guard", "on_text", -100.0
    assert told.wait(5)
    watch.stop()
    watch.stop()
    assert not any(thread.name == "streamgate-plugins" for thread in threading.enumerate())


def test_without_a_stderr_it_still_looks(monkeypatch):
    """A detached process has none."""

    def refuse(*_: object, **__: object) -> None:
        raise AttributeError

    monkeypatch.setattr(faulthandler, "dump_traceback_later", refuse)
    watchdog._arm()


NEVER = """
    import asyncio, re, sys
    from streamgate.hooks import Plugin
    from streamgate.testing import PluginHarness

    class Stuck(Plugin):
        def on_text(self, text, stream):
            {stuck}

    async def main():
        async with PluginHarness(Stuck) as gateway:
            gateway.books.stuck = lambda *what: print("stuck:", *what, flush=True)
            gateway.plugins._watchdog._stuck = gateway.books.stuck
            await gateway.stream(["a" * 40])

    asyncio.run(main())
"""


def stuck_process(stuck: str) -> subprocess.Popen[bytes]:
    code = textwrap.dedent(NEVER.format(stuck=stuck))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_hook_that_never_returns_is_named():
    """From the thread, while the loop stands still."""
    with stuck_process("while True: pass") as gateway:
        try:
            assert gateway.stdout is not None
            assert gateway.stdout.readline().startswith(b"stuck: plugin on_text 1.")
        finally:
            gateway.kill()


def test_a_pattern_that_never_returns_is_named():
    """A match holds the interpreter's lock, so that no thread runs: the stacks are written all the same."""
    with stuck_process('re.match(r"(a*)*b", text.pending)') as gateway:
        try:
            assert gateway.stderr is not None
            lines = iter(gateway.stderr.readline, b"")
            assert any(b"in on_text" in line for line in lines)
        finally:
            gateway.kill()


@pytest.mark.anyio
async def test_each_step_is_measured_and_marked():
    """While a step runs the plugin is marked; cancellations reach it, and what it raises comes out."""
    running, marked = Running(), []

    async def hook():
        marked.append((running.plugin, running.hook))
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop
        marked.append(running.plugin)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            marked.append("cancelled")
            raise

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:

        async def awaits():
            await Stepped(hook(), running, "guard", "on_open")

        task = tasks.create_task(awaits())
        for _ in range(5):
            await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop
            assert running.plugin == ""
        task.cancel()
    assert marked == [("guard", "on_open"), "guard", "cancelled"]


@pytest.mark.anyio
async def test_what_a_step_raises_comes_out():
    """With the answer, where there is one."""

    async def hook(raises):
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop
        if raises:
            raise KeyError("x")
        return 7

    assert await Stepped(hook(False), Running(), "guard", "on_open") == 7
    with pytest.raises(KeyError):
        await Stepped(hook(True), Running(), "guard", "on_open")
