"""A protocol of one's own on top of events: typed, numbered messages that are kept until the reader has them for sure.

    pip install fastapi httpx
    python examples/custom_protocol.py
    curl --json '{"words": 5}' http://127.0.0.1:8000/answers            # the id of an answer that is now being made
    curl -N --json '{"ack": 0}' http://127.0.0.1:8000/answers/ID        # its messages after number 0
    curl --json '{"ack": 4}' http://127.0.0.1:8000/answers/ID/ack       # those up to number 4 may be forgotten

Messages are JSON: `start`, any number of `delta`, then `end` or `error`; each has a `seq`: 1, 2, 3 and so on. A reader
that was cut off asks again, with the last number it has: see `read`. At most WINDOW messages wait for acknowledgement,
then nothing more is made: memory is bounded, and the reader sets the pace.
"""

from __future__ import annotations

import contextlib
import json
import sys
import uuid
from collections import deque
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
import httpx
import uvicorn
from anyio.abc import TaskGroup
from fastapi import Body, FastAPI, HTTPException, Request

from streamgate.sse import EventSourceResponse, JSONServerSentEvent, aiter_events

WINDOW = 16  # messages that wait for their acknowledgement
LONGEST = 1000  # words
LIFETIME = 300.0  # seconds until an answer is forgotten, read or not
FINAL = {"end", "error"}

Message = dict[str, Any]
Number = Annotated[int, Body(embed=True, ge=0)]


class Answer:
    """What was said and is not acknowledged. Who waits, waits for `changed`, which is another one after each change."""

    def __init__(self) -> None:
        self.said = 0
        self.kept: deque[Message] = deque()
        self.over = False
        self.changed = anyio.Event()

    def change(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    async def say(self, kind: str, **fields: object) -> None:
        while len(self.kept) >= WINDOW:
            await self.changed.wait()
        self.said += 1
        self.kept.append({"seq": self.said, "type": kind, **fields})
        self.change()

    def acknowledge(self, number: int) -> None:
        acknowledged = self.said - len(self.kept)
        if not acknowledged <= number <= self.said:
            raise HTTPException(409, f"from {acknowledged} to {self.said}")
        for _ in range(number - acknowledged):
            self.kept.popleft()
        self.change()

    async def after(self, number: int) -> AsyncIterator[JSONServerSentEvent]:
        while True:
            changed, over = self.changed, self.over  # before the look: what comes while an event is sent counts as well
            for message in [kept for kept in self.kept if kept["seq"] > number]:
                number = message["seq"]
                yield JSONServerSentEvent(message, event=message["type"], id=number)
                over = over or message["type"] in FINAL
            if over:
                return
            await changed.wait()


answers: dict[str, Answer] = {}


async def make(name: str, words: int) -> None:
    """Says an answer, and forgets it when all of it is acknowledged, or too old."""
    answer = answers[name]
    with anyio.move_on_after(LIFETIME):
        await answer.say("start", words=words)
        for number in range(min(words, LONGEST)):
            await answer.say("delta", text=f"word {number}")
        await (answer.say("end") if words <= LONGEST else answer.say("error", code="too_long"))
        while answer.kept:
            await answer.changed.wait()
    del answers[name]
    answer.over = True
    answer.change()


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, TaskGroup]]:
    async with anyio.create_task_group() as tasks:
        yield {"tasks": tasks}
        tasks.cancel_scope.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/answers", status_code=201)
async def ask(request: Request, words: Number) -> dict[str, str]:
    name = uuid.uuid4().hex
    answers[name] = Answer()
    request.state.tasks.start_soon(make, name, words)
    return {"id": name}


@app.post("/answers/{name}/ack", status_code=204)
async def acknowledge(name: str, ack: Number) -> None:
    if name not in answers:
        raise HTTPException(404)
    answers[name].acknowledge(ack)


@app.post("/answers/{name}")
async def stream(name: str, ack: Number) -> EventSourceResponse:
    await acknowledge(name, ack)
    return EventSourceResponse(answers[name].after(ack))


async def read(client: httpx.AsyncClient, name: str, seen: int = 0) -> AsyncIterator[Message]:
    """The messages after number `seen`; goes on where it was when the connection is lost."""
    final = False
    while not final:
        try:
            async with client.stream("POST", f"/answers/{name}", json={"ack": seen}) as response:
                response.raise_for_status()
                async for event in aiter_events(response.aiter_bytes()):
                    message = json.loads(str(event.data))
                    if message["seq"] != seen + 1:
                        raise ValueError(f"message {message['seq']} after message {seen}")
                    yield message
                    seen, final = message["seq"], message["type"] in FINAL
                    if final or seen % (WINDOW // 2) == 0:
                        await client.post(f"/answers/{name}/ack", json={"ack": seen})
        except httpx.TransportError:
            await anyio.sleep(0 if final else 1)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
