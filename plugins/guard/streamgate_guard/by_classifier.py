"""Stops a stream when an HTTP classifier says so: before the text is passed on, or while it flows."""

from __future__ import annotations

import asyncio
from typing import Final

from streamgate.hooks import Abort, Ended, Facade, Kept, Plugin, Stream, Text
from streamgate_guard.background import Background
from streamgate_guard.classifier import Classifier, Verdict
from streamgate_guard.settings import ClassifierSettings
from streamgate_guard.windows import Windows

AHEAD: Final = 8  # questions of one stream under way while its text flows; then it waits for their verdicts

Key = tuple[int, str]


class Judged:
    """One text. While it flows: `kept` characters of it were held back, `unread` is not in a full window yet."""

    __slots__ = ("kept", "unread", "windows")

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.kept = 0
        self.unread = ""


class Case:
    """One stream."""

    __slots__ = ("running", "stopped", "texts")

    def __init__(self) -> None:
        self.texts: dict[Key, Judged] = {}
        self.running: set[asyncio.Task[None]] = set()
        self.stopped: Verdict | None = None


class ClassifierGuard(Plugin):
    """Stops a stream on the word of an HTTP classifier. See the README for the settings."""

    Settings = ClassifierSettings
    waits = True
    fail = "closed"  # what could not be looked at does not leave

    def __init__(self, settings: ClassifierSettings, gateway: Facade) -> None:
        super().__init__(settings, gateway)
        self._settings = settings
        self._step = settings.window - settings.overlap
        unsure = {Verdict.TIMEOUT: settings.on_timeout, Verdict.ERROR: settings.on_error}
        self._stopping = {Verdict.FLAGGED, *(verdict for verdict, word in unsure.items() if word == "stop")}
        self._classifier = Classifier(settings)
        self._background = Background()
        self._checks = gateway.metrics.counter("checks_total", "Windows that were asked about.", ["verdict"])
        self._seconds = gateway.metrics.histogram("check_seconds", "From the question to the verdict.")
        self._stopped = gateway.metrics.counter("stopped_total", "Streams that were stopped.", ["verdict"])
        self.window = self._step if settings.mode == "block" else 1

    async def startup(self) -> None:
        await self._background.start()

    async def shutdown(self) -> None:
        await self._background.close()
        await self._classifier.close()

    async def on_text(self, text: Text, stream: Stream) -> str | Kept:
        if text.kind not in self._settings.kinds:
            return text.pending
        case = self._case(stream)
        judged = case.texts.get((text.choice, text.field))
        if judged is None:
            windows = Windows(self._step, self._settings.overlap)
            judged = case.texts[text.choice, text.field] = Judged(windows)
        keep = await (self._blocked if self.window > 1 else self._watched)(case, judged, text)
        if case.stopped is not None:
            self._stopped.inc(verdict=case.stopped)
            self.gateway.log.info("guard_stopped", verdict=case.stopped, request_id=stream.id)
            raise Abort(self._settings.message, code="guard")
        return Kept(text.pending[: len(text.pending) - keep], keep) if keep else text.pending

    async def on_end(self, record: Ended) -> None:
        case: Case | None = record.stream.state
        for task in list(case.running) if case is not None else ():
            task.cancel()

    async def _blocked(self, case: Case, judged: Judged, text: Text) -> int:
        """Pass on what the classifier passed; the rest is kept for the next window."""
        windows, keep = judged.windows.cut(text.pending, final=text.final)
        self._ask(case, windows)
        await _answered(case, 0)
        return keep

    async def _watched(self, case: Case, judged: Judged, text: Text) -> int:
        """Pass it on and ask. One character is kept, so that there is a last call, which waits for all verdicts."""
        unread = judged.unread + text.pending[judged.kept :]
        windows, left = judged.windows.cut(unread, final=text.final)
        judged.unread = unread[len(unread) - left :]
        judged.kept = 0 if text.final else 1
        self._ask(case, windows)
        await _answered(case, 0 if text.final else AHEAD)
        return judged.kept

    def _ask(self, case: Case, windows: list[str]) -> None:
        for window in windows:
            task = self._background.begin(self._checked(case, window))
            case.running.add(task)
            task.add_done_callback(case.running.discard)

    async def _checked(self, case: Case, window: str) -> None:
        """Ask about a window; what stops the stream is told to its next call."""
        began = self.gateway.now()
        verdict = await self._classifier.verdict(window)
        self._seconds.observe(self.gateway.now() - began)
        self._checks.inc(verdict=verdict)
        if verdict in self._stopping and case.stopped is None:
            case.stopped = verdict

    def _case(self, stream: Stream) -> Case:
        case: Case | None = stream.state
        if case is None:
            case = stream.state = Case()
        return case


async def _answered(case: Case, but: int) -> None:
    """All questions of this stream `but` so many have their verdicts, or one of them stops it."""
    while len(case.running) > but and case.stopped is None:
        await asyncio.wait(case.running, return_when=asyncio.FIRST_COMPLETED)
