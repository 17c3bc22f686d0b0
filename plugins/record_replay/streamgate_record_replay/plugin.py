"""Writes streams as cassettes and serves them back: for tests and demos that need no upstream, or no second one.

A stream is kept as this plugin sees it, after the plugins before it, and when it was completed. It is no cache: every
tenant is served the same cassettes.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from streamgate.hooks import Answer, Ended, Facade, Plugin, Refuse, Request, ResponseHead, ServerSentEvent, Stream
from streamgate_record_replay.cassette import BadCassette, Cassette, Recorded, asked_of, key_of
from streamgate_record_replay.pace import played
from streamgate_record_replay.settings import RecordReplaySettings
from streamgate_record_replay.shelf import Shelf


class Recording:
    """A stream while it runs."""

    __slots__ = ("cassette", "left", "since")

    def __init__(self, cassette: Cassette, since: float, most: int) -> None:
        self.cassette = cassette
        self.since = since
        self.left = most  # characters; less than 0: it is too long, and not kept

    def add(self, event: ServerSentEvent, now: float) -> None:
        recorded = Recorded.of(now - self.since, event)
        self.left -= len(recorded.data or "")
        if self.left < 0:
            self.cassette.events.clear()
        else:
            self.cassette.events.append(recorded)


class RecordReplay(Plugin):
    """Streams as cassettes with their timing: recorded, and replayed without an upstream."""

    Settings = RecordReplaySettings
    settings: RecordReplaySettings

    def __init__(self, settings: RecordReplaySettings, gateway: Facade) -> None:
        super().__init__(settings, gateway)
        self._shelf = Shelf(settings.directory)
        metrics = gateway.metrics
        self._recorded = metrics.counter("recorded_total", "Streams recorded.")
        self._replayed = metrics.counter("replayed_total", "Streams replayed.")
        self._missing = metrics.counter("missing_total", "Requests to be replayed that no cassette is for.")
        self._discarded = metrics.counter("discarded_total", "Streams not kept: not completed, too long, no events.")
        self._bad = metrics.counter("bad_cassettes_total", "Cassettes that could not be read.")

    async def startup(self) -> None:
        if self.settings.mode != "replay":
            await asyncio.to_thread(self._shelf.make)

    async def on_request(self, request: Request, stream: Stream) -> Answer | None:
        if request.json is None or not request.stream:
            self._check_ours(request)
            return None
        cassette = await asyncio.to_thread(self._blank, request)
        found = None if self.settings.mode == "record" else await self._found(cassette.key)
        if found is not None:
            self._replayed.inc()
            return self._answer(found)
        if self.settings.mode == "replay":
            self._check_missing(cassette.key)
            return None
        stream.state = Recording(cassette, self.gateway.now(), self.settings.max_size)
        return None

    def on_open(self, head: ResponseHead, stream: Stream) -> None:
        recording: Recording | None = stream.state
        if recording is not None:
            kept = {name: head.headers[name] for name in self.settings.headers if name in head.headers}
            recording.cassette.status, recording.cassette.headers = head.status, kept

    def on_event(self, event: ServerSentEvent, stream: Stream) -> ServerSentEvent:
        recording: Recording | None = stream.state
        if recording is not None:
            recording.add(event, self.gateway.now())
        return event

    async def on_end(self, record: Ended) -> None:
        recording: Recording | None = record.stream.state
        if recording is None:
            return
        cassette = recording.cassette
        if record.outcome != "completed" or not cassette.events:
            self._discarded.inc()
            return
        cassette.at = datetime.fromtimestamp(record.at, UTC).isoformat(timespec="seconds")
        await asyncio.to_thread(self._shelf.put, cassette)
        self._recorded.inc()

    def _blank(self, request: Request) -> Cassette:
        asked = asked_of(request.method, request.path, request.json or {}, self.settings.ignore)
        return Cassette(key=key_of(asked), asked=asked)

    async def _found(self, key: str) -> Cassette | None:
        try:
            return await asyncio.to_thread(self._shelf.find, key)
        except (BadCassette, OSError) as why:
            self._bad.inc()
            said = str(why) if isinstance(why, BadCassette) else type(why).__name__
            self.gateway.log.warning("bad_cassette", key=key, why=said)
            if self.settings.mode == "replay":
                raise Refuse(500, "bad_cassette", f"The cassette {key} cannot be read: {said}.") from None
            return None

    def _answer(self, cassette: Cassette) -> Answer:
        speed = self.settings.speed
        if speed == 0:
            events = [recorded.played() for recorded in cassette.events]
            return Answer(status=cassette.status, headers=cassette.headers, events=events)
        return Answer(
            status=cassette.status, headers=cassette.headers, events=played(cassette, speed, self.gateway.now)
        )

    def _check_missing(self, key: str) -> None:
        self._missing.inc()
        if self.settings.missing == "refuse":
            raise Refuse(404, "no_cassette", f"No cassette is for this request: {key}.")

    def _check_ours(self, request: Request) -> None:
        """Only streams are recorded, so nothing else can be replayed."""
        if self.settings.mode == "replay" and request.method == "POST" and self.settings.missing == "refuse":
            self._missing.inc()
            raise Refuse(404, "not_a_stream", "Only requests for a stream are replayed.")
