"""What is hidden: a head that is recognised, and a tail that goes with it however long it is.

Only the head needs a window. A key of 20 characters is a key whatever follows: the rest of it is dropped as it comes.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from streamgate_redact import checks
from streamgate_redact.checks import Check
from streamgate_redact.partial import Expression, Unsupported, expression

LONGEST: Final = 4096  # characters of a custom pattern's matches: what is held of each of a thousand streams

# Latin letters, accented ones included: other scripts write words without spaces between them and an address.
_A = r"A-Za-z0-9\u00c0-\u024f"
_LL = r"[A-Za-z\u00c0-\u024f]{2}"
_SPACES = r"(?:\s|\\[nrt])"  # also as JSON and source text write them
# Keys are random: 20 characters without a capital or a digit are words (one key in 30 million is not hidden).
_RANDOM = r"(?=[a-z._~+/=-]{0,19}[A-Z0-9])"


class Pattern(NamedTuple):
    """`tail` is one piece of what goes with the head; `longest` bounds the head, in characters."""

    name: str
    head: str
    tail: str = ""
    check: Check | None = None
    longest: int | None = None


class Rule:
    """A pattern, made ready: `head` and `tail` match, `*_reading` match where they would read beyond the text's end."""

    __slots__ = (
        "ahead", "behind", "check", "head", "hot", "longest", "name", "piece", "reading", "tail", "tail_reading",
    )  # fmt: skip

    def __init__(self, pattern: Pattern) -> None:
        head = expression(pattern.head)
        self.name = pattern.name
        self.check = pattern.check
        self.longest = _longest(head, pattern.longest)
        self.behind = head.behind
        self.ahead = head.ahead
        self.head = re.compile(head.full)
        self.reading = re.compile(head.reading)
        # A set comes first: the search skips what is not in it, and tries the rest only there.
        self.hot = f"{head.first}(?<=(?s:(?={head.reading}|{head.full}).))"
        tail = expression(pattern.tail or "(?!)")
        self.piece = tail.longest or 0  # the longest one of the tail
        self.tail = re.compile(tail.full)
        self.tail_reading = re.compile(tail.reading)

    @property
    def window(self) -> int:
        """The most characters that must be held until it is known whether there is a match."""
        return self.longest + self.ahead - 1

    def end(self, text: str, start: int) -> int:
        """Where a match that begins at `start` ends; 0 when there is none. Looks at no more than it may."""
        found = self.head.match(text, start, start + self.longest + self.ahead)
        if found is None or found.end() - start > self.longest:
            return 0
        return found.end() if self.check is None else self.check(text, start, found.end())


def _longest(head: Expression, stated: int | None) -> int:
    if head.shortest == 0:
        raise Unsupported("it matches where there is nothing")
    if stated is None and head.longest is None:
        raise Unsupported("it has no longest match")
    if stated is not None and stated < head.shortest:
        raise Unsupported(f"its matches have {head.shortest} characters at least, and longest is {stated}")
    return min(stated or LONGEST, head.longest or LONGEST)


def _rare(name: str, formats: str, tail: str) -> Pattern:
    return Pattern(name, rf"(?<![A-Za-z0-9])(?:{formats})", tail)


# None of them forbids what may follow it: that may be hidden, and then it would be a match after all.
BUILT_IN: Final = {
    pattern.name: pattern
    for pattern in (
        Pattern(
            "private_key",
            r"-----BEGIN (?:[A-Z]{2,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
            rf"(?:{_SPACES}{{1,4}}[A-Z][A-Za-z-]{{2,16}}: [^\\\n\r]{{1,90}}+){{0,3}}"  # how it is encrypted
            rf"{_SPACES}{{1,6}}[A-Za-z0-9+/]{{20}}",
            rf"[A-Za-z0-9+/=]|{_SPACES}{{0,6}}+(?:-----END [A-Z ]{{1,40}}+-----|[A-Za-z0-9+/]{{20}}"
            rf"|[A-Za-z0-9+/=]{{1,19}}+{_SPACES}{{0,6}}+-----END [A-Z ]{{1,40}}+-----)",
        ),
        _rare("jwt", r"eyJ[A-Za-z0-9_-]{10,600}+\.[A-Za-z0-9_-]{4}", r"\.?[A-Za-z0-9_-]"),
        _rare(
            "key",
            rf"sk-{_RANDOM}[A-Za-z0-9_-]{{20}}|[rs]k_(?:live|test)_[A-Za-z0-9]{{16}}|gh[opsur]_[A-Za-z0-9]{{20}}"
            r"|github_pat_[A-Za-z0-9_]{20}|glpat-[A-Za-z0-9_-]{20}|A[KS]IA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{24}"
            r"|xox[a-z]-[A-Za-z0-9-]{10}|hf_[A-Za-z0-9]{20}|npm_[A-Za-z0-9]{20}|pypi-[A-Za-z0-9_-]{20}",
            r"[A-Za-z0-9_-]",
        ),
        _rare("bearer", rf"[Bb]earer\s{{1,4}}{_RANDOM}[A-Za-z0-9._~+/=-]{{16}}", r"\.?[A-Za-z0-9_~+/=-]"),
        Pattern(
            "email",
            rf"(?<![{_A}])[{_A}_][{_A}._%+'-]{{0,63}}+@(?:[{_A}-]{{1,63}}+\.(?!{_LL})){{0,4}}[{_A}-]{{1,63}}+\.{_LL}",
            rf"[.-]{{0,4}}[{_A}]",
        ),
        Pattern("iban", r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}+(?=[A-Za-z0-9]?)", check=checks.iban),
        Pattern(
            "card",
            r"(?<![0-9])(?<![0-9][.,])[2-6](?:[ \u00a0\u2009\u202f\u2010\u2011-]?[0-9]){12,18}+(?=[0-9]?)",
            check=checks.card,
        ),
        Pattern(
            "phone",
            r"(?<![A-Za-z0-9+])(?:\+[1-9](?:[ ().-]{0,2}[0-9]){6,13}+"
            r"|\(?[2-9][0-9]{2}\)?[ .-][2-9][0-9]{2}[ .-][0-9]{4})",
            r"[0-9]",
        ),
    )
}
DEFAULT: Final = ("private_key", "jwt", "key", "bearer", "email", "card")
