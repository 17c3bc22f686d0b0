"""A snapshot drawn in place by rich; imported only where that is installed (the extra `rich`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from streamgate.control import screen

# Rows that are not the table's: three lines of state, the empty one, the heads with their rule, the last line.
AROUND = 8
STYLES = {"STALLED": "bold red", "slow client": "yellow", "streaming": "green", "waiting first token": "yellow"}


@contextmanager
def drawn(console: Console | None = None) -> Iterator[Any]:
    """Gives what shows one snapshot in place of the last; the terminal is as it was afterwards."""
    console = console or Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield lambda seen: live.update(picture(seen, console.height - AROUND), refresh=True)


def picture(seen: dict[str, Any], rows: int) -> Group:
    """Texts, never markup: names of models are strangers' words."""
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    for column, head in enumerate(screen.HEADS):
        number = column in screen.RIGHT
        table.add_column(head, justify="right" if number else "left", no_wrap=True, overflow="ellipsis")
    for stream in seen["streams"][: max(rows, 1)]:
        first, *rest = screen.cells(stream)
        table.add_row(Text(first, style=STYLES.get(first, "")), *map(Text, rest))
    missing = seen["total"] - min(len(seen["streams"]), max(rows, 1))
    last = f"... and {missing} more" if missing > 0 else ""
    state = [Text(screen.headline(seen), style="bold"), Text(screen.upstreams(seen)), Text(screen.limits(seen))]
    return Group(*state, Text(), table, Text(last))
