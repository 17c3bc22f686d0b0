"""What an event and a short request cost, counted: Python calls into streamgate's own functions, what the loop is asked
for, and what stays allocated. Times differ between machines; these numbers do not.

The gateway runs in a process of its own with the edge's outlet, a scripted upstream and a raw client, in lockstep: one
event is one read of the upstream's socket. `call_counts.json` holds the numbers; more than it says is a failure. The
goal for one event is 8 calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import selectors
import subprocess
import sys
import warnings
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import mode
from types import FrameType
from typing import Any, Self

import pytest
from stage import DONE, FINISH, Client, Peer, Stage, delta

ROOT = Path(__file__).parents[2]
LIMITS: dict[str, Any] = json.loads(Path(__file__).with_name("call_counts.json").read_text())
PACKAGE = str(ROOT / "streamgate") + os.sep
INLINED = frozenset(("<listcomp>", "<dictcomp>", "<setcomp>"))  # calls until Python 3.11, none from 3.12 on

EVENTS, REQUESTS, LASTING = 60, 12, 160
WARM = 200  # rounds before the first that counts: by then the interpreter's own free lists are full
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TOKEN = delta("token")
SHORT = [*[TOKEN] * 14, FINISH, DONE]  # 16 events


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts what is asked of the loop while one of our functions is running."""

    asked: Counter[str]

    def __init__(self) -> None:
        self.asked = Counter()
        super().__init__(selectors.EpollSelector())

    def _note(self, what: str) -> None:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        if frame is not None:
            self.asked[what] += 1

    def create_future(self) -> asyncio.Future[Any]:
        self._note("futures")
        return super().create_future()

    def create_task(self, *arguments: Any, **named: Any) -> asyncio.Task[Any]:
        self._note("tasks")
        return super().create_task(*arguments, **named)

    def call_soon(self, *arguments: Any, **named: Any) -> asyncio.Handle:
        self._note("callbacks")
        return super().call_soon(*arguments, **named)

    def call_at(self, *arguments: Any, **named: Any) -> asyncio.TimerHandle:  # call_later comes here, too
        self._note("timers")
        return super().call_at(*arguments, **named)


