"""What digits must add up to. Each takes a text, where a candidate begins, and the furthest it may reach; it gives the
end of the longest part that is genuine, or 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

Check: TypeAlias = "Callable[[str, int, int], int]"


def card(text: str, start: int, end: int) -> int:
    """A card's number: 13 to 19 digits by the Luhn rule (ISO/IEC 7812), and no digit after them."""
    return next((stop for stop in _stops(text, start, end, 13, _digit) if luhn(_bare(text[start:stop]))), 0)


def iban(text: str, start: int, end: int) -> int:
    """An account's number: 15 to 34 letters and digits, whose remainder by 97 is 1 (ISO 13616)."""
    return next((stop for stop in _stops(text, start, end, 15, _counts) if remainder(_bare(text[start:stop])) == 1), 0)


def luhn(digits: str) -> bool:
    """Whether its last digit is the one that the others ask for."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) << (position & 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def remainder(code: str) -> int:
    """By 97, with its first four characters moved to its end and letters counted from A = 10."""
    return int("".join(str(int(character, 36)) for character in code[4:] + code[:4])) % 97


def _stops(text: str, start: int, end: int, least: int, goes_on: Callable[[str], bool]) -> Iterator[int]:
    """Where a candidate may end, the furthest first: behind a letter or digit, and before nothing that goes on."""
    for stop in range(end, start + least - 1, -1):
        followed = stop < len(text) and goes_on(text[stop])
        if _counts(text[stop - 1]) and not followed and len(_bare(text[start:stop])) >= least:
            yield stop


def _bare(text: str) -> str:
    return "".join(filter(_counts, text))


def _digit(character: str) -> bool:
    return character.isascii() and character.isdigit()


def _counts(character: str) -> bool:
    return character.isascii() and character.isalnum()
