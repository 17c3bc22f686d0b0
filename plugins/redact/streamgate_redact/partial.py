"""Of a regular expression: what it must still read. `re` cannot tell a text that does not match from one that does not
match yet, so a second expression is made of the first: it matches where some way through the first one arrives at the
end of the text and would read on.

Why that is enough: when no way arrives there, nothing that is yet to come can change what the first one matches.
Expressions are taken apart by Python's own parser; those whose end cannot be known (`$`, back references, an unbounded
look ahead) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final, NamedTuple, TypeAlias

Node: TypeAlias = "tuple[Any, Any]"
NEVER: Final = None  # no way through it arrives at the end of the text

_CATEGORIES: Final = {
    op.CATEGORY_DIGIT: r"\d", op.CATEGORY_NOT_DIGIT: r"\D", op.CATEGORY_SPACE: r"\s", op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w", op.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip
_STARTS: Final = {op.AT_BEGINNING: "^", op.AT_BEGINNING_STRING: r"\A", (): "(?!)"}  # the last one is nowhere
_EDGES: Final = {op.AT_BOUNDARY: r"\b", op.AT_NON_BOUNDARY: r"\B"}
_GREED: Final = {op.MAX_REPEAT: "", op.MIN_REPEAT: "?", op.POSSESSIVE_REPEAT: "+"}
_ANY: Final = "(?s:.)"
_ONE: Final = (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN)  # read one character
_LETTERS: Final = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s", re.ASCII: "a"}


class Unsupported(ValueError):
    """The expression cannot be followed across deltas; the message says what in it."""


class Parts(NamedTuple):
    """An expression in two: `full` is itself, `reading` matches where it would read beyond the end (None: nowhere)."""

    full: str
    reading: str | None


class Expression(NamedTuple):
    """An expression, and how far it looks. Widths in characters; `longest` None: no bound.

    `first` matches one character that it can begin with, where what it asks to be before that is.
    """

    full: str
    reading: str
    first: str
    shortest: int
    longest: int | None
    behind: int
    ahead: int


def expression(pattern: str) -> Expression:
    """Take `pattern` apart. Raises `Unsupported`, and `re.error` for what is no regular expression."""
    re.compile(pattern)  # its errors are the ones that people know
    tree = _parser.parse(pattern)
    parts = _sequence(tree)
    behind, ahead = _looks(tree)
    first, before = _first(tree), _before(tree)
    shortest, longest = tree.getwidth()
    letters = "".join(letter for flag, letter in _LETTERS.items() if tree.state.flags & flag)
    return Expression(
        full=f"(?{letters}:{parts.full})",
        reading=f"(?{letters}:{parts.reading or '(?!)'})",
        first=f"(?{letters}:{_ANY if first is None else f'[{first}]'}{before})",
        shortest=shortest,
        longest=None if longest >= op.MAXREPEAT else longest,
        behind=behind,
        ahead=max(1, ahead),  # one more character tells whether a run ended
    )


def _sequence(nodes: Iterable[Node]) -> Parts:
    """One after another: it reads on in the first, or has the first behind it and reads on in the rest."""
    full, reading = "", NEVER
    for node in reversed(list(nodes)):
        each = _parts(*node)
        later = None if reading is NEVER else each.full + reading
        full = each.full + full
        reading = _either([each.reading, later])
    return Parts(full, reading)


def _parts(kind: Any, value: Any) -> Parts:
    if kind in _ONE:
        return Parts(_character(kind, value), r"\Z")
    if kind in _GREED:
        return _repeated(kind, *value)
    if kind is op.BRANCH:
        return _branches([_sequence(each) for each in value[1]])
    if kind is op.SUBPATTERN:
        return _group(value)
    if kind is op.ATOMIC_GROUP:
        inner = _sequence(value)
        return Parts(f"(?>{inner.full})", inner.reading)
    if kind in (op.ASSERT, op.ASSERT_NOT):
        return _look(kind, *value)
    if kind in (op.AT, op.FAILURE):
        return _place(value)
    raise Unsupported("it refers back to a group")


def _character(kind: Any, value: Any) -> str:
    if kind is op.ANY:
        return "."
    if kind is op.LITERAL:
        return re.escape(chr(value))
    if kind is op.NOT_LITERAL:
        return f"[^{re.escape(chr(value))}]"
    return f"[{''.join(_member(*each) for each in value)}]"


def _member(kind: Any, value: Any) -> str:
    """Of a set."""
    if kind is op.NEGATE:
        return "^"
    if kind is op.RANGE:
        return f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
    return _CATEGORIES[value] if kind is op.CATEGORY else re.escape(chr(value))


def _repeated(kind: Any, least: int, most: int, nodes: Sequence[Node]) -> Parts:
    inner = _sequence(nodes)
    full = f"(?:{inner.full}){_times(least, most)}{_GREED[kind]}"
    if inner.reading is NEVER or most == 0:
        return Parts(full, NEVER)
    before = _times(0, most if most == op.MAXREPEAT else most - 1)
    if len(nodes) == 1 and nodes[0][0] in _ONE:
        # Of single characters only the longest run can arrive at the end: no way back need be tried.
        return Parts(full, rf"{inner.full}{before}+\Z")
    return Parts(full, f"(?:{inner.full}){before}{inner.reading}")


def _times(least: int, most: int) -> str:
    return f"{{{least},{'' if most == op.MAXREPEAT else most}}}"


def _branches(ways: Sequence[Parts]) -> Parts:
    return Parts(f"(?:{'|'.join(way.full for way in ways)})", _either([way.reading for way in ways]))


def _group(value: Any) -> Parts:
    _, added, removed, nodes = value
    inner = _sequence(nodes)
    on = "".join(letter for flag, letter in _LETTERS.items() if added & flag)
    off = "".join(letter for flag, letter in _LETTERS.items() if removed & flag)
    mark = f"(?{on}{'-' if off else ''}{off}:"
    return Parts(f"{mark}{inner.full})", None if inner.reading is NEVER else f"{mark}{inner.reading})")


def _look(kind: Any, direction: int, nodes: Sequence[Node]) -> Parts:
    inner = _sequence(nodes)
    sign = "=" if kind is op.ASSERT else "!"
    if direction < 0:
        return Parts(f"(?<{sign}{inner.full})", NEVER)
    return Parts(f"(?{sign}{inner.full})", None if inner.reading is NEVER else f"(?={inner.reading})")


def _place(where: Any) -> Parts:
    if where in _STARTS:
        return Parts(_STARTS[where], NEVER)
    if where in _EDGES:
        return Parts(_EDGES[where], r"\Z")
    raise Unsupported(r"$ and \Z wait for the end of all text; (?=\n) is the end of a line")


def _either(ways: Sequence[str | None]) -> str | None:
    some = [way for way in ways if way is not NEVER]
    return f"(?:{'|'.join(some)})" if some else NEVER


def _first(nodes: Iterable[Node]) -> str | None:
    """What its first character is, as the inside of a set; None: any character, or none at all."""
    some = ""
    for kind, value in nodes:
        if kind in (op.ASSERT, op.ASSERT_NOT, op.AT):
            continue
        if kind is op.FAILURE or (kind is op.SUBPATTERN and (value[1] or value[2])):
            return None  # nothing, or other flags
        if kind in _ONE:
            found = _set(kind, value)
        else:
            inside = [_first(each) for each in _inside(kind, value)]
            found = None if None in inside else "".join(filter(None, inside))
        if found is None:
            return None
        some += found
        if kind not in _GREED or value[0] > 0:
            return some
    return None


def _before(nodes: Iterable[Node]) -> str:
    """What it looks back at first, seen from behind its first character."""
    found = ""
    for kind, value in nodes:
        if kind not in (op.ASSERT, op.ASSERT_NOT) or value[0] > 0:
            break
        found += f"(?<{'=' if kind is op.ASSERT else '!'}{_sequence(value[1]).full}{_ANY})"
    return found


def _set(kind: Any, value: Any) -> str | None:
    if kind is op.LITERAL:
        return re.escape(chr(value))
    if kind is not op.IN or value[0][0] is op.NEGATE:
        return None
    return "".join(_member(*each) for each in value)


def _looks(nodes: Iterable[Node]) -> tuple[int, int]:
    """How many characters before and behind a match it looks at, at most."""
    behind, ahead = 0, 0
    for kind, value in nodes:
        if kind in (op.ASSERT, op.ASSERT_NOT):
            width = value[1].getwidth()[1]
            if width >= op.MAXREPEAT:
                raise Unsupported("it looks ahead without a bound")
            behind, ahead = (behind + width, ahead) if value[0] < 0 else (behind, ahead + width)
        elif kind is op.AT:
            behind, ahead = behind + 1, ahead + (value in _EDGES)
        for each in _inside(kind, value):
            more = _looks(each)
            behind, ahead = behind + more[0], ahead + more[1]
    return behind, ahead


def _inside(kind: Any, value: Any) -> Iterable[Any]:
    """The sequences that a node is made of."""
    if kind in _GREED:
        yield value[2]
    elif kind is op.BRANCH:
        yield from value[1]
    elif kind is op.SUBPATTERN:
        yield value[3]
    elif kind is op.ATOMIC_GROUP:
        yield value
    elif kind in (op.ASSERT, op.ASSERT_NOT):
        yield value[1]
