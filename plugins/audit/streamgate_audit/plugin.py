"""Who asked what of which model, and what became of it: one JSON line for each request, refused ones included.

The content of requests and answers is kept only where the settings say so, cut or hashed. Nothing here waits: lines go
through a bounded queue to a thread, and what does not fit is counted, in the metrics and in the file.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from streamgate.hooks import Ended, Facade, Plugin, Stream, Text
from streamgate_audit.content import Hashed, Plain, Said, hashed_request, plain_request
from streamgate_audit.lines import facts_of
from streamgate_audit.settings import AuditSettings
from streamgate_audit.trail import Trail
from streamgate_audit.writer import Bounds, Writer


class Known(NamedTuple):
    """A line that needs only to be written."""

    known: dict[str, Any]
    size: int = 0

    def facts(self) -> dict[str, Any]:
        return self.known


class ToHash(NamedTuple):
    """A line whose request is hashed in the thread: a large one takes longer than streams should wait."""

    known: dict[str, Any]
    body: bytes
    salt: bytes

    @property
    def size(self) -> int:
        return len(self.body)

    def facts(self) -> dict[str, Any]:
        return self.known | {"request": hashed_request(self.body, self.salt)}


class Audit(Plugin):
    """One JSON line for each request, in a file with rotation: who, what model, outcome, usage, times."""

    Settings = AuditSettings

    def __new__(cls, settings: AuditSettings, *_: Facade) -> Audit:  # noqa: PYI034 - a subclass, on purpose
        """Only who keeps content pays for seeing it: streams without text hooks pass untouched."""
        return object.__new__(cls if settings.content == "none" else AuditWithContent)

    def __init__(self, settings: AuditSettings, gateway: Facade) -> None:
        super().__init__(settings, gateway)
        metrics = gateway.metrics
        self._lines = metrics.counter("lines_total", "Lines handed to the writer.")
        self._dropped = metrics.counter("dropped_total", "Lines dropped: the queue was full.")
        self._errors = metrics.counter("write_errors_total", "Writes that failed; their lines are tried again.")
        self._full = self._failing = False  # as far as the log has been told
        self._writer = Writer(
            Trail(settings.file, max_size=settings.max_size, max_age=settings.max_age, keep=settings.keep),
            Bounds(settings.queue, settings.queue_bytes),
            settings.fsync,
            now=gateway.now,
            wall=gateway.wall,
            told=self._told,
        )

    async def startup(self) -> None:
        self._writer.start()

    async def shutdown(self) -> None:
        lost = await self._writer.close()
        if lost:
            self.gateway.log.error("audit_lines_lost", lines=lost)

    def on_end(self, record: Ended) -> None:
        self._keep(Known(facts_of(record)))

    def _keep(self, entry: Known | ToHash) -> None:
        if self._writer.put(entry):
            self._lines.inc()
            self._full = False
            return
        self._dropped.inc()
        if not self._full:
            self._full = True
            self.gateway.log.error("audit_queue_full")

    def _told(self, why: str) -> None:
        """The writer's trouble; "" when it is over."""
        if why:
            self._errors.inc()
        if why and not self._failing:
            self.gateway.log.error("audit_write_failed", why=why)
        self._failing = bool(why)


class AuditWithContent(Audit):
    """The same with what was said."""

    def __init__(self, settings: AuditSettings, gateway: Facade) -> None:
        super().__init__(settings, gateway)
        self._limit = settings.content_limit
        self._salt = b"" if settings.salt is None else settings.salt.get_secret_value().encode()
        self._hashes = settings.content == "hash"
        self._piece = partial(Hashed, self._salt) if self._hashes else partial(Plain, self._limit)

    def on_text(self, text: Text, stream: Stream) -> str:
        if stream.state is None:
            stream.state = Said(self._piece)
        stream.state.add(text)
        return text.pending

    def on_end(self, record: Ended) -> None:
        facts = facts_of(record)
        said: Said | None = record.stream.state
        if said is not None:
            facts["answer"] = said.facts()
        body = b"" if record.stream.request is None else record.stream.request.body
        if not body:
            self._keep(Known(facts))
        elif self._hashes:
            self._keep(ToHash(facts, body, self._salt))
        else:
            request = plain_request(body, self._limit)
            self._keep(Known(facts | {"request": request}, self._limit))
