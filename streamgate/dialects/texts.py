"""Where the text of an answer is, to the byte: so that it can be replaced and nothing else be touched.

Numbers, spaces, escapes and unknown keys stay as the upstream wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from streamgate.dialects.json_walk import LIST, OBJECT, QUOTE, Walk, escaped, unescaped

Kind = Literal["content", "reasoning"]
Span = tuple[int, int]


class TextAt(NamedTuple):
    """Text of a choice, not empty: its value, and where its bytes are between their quotes.

    `echoes` are the places of whole JSON values that repeat that text (log probabilities, token ids).
    """

    choice: int
    kind: Kind
    field: str  # the key it stood under: two fields are two texts, even of one kind
    text: str
    start: int
    end: int
    echoes: tuple[Span, ...] = ()


class Told(NamedTuple):
    """What one event says, as far as its text goes."""

    texts: tuple[TextAt, ...] = ()
    finished: tuple[int, ...] = ()  # choices with a finish reason
    last: bool = False  # the family's terminator, or an error: no text comes after it
    bare: bool = False  # it says nothing but its one text: without that it may be left out


NOTHING_TOLD: Final = Told()
LAST_TOLD: Final = Told(last=True)

_ECHOES: Final = frozenset(("logprobs", "token_ids"))
_DEEPEST: Final = 4  # lists of parts within parts: two are known, thinking among content


@dataclass(frozen=True, slots=True)
class Speech:
    """Where a choice has its text: in the object `inside` it, or itself (""), under which keys, of which kind."""

    inside: str
    fields: Mapping[str, Kind]

    def alone(self, payload: bytes, at: TextAt, text: str) -> bytes:
        """See `Dialect.text_event`. Of the rest only the plain facts of the stream are repeated: id, model and such."""
        facts = json.loads(payload, strict=False)
        event: dict[str, Any] = {
            key: value for key, value in facts.items() if isinstance(value, str | int) and key != "choices"
        }
        spoken: dict[str, Any] = {at.field: text}
        choice = {"index": at.choice} | ({self.inside: spoken} if self.inside else spoken)
        event["choices"] = [choice | {"logprobs": None, "finish_reason": None}]
        return json.dumps(event, separators=(",", ":")).encode()


SILENT: Final = Speech("", {})


def told(payload: bytes, speech: Speech) -> Told:
    """The texts of one event's data. What is not JSON holds none."""
    start = len(payload) - len(payload.lstrip())
    if payload[start : start + 1] != b"{":
        return LAST_TOLD if payload.strip() == b"[DONE]" else NOTHING_TOLD
    try:
        return _event(Walk(payload, start), speech)
    except (ValueError, IndexError):
        return NOTHING_TOLD


def with_texts(payload: bytes, changes: Sequence[tuple[TextAt, str]]) -> bytes:
    """The payload with these texts replaced, and what repeated them (null); every other byte as it was."""
    edits = {(at.start, at.end, escaped(text)) for at, text in changes}
    edits |= {(start, end, b"null") for at, _ in changes for start, end in at.echoes}
    for start, end, new in sorted(edits, reverse=True):
        payload = payload[:start] + new + payload[end:]
    return payload


class _Choice:
    """One choice while it is walked."""

    __slots__ = ("bare", "echoes", "finished", "found", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        self.finished = False
        self.bare = True
        self.found: list[tuple[Kind, str, Span]] = []
        self.echoes: list[Span] = []

    def texts(self, payload: bytes) -> list[TextAt]:
        echoes = tuple(self.echoes)
        return [
            TextAt(self.index, kind, field, unescaped(payload[start:end]), start, end, echoes)
            for kind, field, (start, end) in self.found
        ]


def _event(walk: Walk, speech: Speech) -> Told:
    choices: list[_Choice] = []
    last, bare = False, True
    for key in walk.members():
        if key == "choices":
            if walk.mark == LIST:
                choices += [_walked(walk, position, speech) for position in walk.elements()]
        elif key == "error":
            last = last or walk.says()
        elif key in ("usage", "timings"):
            bare = bare and not walk.says()
    texts = [text for choice in choices for text in choice.texts(walk.payload)]
    bare = bare and len(texts) == len(choices) == 1 and choices[0].bare and not choices[0].finished
    return Told(tuple(texts), tuple(choice.index for choice in choices if choice.finished), last, bare)


def _walked(walk: Walk, position: int, speech: Speech) -> _Choice:
    choice = _Choice(position)
    if walk.mark != OBJECT:
        choice.bare = False
        return choice
    for key in walk.members():
        if key == "index":
            start, end = walk.span()
            choice.index = int(walk.payload[start:end])
        elif key == "finish_reason":
            choice.finished = choice.finished or walk.says()
        elif key in _ECHOES:
            if walk.says():
                choice.echoes.append(walk.span())
        elif key == speech.inside:
            if walk.mark == OBJECT:
                for field in walk.members():
                    _field(walk, field, speech, choice)
        else:
            _field(walk, key, SILENT if speech.inside else speech, choice)
    return choice


def _field(walk: Walk, key: str, speech: Speech, choice: _Choice) -> None:
    """A key of the object that may hold text."""
    kind = speech.fields.get(key)
    if kind is None:
        choice.bare = choice.bare and not walk.says()
    elif walk.mark == LIST:  # a list of parts
        choice.bare = False
        _parts(walk, kind, key, choice, _DEEPEST)
    elif walk.mark == QUOTE:
        _text(walk, kind, key, choice)


def _text(walk: Walk, kind: Kind, field: str, choice: _Choice) -> None:
    start, end = walk.span()
    if end - start > 2:
        choice.found.append((kind, field, (start + 1, end - 1)))


def _parts(walk: Walk, kind: Kind, field: str, choice: _Choice, depth: int) -> None:
    """`[{"type": "text", "text": "..."}]`, and thinking as a list of such."""
    for _ in walk.elements():
        if walk.mark != OBJECT:
            continue
        for key in walk.members():
            if key == "text" and walk.mark == QUOTE:
                _text(walk, kind, field, choice)
            elif key == "thinking" and walk.mark == LIST and depth:
                _parts(walk, "reasoning", f"{field}.thinking", choice, depth - 1)
