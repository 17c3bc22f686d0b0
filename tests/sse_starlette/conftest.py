"""The same scenes played with sse-starlette and with streamgate.sse, message by message.

A scene is `async def scene(peer)`: it makes a response out of `peer.library`, has `peer.call` run it, and `peer.story`
is then what happened, in order: what was sent, and what content and callbacks noted. `both(scene)` plays it with each
library, holds the two stories and the very messages against each other, and gives the story.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
import sse_starlette.sse as upstream
from sse_starlette import JSONServerSentEvent
from starlette.background import BackgroundTask

import streamgate.sse as streamgate_sse

PATIENCE = 5.0  # s that any scene may take
PING = re.compile(rb": ping - \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?\+00:00((?:\r\n|\r|\n){2})")
Story = list[Any]


@dataclass(frozen=True)
class Library:
    """What a scene needs of a library; the names are the same in both."""

    name: str
    EventSourceResponse: Any
    ServerSentEvent: Any
    JSONServerSentEvent: Any
    ensure_bytes: Any
    AppStatus: Any
    SendTimeoutError: Any

    @property
    def ours(self) -> bool:
        return self.name == "streamgate.sse"


NAMES = ("EventSourceResponse", "ServerSentEvent", "ensure_bytes", "AppStatus", "SendTimeoutError")
OURS = Library(
    "streamgate.sse",
    JSONServerSentEvent=streamgate_sse.JSONServerSentEvent,
    **{name: getattr(streamgate_sse, name) for name in NAMES},
)
THEIRS = Library(
    "sse_starlette", JSONServerSentEvent=JSONServerSentEvent, **{name: getattr(upstream, name) for name in NAMES}
)


class Peer:
    """The server's side of one exchange, scripted."""

    def __init__(self, library: Library, **scope: Any) -> None:
        self.library = library
        self.scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""} | scope
        self.story: Story = []
        self.messages: list[dict[str, Any]] = []
        self.cut = anyio.CancelScope()  # the request's own task, cancelled from outside by `peer.cut.cancel()`
        self._steps: list[tuple[Callable[[Any], bool], Callable[[], Any]]] = []
        self._news = anyio.Event()
        self._gone = anyio.Event()
        self._asked = False

    # ---- what a scene says
    def note(self, what: Any) -> None:
        self.story.append(what)
        self._news.set()
        self._news = anyio.Event()

    async def seen(self, what: Any, times: int = 1) -> None:
        """Wait until it is in the story."""
        while self.story.count(what) < times:
            await self._news.wait()

    def at(self, what: Any, step: Callable[[], Any]) -> None:
        """Do this inside the `send` that gives this entry of the story; awaited if it can be."""
        self._steps.append((lambda entry: entry == what, step))

    def leave(self) -> None:
        """The client disconnects."""
        self._gone.set()

    def background(self) -> BackgroundTask:
        """A background task that says when it runs."""

        async def run() -> None:
            self.note("background")

        return BackgroundTask(run)

    async def call(self, response: Any) -> None:
        """Run the response as a server would; how it came back is the last word of the story."""
        with self.cut:
            try:
                await response(self.scope, self.receive, self.send)
            except anyio.get_cancelled_exc_class():
                self.note("cancelled")
                raise
            except Exception as error:  # noqa: BLE001 - as a server does
                told = "" if isinstance(error, self.library.SendTimeoutError) else f": {error}"
                self.note(f"raised {type(error).__name__}{told}")
            else:
                self.note("returned")

    # ---- ASGI
    async def send(self, message: dict[str, Any]) -> None:
        message = dict(message)
        if type(message.get("body")) is bytes:
            message["body"] = PING.sub(rb": ping\1", message["body"])
        self.messages.append(message)
        entry = entry_of(message)
        self.note(entry)
        for wanted, step in self._steps:
            if wanted(entry):
                done = step()
                if done is not None:
                    await done

    async def receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}


def entry_of(message: dict[str, Any]) -> Any:
    """A message as a word of the story: "start", the bytes of a piece, "end"; other forms as they are."""
    kind = message["type"].removeprefix("websocket.")
    place = "websocket " if kind != message["type"] else ""
    keys = set(message)
    if kind == "http.response.start" and keys == {"type", "status", "headers"}:
        return f"{place}start"
    if kind == "http.response.body" and keys == {"type", "body", "more_body"}:
        if message["more_body"] is True:
            return message["body"]
        if message["body"] == b"" and message["more_body"] is False:
            return f"{place}end"
    return message


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        pytest.param(("trio", {}), id="trio"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Here trio too."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture(autouse=True)
def _switches() -> Iterator[None]:
    """What one test switched, the next does not find."""
    yield
    for library in (OURS, THEIRS):
        library.AppStatus.should_exit = False
        library.AppStatus.enable_automatic_graceful_drain = True


@pytest.fixture(params=[OURS, THEIRS], ids=lambda library: library.name)
def library(request: pytest.FixtureRequest) -> Library:
    """One test for each: what both must do where there is no scene to compare."""
    found: Library = request.param
    return found


@pytest.fixture
def ours() -> Library:
    return OURS


@pytest.fixture
def theirs() -> Library:
    return THEIRS


Scene = Callable[[Peer], Awaitable[None]]
Both = Callable[..., Awaitable[Story]]


def tasks_here() -> set[Any]:
    try:
        return asyncio.all_tasks()
    except RuntimeError:
        return set()  # trio, where none can be left behind


async def play(scene: Scene, library: Library, **scope: Any) -> Peer:
    before = tasks_here()
    peer = Peer(library, **scope)
    with anyio.fail_after(PATIENCE):
        await scene(peer)
    if library.ours:
        assert tasks_here() == before, "a task was left behind"
    return peer


@pytest.fixture
def both(anyio_backend_name: str, caplog: pytest.LogCaptureFixture) -> Both:
    """`await both(scene)`; `on_trio=False` where sse-starlette cannot do it on trio: ours is played there all the same.

    `told=` makes of a peer what is compared, where that is less than every message and every note.
    """

    async def compared(
        scene: Scene,
        *,
        on_trio: bool = True,
        told: Callable[[Peer], Any] = lambda peer: (peer.messages, peer.story, peer.scope),
        **scope: Any,
    ) -> Story:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            ours = await play(scene, OURS, **scope)
            logged = logged_of(caplog)
            if on_trio or anyio_backend_name != "trio":
                theirs = await play(scene, THEIRS, **scope)
                assert told(ours) == told(theirs)
                assert logged == logged_of(caplog)
        ours.story.extend(f"{level} logged" for level, _ in logged)
        return ours.story

    return compared


def logged_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any]]:
    """Levels and exceptions of what either library logged since the last time."""
    found = [
        (record.levelname, str(record.exc_info[1]) if record.exc_info else None)
        for record in caplog.records
        if record.name.startswith(("streamgate", "sse_starlette"))
    ]
    caplog.clear()
    return found
