"""What a model's name asks the demo upstream to do: `demo-n20-t50-stall3` is 20 tokens, 50 ms apart, silent after 3.

    NAME   = "demo" { ("-" | "+") OPTION } [ ("-" | "+") "first" K ":" OPTION { ("-" | "+") OPTION } ]
    OPTION = WORD [ NUMBER ]

What follows `first<k>:` counts for the first k requests of one x-request-id only (without such a header: of one model
name); later ones get what stands before it. An unknown option, a number too many or one missing, or two options of one
exclusive group make an unknown model, which is answered with 404. `python -m streamgate.demo.grammar` prints the table
in docs/demo-upstream.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache


class Group(Enum):
    """What an option is about. Of an exclusive group a name may hold one option only."""

    PACE = "pace and amount"
    CONTENT = "content"
    WRITING = "how it is written"
    ANSWER = "in place of the answer"
    TURN = "after k events of a stream"
    END = "the end of a stream"
    CONNECTION = "the connection and headers"


# A third of a second: long enough to be seen streaming, short enough not to be waited for.
TOKENS = 16
GAP_MS = 20
EXCLUSIVE = {Group.ANSWER, Group.TURN, Group.END}


@dataclass(frozen=True, slots=True)
class Option:
    """One word of the grammar. `number` is what it counts; with a `default` the number may be left out."""

    group: Group
    meaning: str
    number: str = ""
    default: int | None = None


P, C, W, A, T, E, N = Group
OPTIONS: dict[str, Option] = {
    "n": Option(P, "this many tokens (16 without it)", "count"),
    "t": Option(P, "time between events (20 ms without it)", "ms"),
    "hb": Option(P, "delay before the response head", "ms"),
    "d": Option(P, "delay before the first event, after the head", "ms"),
    "p": Option(P, "padding in each event", "bytes"),
    "flood": Option(P, "events of 16 KiB, as fast as they are taken, until this many bytes", "bytes"),
    "tools": Option(C, "a tool call in place of text"),
    "reasoning": Option(C, "the first half of the tokens as reasoning_content"),
    "roles": Option(C, "the role in every delta"),
    "utf8": Option(C, "words that are not ASCII"),
    "echo": Option(C, "each token begins with the request's x-request-id"),
    "usagefinish": Option(C, "usage on the finish event, asked for or not"),
    "finishabort": Option(C, "finish_reason `abort`"),
    "finisherror": Option(C, "finish_reason `error`"),
    "bigevent": Option(C, "one event of this size after the first", "bytes"),
    "nonjson": Option(C, "one event that is not JSON, after k events", "k"),
    "nul": Option(C, "one event with a NUL in it, after k events", "k"),
    "badbytes": Option(C, "one event that is not UTF-8, after k events", "k"),
    "inject": Option(C, "error texts hold line breaks and `data: [DONE]`"),
    "crlf": Option(W, "CR LF line ends"),
    "cr": Option(W, "CR line ends"),
    "bom": Option(W, "a byte order mark first"),
    "multiline": Option(W, "each event's JSON over two data lines"),
    "comments": Option(W, "a comment before each event"),
    "burst": Option(W, "all events in one write"),
    "split": Option(W, "each event in writes of this size, a turn of the loop between them", "bytes"),
    "length": Option(W, "Content-Length in place of chunks"),
    "chunked": Option(W, "chunks also where the answer is not a stream"),
    "http10": Option(W, "HTTP/1.0, the body ends with the connection"),
    "gzip": Option(W, "compressed although it was asked not to be"),
    "gzipbomb": Option(A, "a compressed body that is this large when unpacked", "bytes", 64 * 1024 * 1024),
    "status": Option(A, "this status with an OpenAI error in JSON", "code"),
    "html": Option(A, "this status with a page of HTML", "code"),
    "jsonerror": Option(A, "this status with an error in JSON, whatever was asked for", "code", 200),
    "empty": Option(A, "this status with an empty body", "code", 200),
    "redirect": Option(A, "this status with a Location", "code", 302),
    "silent": Option(A, "no byte at all"),
    "resethead": Option(A, "a reset before the head"),
    "eofhead": Option(A, "a close before the head"),
    "halfhead": Option(A, "half a head, then silence"),
    "dribble": Option(A, "the head byte by byte, with this time between them", "ms"),
    "garbage": Option(A, "something that is not HTTP"),
    "headerbomb": Option(A, "a head of this size", "bytes", 2 * 1024 * 1024),
    "commentsonly": Option(A, "a stream of comments, one each so often, for ever", "ms"),
    "clte": Option(A, "both Content-Length and Transfer-Encoding"),
    "shortcl": Option(A, "a Content-Length that is too small"),
    "longcl": Option(A, "a Content-Length that is too large, then a close"),
    "stall": Option(T, "silence, the connection stays open", "k"),
    "reset": Option(T, "a reset", "k"),
    "eof": Option(T, "a close between chunks", "k"),
    "cut": Option(T, "a close inside a chunk", "k"),
    "cleaneof": Option(T, "the terminating chunk, without finish reason and `[DONE]`", "k"),
    "half": Option(T, "half an event, then the terminating chunk", "k"),
    "errorevent": Option(T, "an error event, then the terminating chunk", "k"),
    "errornamed": Option(T, "the same as `event: error`", "k"),
    "errorold": Option(T, "the same as `object: error`, then `[DONE]`", "k"),
    "badchunk": Option(T, "a chunk size that is not a number", "k"),
    "giant": Option(T, "an event that never ends", "k"),
    "giantlines": Option(T, "an event of data lines that never ends", "k"),
    "nodone": Option(E, "finish reason, clean end, no `[DONE]`"),
    "nofinish": Option(E, "`[DONE]` without a finish reason"),
    "doneopen": Option(E, "`[DONE]`, then silence without the terminating chunk"),
    "donemore": Option(E, "more events after `[DONE]`"),
    "r": Option(N, "Retry-After, with a status", "s"),
    "earlyhints": Option(N, "100 and 103 before the response"),
    "hopheaders": Option(N, "hop-by-hop headers and one that `Connection` names"),
    "badheaders": Option(N, "a header with CR in its value"),
    "closeafter": Option(N, "`Connection: close` and a close"),
    "hangup": Option(N, "a close this long after the answer, unannounced", "ms"),
    "stale": Option(N, "the next request on the connection gets a close"),
    "twice": Option(N, "a second response right behind the first"),
    "twicelate": Option(N, "a second response this long after the first", "ms"),
    "nonotify": Option(N, "over TLS: closed without close_notify"),
}

_NUMBERED = re.compile(r"([a-z0-9]*[a-z])(\d{1,10})")
_FIRST = re.compile(r"(demo(?:[-+][a-z0-9]+)*)[-+]first(\d{1,6}):([a-z0-9+-]+)")


class UnknownModel(ValueError):
    """A name that the grammar does not know; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Script:
    """What one name asks for. Times in seconds; `options` holds the rest, with their numbers (0: they have none)."""

    tokens: int = TOKENS
    gap: float = GAP_MS / 1000
    head_delay: float = 0.0
    delay: float = 0.0
    padding: int = 0
    options: Mapping[str, int] = field(default_factory=dict)
    first: int = 0  # so many requests play `faults` before this
    faults: Script | None = None

    def chosen(self, group: Group) -> tuple[str, int]:
        """The one option of an exclusive group, and its number; `("", 0)` when there is none."""
        return next(((word, n) for word, n in self.options.items() if OPTIONS[word].group is group), ("", 0))