class Tape:
    """Which of our functions were called while it ran."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self.calls.clear()
        sys.setprofile(self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _heard(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and code.co_name not in INLINED:
            self.calls[f"{code.co_filename.removeprefix(PACKAGE)}:{code.co_qualname}"] += 1


# ------------------------------------------------------------------------------------------------ the other process


class Course:
    """A gateway, one connection to it, and one from it."""

    def __init__(self, loop: CountingLoop) -> None:
        self.loop = loop
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.answered: asyncio.Queue[None] = asyncio.Queue()
        self.client: Client

    async def script(self, peer: Peer) -> None:
        while True:
            self.peers.put_nowait(peer)
            await self.answered.get()
            await peer.request()

    async def begin(self) -> Peer:
        """A request, as far as the first event of its answer."""
        self.client.post("/v1/chat/completions", {"model": "m", "messages": [], "stream": True})
        peer = await self.peers.get()
        peer.send(HEAD, chunk(TOKEN))
        await self.client.reader.readuntil(b"\r\n\r\n")
        await self.piece()
        return peer

    async def piece(self) -> bytes:
        """One chunk. Without a deadline: its timer would be one of the things that are counted."""
        size = int(await self.client.reader.readuntil(b"\r\n"), 16)
        return (await self.client.reader.readexactly(size + 2))[:size]

    async def event(self, peer: Peer) -> None:
        peer.send(chunk(TOKEN))
        await self.piece()

    async def end(self, peer: Peer) -> None:
        peer.send(chunk(FINISH + DONE), b"0\r\n\r\n")
        self.answered.put_nowait(None)
        while await self.piece():
            pass

    async def paced(self) -> None:
        """A request of 16 events, each a read of its own but the last two."""
        peer = await self.begin()
        for _ in SHORT[1:-2]:
            await self.event(peer)
        await self.end(peer)

    async def at_once(self) -> None:
        """A request of 16 events in one read."""
        self.client.post("/v1/chat/completions", {"model": "m", "messages": [], "stream": True})
        peer = await self.peers.get()
        peer.send(HEAD, *[chunk(event) for event in SHORT], b"0\r\n\r\n")
        self.answered.put_nowait(None)
        await self.client.reader.readuntil(b"\r\n\r\n")
        while await self.piece():
            pass


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


async def measured(loop: CountingLoop) -> dict[str, Any]:
    async with contextlib.AsyncExitStack() as stack:
        stage, course = Stage(stack), Course(loop)
        server = await stage.gateway(await stage.upstream(course.script), edge={"keep_alive": 600})
        course.client = await stage.client(server)
        await course.paced()
        gc.disable()
        return {
            "event": await of_events(course),
            "request": await of_requests(course, course.paced),
            "request_in_one_read": await of_requests(course, course.at_once),
        }


async def of_events(course: Course) -> dict[str, Any]:
    peer = await course.begin()
    for _ in range(WARM):
        await course.event(peer)
    tapes, asked = [], []
    for _ in range(EVENTS):
        course.loop.asked.clear()
        with Tape() as tape:
            await course.event(peer)
        tapes.append(tape.calls)
        asked.append(course.loop.asked.copy())
    blocks = await kept(course.event, peer, times=LASTING)
    await course.end(peer)
    return summary(tapes, asked, blocks)


async def of_requests(course: Course, request: Callable[[], Any]) -> dict[str, Any]:
    for _ in range(WARM):
        await request()
    tapes, asked = [], []
    for _ in range(REQUESTS):
        course.loop.asked.clear()
        with Tape() as tape:
            await request()
        tapes.append(tape.calls)
        asked.append(course.loop.asked.copy())
    blocks = await kept(request, times=LASTING)
    gc.collect()
    for _ in range(REQUESTS):
        await request()
    return summary(tapes, asked, blocks) | {"objects_in_cycles": gc.collect() / REQUESTS}


async def kept(work: Callable[..., Any], *arguments: Any, times: int) -> int:
    """Memory blocks that each round left behind, with the garbage collector off.

    Two halves are compared at their lowest points: clocks keep the shells of what they forgot, and sweep them at times.
    """
    levels = array("q", bytes(8 * times))  # numbers that take no blocks of their own
    for number in range(times):
        await work(*arguments)
        levels[number] = sys.getallocatedblocks()
    half = times // 2
    return round((min(levels[half:]) - min(levels[:half])) / half)


def summary(tapes: list[Counter[str]], asked: list[Counter[str]], blocks: int) -> dict[str, Any]:
    """The usual round: a clock that happened to ring in one of them is not its cost."""
    calls = mode(sum(tape.values()) for tape in tapes)
    usual = next(tape for tape in tapes if sum(tape.values()) == calls)
    names = ("tasks", "futures", "timers", "callbacks")
    return {
        "calls": calls,
        **{name: mode(each[name] for each in asked) for name in names},
        "blocks_kept": blocks,
        "usual_rounds": sum(tape == usual for tape in tapes),
        "functions": dict(usual.most_common()),
    }


def main() -> None:
    import structlog

    from streamgate.observe import logs

    with Path(os.devnull).open("wb") as nowhere:
        output = logs.configure(descriptor=nowhere.fileno())
        # The writer's thread would allocate and free whenever it likes: its queue ends here.
        lines: list[bytes] = []
        structlog.configure(logger_factory=lambda *_: logs.Writer(Swallowed(lines)))  # type: ignore[arg-type]
        loop = CountingLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            result = runner.run(measured(loop))
        output.close()
    assert lines, "streams are logged"
    print(json.dumps(result))  # noqa: T201 - for the process that started this one


class Swallowed:
    """Takes lines; keeps whether there was one."""

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines

    def put(self, line: bytes) -> None:
        self.lines[:] = [line]


# ------------------------------------------------------------------------------------------------ the tests


@pytest.fixture(scope="module")
def counts() -> dict[str, Any]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")} | {
        "PYTHONPATH": path,
        "PYTHONHASHSEED": "0",
    }
    done = subprocess.run(
        [sys.executable, __file__], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


NUMBERS = [(what, name) for what, numbers in LIMITS.items() for name in numbers]


@pytest.mark.parametrize(("what", "name"), NUMBERS)
def test_it_costs_no_more_than_it_did(counts: dict[str, Any], what: str, name: str) -> None:
    """Whoever makes an event or a request dearer says so in call_counts.json, and why in the commit."""
    number, limit = counts[what][name], LIMITS[what][name]
    functions = "\n".join(f"{count:4} {function}" for function, count in counts[what]["functions"].items())
    assert number <= limit, f"{what}: {number} {name}, and call_counts.json says {limit}\n{functions}"
    if number < limit:  # pytest shows the warning, and does not make it an error
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(f"{what}: {name} is {number} now; lower it in call_counts.json", stacklevel=1)


@pytest.mark.parametrize("name", ["tasks", "futures", "timers", "callbacks"])
def test_an_event_asks_nothing_of_the_loop(counts: dict[str, Any], name: str) -> None:
    """No task, future, timer or callback per event: one call chain from socket to socket."""
    assert counts["event"][name] == 0


def test_an_event_leaves_nothing_behind(counts: dict[str, Any]) -> None:
    """A stream of a million events is as large as one of ten."""
    assert counts["event"]["blocks_kept"] == 0


@pytest.mark.parametrize("what", ["request", "request_in_one_read"])
def test_a_request_leaves_no_cycles(counts: dict[str, Any], what: str) -> None:
    """Everything of it dies with its last reference: the garbage collector has nothing to find."""
    assert counts[what]["objects_in_cycles"] == 0


def test_the_count_is_the_same_every_time(counts: dict[str, Any]) -> None:
    """Or it would be no measure: nearly every round calls the same functions as often."""
    assert counts["event"]["usual_rounds"] >= EVENTS - 3
    assert counts["request"]["usual_rounds"] >= REQUESTS - 3
    assert counts["request_in_one_read"]["usual_rounds"] >= REQUESTS - 3


if __name__ == "__main__":
    main()
