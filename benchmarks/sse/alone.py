"""The response class alone: a `send` that does nothing, the thread's CPU time, the classes in turns.

Everything runs on one uvloop in this thread, so that what is counted is the response, its child tasks and its items.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import uvloop
from responses import BASE, KINDS, OURS, bare, form_for, items
from starlette.types import Message, Scope
from table import Row

WARM = 100  # events sent before any clock is looked at, and by which the number of events is chosen
MOST = 200_000  # events of one measurement


class Observing:
    """Asks to be told of a stream, and so has it timed; what it is told is of no interest here."""

    def opened(self, account: object) -> None: ...
    def first_event(self, account: object) -> None: ...
    def closed(self, account: object) -> None: ...


@dataclass(frozen=True)
class Case:
    """One row: what is sent, and how."""

    key: str
    label: str
    form: str = "bytes"
    options: Mapping[str, Any] = field(default_factory=dict)
    kinds: tuple[str, ...] = KINDS
    nearest: bool = False
    awaits: bool = False  # the source gives the loop a turn before each item
    short: bool = False  # a response for each event


CASES = (
    Case("bytes", "event: bytes"),
    Case("dict", "event: dict of data", "dict"),
    Case("fields", "event: dict of event, id, data", "fields"),
    Case("event", "event: ServerSentEvent", "event"),
    Case("str", "event: str", "str"),
    Case("timeout", "event: bytes, send_timeout=30", options={"send_timeout": 30}, kinds=(BASE, OURS)),
    Case("awaits", "event: bytes, source awaits each time", nearest=True, awaits=True),
    Case("observed", "event: bytes, observed", options={"observer": Observing()}, kinds=(OURS,)),
    Case("short", "short response: construct, 1 event, end", nearest=True, short=True),
)


def measured(rounds: int, seconds: float) -> list[Row]:
    """A row for each case; `seconds` of CPU go into each of its numbers, one per response and round."""
    return uvloop.run(all_rounds(rounds, seconds))


async def all_rounds(rounds: int, seconds: float) -> list[Row]:
    rows = {case.key: Row(f"alone.{case.key}", case.label, "us") for case in CASES}
    subjects = [subject for case in CASES for subject in await subjects_of(case, seconds)]
    for _ in range(rounds):
        for subject in subjects:  # A B C D A B C D ...: what the machine does meanwhile hits all of them
            rows[subject.case.key].add(subject.kind, await subject.cost())
    return list(rows.values())


async def subjects_of(case: Case, seconds: float) -> list[Subject]:
    found = []
    for kind in case.kinds:
        form = form_for(kind, case.form, nearest=case.nearest)
        if form is not None:
            found.append(subject := Subject(case, kind, form))
            await subject.warm(seconds)
    return found


class Subject:
    """One response in one case."""

    def __init__(self, case: Case, kind: str, form: str) -> None:
        self.case = case
        self.kind = kind
        self.form = form
        self.count = WARM  # events of one measurement
        self.application = bare(kind, self.source, case.options)

    async def source(self) -> AsyncIterator[Any]:
        count = 1 if self.case.short else self.count
        if self.case.awaits:
            for item in items(self.kind, self.form, count):
                await asyncio.sleep(0)
                yield item
        else:
            for item in items(self.kind, self.form, count):
                yield item

    async def warm(self, seconds: float) -> None:
        """See that everything arrives, fill the caches, then choose how many events take about `seconds`."""
        sent: list[bytes] = []

        async def keep(message: Message) -> None:
            sent.append(message.get("body", b""))

        await self.application(scope(), Client().receive, keep)
        expected = 1 if self.case.short else self.count
        if sum(map(bool, sent)) != expected:
            raise SystemExit(f"{self.kind}, {self.case.label}: {sum(map(bool, sent))} of {expected} events were sent")
        for share in (0.05, 0.2, 1.0):  # the first few events tell more of the response's beginning
            least = min([await self.cost() for _ in range(3)])  # the rest is what the machine did meanwhile
            self.count = min(max(WARM, round(share * seconds * 1e6 / least)), MOST)

    async def cost(self) -> float:
        """CPU per event, in us."""
        gc.collect()
        began = time.thread_time_ns()
        for _ in range(self.count if self.case.short else 1):
            await self.application(scope(), Client().receive, nothing)
        return (time.thread_time_ns() - began) / self.count / 1000


async def nothing(message: Message) -> None:
    """The `send` of a server that costs nothing."""


class Client:
    """Has sent its request, and stays."""

    def __init__(self) -> None:
        self.asked = False

    async def receive(self) -> Message:
        if self.asked:
            await asyncio.get_running_loop().create_future()
        self.asked = True
        return {"type": "http.request", "body": b"", "more_body": False}


def scope() -> Scope:
    """As uvicorn gives it for a GET."""
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "", "state": {},
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip
