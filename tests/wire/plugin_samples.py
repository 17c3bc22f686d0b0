"""Plugins for tests of whole gateways, to be used as `plugin_samples:Name`. Each does one thing.

A test finds the instance in `MADE`, by its name in the configuration, and lets it go on by `go`.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from anyio import to_thread
from anyio.lowlevel import checkpoint
from pydantic import BaseModel

from streamgate.hooks import (
    Abort,
    Answer,
    Ended,
    Events,
    Facade,
    Identity,
    Kept,
    Plugin,
    Refuse,
    Request,
    RequestHead,
    ResponseHead,
    ServerSentEvent,
    Stream,
    Text,
    UpstreamRequest,
)

MADE: dict[str, Any] = {}
How = Literal["well", "raise", "garbage", "wait", "leak", "block", "forever"]


class Sample(Plugin):
    def __init__(self, settings: Any, gateway: Facade) -> None:
        super().__init__(settings, gateway)
        self.seen: list[Any] = []  # what its hooks were given, as far as it matters
        self.go = asyncio.Semaphore(0)
        MADE[gateway.name] = self


class Ends(Sample):
    """Is told of every end."""

    def __init__(self, settings: Any, gateway: Facade) -> None:
        super().__init__(settings, gateway)
        self.ends: asyncio.Queue[Ended] = asyncio.Queue()

    def on_end(self, record: Ended) -> None:
        self.ends.put_nowait(record)

    async def next(self) -> Ended:
        return await asyncio.wait_for(self.ends.get(), 5)


class File(BaseModel):
    file: str


class EndsLate(Plugin):
    """Takes 200 ms to write a line about an end."""

    Settings = File
    settings: File

    async def on_end(self, record: Ended) -> None:
        await to_thread.run_sync(self._write, record.outcome or record.reason)

    def _write(self, word: str) -> None:
        threading.Event().wait(0.2)
        with Path(self.settings.file).open("a") as file:
            file.write(f"{word}\n")


class Door(Sample):
    """Knows people by `x-who`, and which models each may use by `x-models`."""

    def authenticate(self, head: RequestHead) -> Identity | None:
        self.seen.append((head.method, head.path, head.client))
        who = head.headers.get("X-Who", "")
        if who == "stranger":
            raise Refuse(401, "unknown_badge", "This badge is not known here.")
        if who == "banned":
            raise Refuse(403, "banned", "This badge does not open this door.")
        models = tuple(head.headers.get("x-models", "").split())
        return Identity(tenant=who, name=f"{who}-1", models=models) if who else None


class Rewrites(Sample):
    """Another model by `x-model`, and a word of its own in the body."""

    async def on_request(self, request: Request, stream: Stream) -> Request | None:
        self.seen.append((request.model, request.stream, request.path, stream.id))
        model = request.headers.get("x-model")
        if model is None:
            return None
        changed = {**(request.json or {}), "model": model, "user": "rewritten"}
        return request.replaced(json=changed, headers={"openai-beta": "by-plugin", "user-agent": None})


def told(*words: str, finish: bool = True) -> list[ServerSentEvent]:
    """A chat of its own."""
    deltas: list[tuple[dict[str, str], str | None]] = [({"content": word}, None) for word in words]
    if finish:
        deltas.append(({}, "stop"))
    events = [
        {"id": "own", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": each, "finish_reason": why}]}
        for each, why in deltas
    ]
    return [ServerSentEvent(json.dumps(event)) for event in events] + [ServerSentEvent("[DONE]")] * finish


class Answers(Sample):
    """Answers by itself, as `x-answer` asks."""

    def __init__(self, settings: Any, gateway: Facade) -> None:
        super().__init__(settings, gateway)
        self.closed = asyncio.Event()  # its iterable was
        self.wide = "w" * 4096

    def on_request(self, request: Request, stream: Stream) -> Answer | None:
        match request.headers.get("x-answer"):
            case "refuse":
                raise Refuse(429, "too_eager", "Not so fast.", 7, headers={"x-eager": "very"})
            case "json":
                message = {"role": "assistant", "content": "a secret of my own"}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                return Answer.of_json({"id": "own", "object": "chat.completion", "choices": [choice]})
            case "error":
                return Answer.of_json({"error": {"message": "I am a teapot."}}, status=418, headers={"x-kettle": "on"})
            case "list":
                return Answer(events=told("a sec", "ret", " of my own"), headers={"x-own": "yes"})
            case "long":
                return Answer(events=told(*[self.wide] * 500))
            case "paced":
                return Answer(events=self.paced())
            case "unfinished":
                return Answer(events=told("half", finish=False))
            case "broken":
                return Answer(events=self.broken())
            case "flood":
                return Answer(events=self.flood())
        return None

    async def paced(self) -> AsyncIterator[ServerSentEvent]:
        try:
            for event in told("a", "b"):
                yield event
                await self.go.acquire()
        finally:
            self.closed.set()

    async def broken(self) -> AsyncIterator[ServerSentEvent]:
        yield told("a")[0]
        raise RuntimeError("what users wrote")

    def flood(self) -> Iterator[ServerSentEvent]:
        try:
            while True:
                self.seen.append(1)
                yield told(self.wide)[0]
        finally:
            self.closed.set()


class Order(BaseModel):
    names: tuple[str, ...]


class Chooses(Sample):
    Settings = Order

    def choose_upstream(self, names: Sequence[str], stream: Stream) -> Sequence[str]:
        self.seen.append(list(names))
        return [name for name in self.settings.names if name in names]


class Signs(Sample):
    """Each try has its number, in a header and in the body."""

    async def on_upstream_request(self, call: UpstreamRequest, stream: Stream) -> UpstreamRequest:
        self.seen.append((call.upstream, stream.attempts))
        headers = {"x-try": f"{stream.attempts} {call.upstream}", "user-agent": None}
        return call.replaced(headers=headers, json=call.json | {"try": stream.attempts})


class Dresses(Sample):
    def on_open(self, head: ResponseHead, stream: Stream) -> ResponseHead:
        self.seen.append((head.status, dict(head.headers)))
        return head.replaced(status=203, headers={"x-dressed": stream.upstream, "openai-version": None})


class Edits(Sample):
    """Does what a word in the event says."""

    def on_event(self, event: ServerSentEvent, stream: Stream) -> Events:
        self.seen.append(event.data)
        match next((word for word in ("DROP", "CHANGE", "TWICE", "ABORT") if word in str(event.data)), ""):
            case "DROP":
                return None
            case "CHANGE":
                return ServerSentEvent(str(event.data).replace("CHANGE", "changed"))
            case "TWICE":
                return [event, ServerSentEvent("more", event="note")]
            case "ABORT":
                raise Abort("That is enough.", code="enough")
        return event


class EditsWaiting(Edits):
    waits = True

    async def on_event(self, event: ServerSentEvent, stream: Stream) -> Events:  # type: ignore[override]
        await checkpoint()
        return super().on_event(event, stream)


class Hides(Sample):
    """`secret` becomes `[hidden]`, however it is cut."""

    word = "secret"
    window = len(word) - 1

    def on_text(self, text: Text, stream: Stream) -> str | Kept:
        self.seen.append(text)
        if "ABORT" in text.pending:
            raise Abort("That is enough.", code="enough")
        shown = text.pending.replace(self.word, "[hidden]")
        if text.final:
            return shown
        keep = next(size for size in range(self.window, -1, -1) if text.pending.endswith(self.word[:size]))
        return Kept(shown[: len(shown) - keep], keep)


class HidesWaiting(Hides):
    waits = True

    async def on_text(self, text: Text, stream: Stream) -> str | Kept:  # type: ignore[override]
        await checkpoint()
        return super().on_text(text, stream)


class Holds(Sample):
    """Waits at each event until it is let go."""

    waits = True

    async def on_event(self, event: ServerSentEvent, stream: Stream) -> Events:
        self.seen.append(event.data)
        await self.go.acquire()
        return event


class Way(BaseModel):
    how: How = "raise"


class Breaks(Sample):
    """Its hook does something wrong, as long as `how` says so."""

    Settings = Way

    def __init__(self, settings: Way, gateway: Facade) -> None:
        super().__init__(settings, gateway)
        self.how: How = settings.how
        self.calls = 0
        self.leaked: list[asyncio.Task[Any]] = []

    def wrong(self, well: Any) -> Any:
        self.calls += 1
        match self.how:
            case "raise":
                raise RuntimeError("what users wrote")
            case "garbage":
                return object()
            case "block":
                threading.Event().wait(0.2)
            case "forever":
                while True:
                    time.perf_counter()
            case "leak":
                self.leaked.append(asyncio.get_running_loop().create_task(self.go.acquire()))
        return well

    async def wrong_later(self, well: Any) -> Any:
        if self.how == "wait":
            self.calls += 1
            await asyncio.get_running_loop().create_future()
        await checkpoint()
        return self.wrong(well)


class BreaksDoor(Breaks):
    async def authenticate(self, head: RequestHead) -> Identity | None:
        return await self.wrong_later(None)


class BreaksRequest(Breaks):
    async def on_request(self, request: Request, stream: Stream) -> Request | None:
        return await self.wrong_later(None)


class BreaksChoice(Breaks):
    async def choose_upstream(self, names: Sequence[str], stream: Stream) -> Sequence[str] | None:
        return await self.wrong_later(None)


class BreaksCall(Breaks):
    async def on_upstream_request(self, call: UpstreamRequest, stream: Stream) -> UpstreamRequest | None:
        return await self.wrong_later(None)


class BreaksOpen(Breaks):
    async def on_open(self, head: ResponseHead, stream: Stream) -> ResponseHead | None:
        return await self.wrong_later(None)


class BreaksEvent(Breaks):
    def on_event(self, event: ServerSentEvent, stream: Stream) -> Events:
        return self.wrong(event)


class BreaksEventWaiting(Breaks):
    waits = True

    async def on_event(self, event: ServerSentEvent, stream: Stream) -> Events:
        return await self.wrong_later(event)


class BreaksText(Breaks):
    def on_text(self, text: Text, stream: Stream) -> str:
        return self.wrong(text.pending)


class BreaksTextWaiting(Breaks):
    waits = True

    async def on_text(self, text: Text, stream: Stream) -> str:
        return await self.wrong_later(text.pending)


class BreaksEnd(Breaks):
    async def on_end(self, record: Ended) -> None:
        answer: None = await self.wrong_later(None)
        return answer


class Threaded(Breaks):
    """Blocks, but says so."""

    threaded = True

    def on_request(self, request: Request, stream: Stream) -> None:
        self.seen.append(threading.get_ident())
        return self.wrong(None)
