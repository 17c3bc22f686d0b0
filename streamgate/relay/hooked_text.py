"""One plugin's `on_text` on one stream: text put together across events, held as far as the plugin asks, and put back.

A text that comes out as it went in leaves its event byte for byte. Text that was held goes out in the next event of its
choice, or in one of its own before the finish.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from streamgate.dialects.dialect import Dialect
from streamgate.dialects.json_walk import escaped
from streamgate.dialects.texts import TextAt, Told, with_texts
from streamgate.hooks.member import SKIPPED, Garbage, Member
from streamgate.hooks.spec import Kept, Stream, Text
from streamgate.sse.frames import blocks
from streamgate.sse.parser import EventStreamParser, block_fields

# Neither a quote nor an escape nor a line end: between the same two pieces of JSON there is nothing but another text.
_PLAIN = re.compile(rb'[^"\\\r\n]++').fullmatch
_DATA = re.compile(rb"(?<![^\r\n])data:\x20?([^\r\n]*)").finditer
REMEMBERED = 4  # forms of ordinary events, the choices of a stream among them

Key = tuple[int, str]  # choice and field


class Form(NamedTuple):
    """An ordinary event: what is before and after its text, and whose text that is."""

    before: bytes
    after: bytes
    at: TextAt
    bare: bool


class Held:
    """What of one text has not been released: `half` is a surrogate whose other half may come with the next event."""

    __slots__ = ("at", "block", "half", "kept")

    def __init__(self, kept: str, half: str, at: TextAt, block: bytes) -> None:
        self.kept = kept
        self.half = half
        self.at = at
        self.block = block  # the event it came with, the last one of it


class TextStage:
    """`spent` in seconds, all calls together."""

    __slots__ = ("_call", "_dialect", "_forms", "_held", "_view", "_waits", "done", "hook", "member", "over", "spent")

    def __init__(self, member: Member, view: Stream, dialect: Dialect) -> None:
        self.hook = "on_text"
        self.member = member
        self.spent = 0.0
        self.over = False  # it ended the stream: nothing it holds is to leave
        self.done = b""  # of the frame that it is at, what came before the present event
        self._call = member.plugin.on_text
        self._waits = self.hook in member.asynchronous
        self._view = view
        self._dialect = dialect
        self._forms: list[Form] = []
        self._held: dict[Key, Held] = {}

    async def pass_on(self, frame: bytes) -> bytes:
        self.done = b""
        for form in self._forms:
            if frame.startswith(form.before) and frame.endswith(form.after):
                found = _PLAIN(frame, len(form.before), len(frame) - len(form.after))
                if found is not None:
                    return await self._ordinary(form, found[0].decode("utf-8", "replace"), frame)
        for start, end in blocks(frame):
            self.done += await self._event(frame[start:end])
        return self.done

    async def flush(self) -> bytes:
        """The stream is over: everything that is held."""
        return await self._finished(list(self._held))

    async def whole(self, body: bytes) -> bytes:
        """A whole answer of one JSON body."""
        told = self._dialect.texts(body, whole=True)
        return with_texts(body, await self._changes(told, b"", everything=True))

    async def _ordinary(self, form: Form, text: str, block: bytes) -> bytes:
        out = await self._released(form.at, text, block, final=False)
        if out == text:
            return block
        if not out and form.bare:
            return b""
        return form.before + escaped(out) + form.after

    async def _event(self, block: bytes) -> bytes:
        payload = block_fields(block)[1]
        if payload is None:
            return block
        told = self._dialect.texts(payload)
        self._remember(block, payload, told)
        lead = b""
        if self._held and (told.finished or told.last):
            speaking = {(at.choice, at.field) for at in told.texts}
            ending = [key for key in self._held if key not in speaking and (told.last or key[0] in told.finished)]
            lead = await self._finished(ending)
        changes = await self._changes(told, block, everything=told.last)
        if not changes:
            return lead + block
        if told.bare and not changes[0][1]:
            return lead
        return lead + _with_payload(block, payload, with_texts(payload, changes))

    async def _changes(self, told: Told, block: bytes, *, everything: bool) -> list[tuple[TextAt, str]]:
        """The texts that are to be replaced. `everything`: no text comes after these."""
        changes: list[tuple[TextAt, str]] = []
        last = {(at.choice, at.field): at for at in told.texts}
        for at in told.texts:
            ends = everything or at.choice in told.finished
            before = (at.choice, at.field) in self._held
            out = await self._released(at, at.text, block, final=ends and last[at.choice, at.field] is at)
            touched = before or (at.choice, at.field) in self._held
            if out != at.text or (touched and at.echoes):  # what repeats it would tell what is held
                changes.append((at, out))
        return changes

    async def _released(self, at: TextAt, text: str, block: bytes, *, final: bool) -> str:
        """What may go out of what was held and this."""
        held = self._held.pop((at.choice, at.field), None) if self._held else None
        pending = text if held is None else held.kept + _joined(held.half, text)
        half = ""
        if not final and pending and "\ud800" <= pending[-1] <= "\udbff":
            pending, half = pending[:-1], pending[-1]
        out, keep = await self._asked(Text(at.choice, at.kind, pending, final, at.field)) if pending else ("", 0)
        if keep or half:
            self._held[at.choice, at.field] = Held(pending[len(pending) - keep :], half, at, block)
        return out

    async def _finished(self, keys: list[Key]) -> bytes:
        """Release what is held of these texts, in events of their own."""
        released = b""
        for key in keys:
            held = self._held[key]
            out = await self._released(held.at, "", held.block, final=True)
            if out:
                payload = block_fields(held.block)[1] or b"{}"
                released += b"data: " + self._dialect.text_event(payload, held.at, out) + b"\n\n"
        return released

    async def _asked(self, text: Text) -> tuple[str, int]:
        """The plugin's answer: what to release, and how much to keep."""
        member = self.member
        try:
            if self._waits:
                answer = await member.call("on_text", self._checked, text, self._view)
            else:
                answer = member.at_once("on_text", self._call, self._checked, text, self._view)
        finally:
            self.spent += member.took
        return (text.pending, 0) if answer is SKIPPED else answer

    def _checked(self, answer: object, text: Text, _: Stream) -> tuple[str, int]:
        if isinstance(answer, str):
            return answer, 0
        if not isinstance(answer, Kept) or not isinstance(answer.out, str) or type(answer.keep) is not int:
            raise Garbage(f"{type(answer).__name__} instead of str or Kept")
        out, keep = answer
        if not 0 <= keep <= min(self.member.plugin.window, len(text.pending)):
            raise Garbage(
                f"kept {keep} of {len(text.pending)} characters, with a window of {self.member.plugin.window}"
            )
        if keep and text.final:
            raise Garbage(f"kept {keep} characters of a text that ends")
        return out, keep

    def _remember(self, block: bytes, payload: bytes, told: Told) -> None:
        """Know the next event of this form without walking it."""
        if len(told.texts) != 1 or told.finished or told.last or told.texts[0].echoes:
            return
        at = told.texts[0]
        start = _place(block, payload)
        if start < 0 or _PLAIN(payload, at.start, at.end) is None:
            return
        form = Form(block[: start + at.start], block[start + at.end :], at, told.bare)
        self._forms = [form, *self._forms[: REMEMBERED - 1]]


def _joined(half: str, text: str) -> str:
    """Surrogates that make a pair are joined, as a JSON parser would have if it had seen both."""
    if not half:
        return text
    return (half + text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _with_payload(block: bytes, payload: bytes, new: bytes) -> bytes:
    """The same event with other data."""
    start = _place(block, payload)
    if start >= 0:
        return block[:start] + new + block[start + len(payload) :]
    event = EventStreamParser(len(block)).feed(block)[0]  # data of several lines: only its fields survive
    event.data = new.decode("utf-8", "replace")
    return event.encode()


def _place(block: bytes, payload: bytes) -> int:
    """Where the data is in its event; -1 when it is of several lines."""
    lines = list(_DATA(block))
    return lines[0].start(1) if len(lines) == 1 and lines[0][1] == payload else -1