@lru_cache(maxsize=1024)
def parse(name: str) -> Script:
    """The script that a model's name asks for; raises UnknownModel."""
    found = _FIRST.fullmatch(name)
    if found is None:
        return _script(name)
    before, count, faults = found.groups()
    return replace(_script(before), first=int(count), faults=_script(f"{before}-{faults}"))


def _script(name: str) -> Script:
    first, *words = re.split(r"[-+]", name)
    if first != "demo":
        raise UnknownModel(f"The model `{name[:256]}` does not exist; names here begin with `demo`.")
    numbers: dict[str, int] = {}
    for text in words:
        word, number = _option(text)
        if word in numbers:
            raise UnknownModel(f"The option `{word}` is there twice.")
        numbers[word] = number
    _check_exclusive(numbers)
    return Script(
        tokens=numbers.pop("n", TOKENS),
        gap=numbers.pop("t", GAP_MS) / 1000,
        head_delay=numbers.pop("hb", 0) / 1000,
        delay=numbers.pop("d", 0) / 1000,
        padding=numbers.pop("p", 0),
        options=numbers,
    )


def _option(text: str) -> tuple[str, int]:
    """A word and its number."""
    numbered = None if text in OPTIONS else _NUMBERED.fullmatch(text)
    word, number = (numbered[1], int(numbered[2])) if numbered else (text, None)
    option = OPTIONS.get(word)
    if option is None:
        raise UnknownModel(f"There is no option `{text[:64]}`.")
    if number is not None and not option.number:
        raise UnknownModel(f"The option `{word}` takes no number.")
    if number is None and option.number and option.default is None:
        raise UnknownModel(f"The option `{word}` needs a number ({option.number}).")
    return word, number if number is not None else option.default or 0


def _check_exclusive(words: Iterable[str]) -> None:
    taken: dict[Group, str] = {}
    for word in words:
        group = OPTIONS[word].group
        if group in EXCLUSIVE and taken.setdefault(group, word) != word:
            raise UnknownModel(f"The options `{taken[group]}` and `{word}` exclude each other.")


def table() -> str:
    """All options, in Markdown."""
    lines = []
    for group in Group:
        only = ", at most one of them" if group in EXCLUSIVE else ""
        lines += [f"### {group.value.capitalize()}{only}", "", "| option | meaning |", "| --- | --- |"]
        lines += [
            f"| `{_spelled(word)}` | {OPTIONS[word].meaning} |" for word in OPTIONS if OPTIONS[word].group is group
        ]
        lines.append("")
    return "\n".join(lines)


def _spelled(word: str) -> str:
    option = OPTIONS[word]
    if not option.number:
        return word
    return f"{word}<{option.number}>" if option.default is None else f"{word}[<{option.number}>={option.default}]"


if __name__ == "__main__":
    print(table())
