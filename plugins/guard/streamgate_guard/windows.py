"""Cuts a text that comes in pieces into windows that overlap: the same windows for all pieces that make it up."""

from __future__ import annotations


class Windows:
    """Of one text. Each window is `step` new characters, after at most `overlap` that were there before."""

    __slots__ = ("_before", "_overlap", "_step")

    def __init__(self, step: int, overlap: int) -> None:
        self._step = step
        self._overlap = overlap
        self._before = ""

    def cut(self, pending: str, *, final: bool) -> tuple[list[str], int]:
        """The windows that are full (at the end: all there are), and how many characters are left for the next."""
        size = len(pending) if final else len(pending) // self._step * self._step
        view = self._before + pending[:size]
        first = len(self._before)
        starts = range(first, len(view), self._step)
        windows = [view[max(0, start - self._overlap) : start + self._step] for start in starts]
        self._before = view[max(0, len(view) - self._overlap) :]
        return windows, len(pending) - size
