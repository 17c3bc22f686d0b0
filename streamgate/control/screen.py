"""A snapshot as lines of text: pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HEADS = ("PHASE", "AGE", "TTFT", "CHUNKS/S", "CHUNKS", "LAST", "BUFFER", "UPSTREAM", "MODEL", "REQUEST")
RIGHT = frozenset(range(1, 7))  # columns of numbers
ROWS = 40  # of a table that is written, not drawn
NOTHING = "-"


def lines(seen: dict[str, Any], width: int, rows: int = ROWS) -> list[str]:
    """The whole: a line on the gateway, one on its upstreams, one on its limits, the table; each cut at `width`."""
    table = [HEADS, *(cells(stream) for stream in seen["streams"][:rows])]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADS))]
    text = [headline(seen), upstreams(seen), limits(seen), "", *(aligned(row, widths) for row in table)]
    missing = seen["total"] - (len(table) - 1)
    if missing > 0:
        text.append(f"... and {missing} more")
    return [line[:width].rstrip() for line in text]


def headline(seen: dict[str, Any]) -> str:
    limit = f"/{seen['limit']}" if seen["limit"] else ""
    _, _, starts, p50, p95, chunks, errors = seen["sample"] or (None,) * 7
    return (
        f"streamgate {seen['version']}  {state(seen)}  up {seconds(seen['uptime_s'])}  active {seen['active']}{limit}"
        f"  stalled {seen['stalled']}  queued {seen['queued']}  starts/s {number(starts)}  chunks/s {number(chunks)}"
        f"  ttft {milliseconds(p50)} (p95 {milliseconds(p95)})  errors/s {number(errors)}"
    )


def state(seen: dict[str, Any]) -> str:
    if seen["phase"] != "serving":
        return str(seen["phase"])
    return "ready" if seen["ready"] else "starting"


def upstreams(seen: dict[str, Any]) -> str:
    told = (f"{clean(up['name'])} {up['health']} ({up['tries']} tries)" for up in seen["upstreams"])
    return "upstreams: " + ", ".join(told)


def limits(seen: dict[str, Any]) -> str:
    """Slots in use at each level that has a limit, the fullest first, and the queue by class."""
    slots = [f"{level(each)} {each['used']}/{each['limit']}" for each in seen["slots"]]
    waiting = [f"{clean(name)} {count}" for name, count in seen["waiting"].items() if count]
    queue = f"  waiting: {', '.join(waiting)} (the longest {seconds(seen['longest_wait_s'])})" if waiting else ""
    troubles = f"  TROUBLE: {', '.join(seen['troubles'])}" if seen["troubles"] else ""
    return f"limits: {', '.join(slots) or 'none'}{queue}{troubles}"


def level(slots: dict[str, Any]) -> str:
    name = clean(slots["name"])
    return name if slots["level"] == "global" else f"{slots['level']} {name}"


def cells(stream: dict[str, Any]) -> tuple[str, ...]:
    """One row, in the order of HEADS."""
    return (
        phase(stream),
        seconds(stream["age_s"]),
        milliseconds(stream["ttft_ms"]),
        number(stream["chunks_per_s"]),
        number(stream["chunks"]),
        seconds(stream["quiet_s"]),
        size(stream["buffered"]),
        clean(stream["upstream"] or NOTHING),
        clean(stream["model"] or NOTHING),
        clean(stream["id"] or NOTHING),
    )


def phase(stream: dict[str, Any]) -> str:
    if stream["stalled"]:
        return "STALLED"
    return "slow client" if stream["blocked_s"] is not None else str(stream["phase"]).replace("_", " ")


def aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    pairs = enumerate(zip(row, widths, strict=True))
    return "  ".join(text.rjust(width) if column in RIGHT else text.ljust(width) for column, (text, width) in pairs)


def clean(text: str) -> str:
    """A stranger's words, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def seconds(value: float | None) -> str:
    if value is None:
        return NOTHING
    if value < 10:
        return f"{value:.1f}s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s" if whole >= 60 else f"{whole}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def milliseconds(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.0f}ms" if value < 1000 else seconds(value / 1000)


def number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.1f}" if value < 10 and value != int(value) else f"{value:.0f}"


def size(count: int) -> str:
    return f"{count}B" if count < 1024 else f"{count / 1024:.0f}K"
