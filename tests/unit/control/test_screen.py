"""A snapshot in the terminal: as lines, and drawn by rich."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from streamgate.control import screen, screen_rich

STREAM = {
    "id": "r1", "phase": "streaming", "stalled": False, "age_s": 75.2, "model": "llama", "upstream": "gpu-a",
    "attempts": 1, "ttft_ms": 340.4, "chunks": 1234, "chunks_per_s": 16.4, "quiet_s": 0.2,
    "buffered": 2048, "blocked_s": None,
}  # fmt: skip
WAITING = STREAM | {
    "id": "", "phase": "waiting_first_token", "upstream": None, "ttft_ms": None, "chunks": 0, "chunks_per_s": None,
    "quiet_s": None, "buffered": 0,
}  # fmt: skip


SLOTS = [
    {"level": "model", "name": "llama-*", "used": 2, "limit": 2},
    {"level": "global", "name": "gateway", "used": 2, "limit": 500},
]


def seen(*streams: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "version": "1.2.3", "uptime_s": 8000.0, "phase": "serving", "ready": True, "active": 2, "limit": 500,
        "queued": 1, "stalled": 1, "upstreams": [{"name": "gpu-a", "health": "ok", "tries": 2}], "total": len(streams),
        "streams": list(streams), "sample": [0, 2, 1.5, 340.0, 2100.0, 1000.0, 0.25],
        "slots": SLOTS, "waiting": {"batch": 1, "urgent": 0}, "longest_wait_s": 3.21, "troubles": [],
    } | more  # fmt: skip


def test_the_lines_say_it_all_in_columns():
    """The gateway, its upstreams, a row for each stream; numbers stand right, what is not there is a dash."""
    stuck = STREAM | {"stalled": True, "quiet_s": 3700.0}
    slow = STREAM | {"blocked_s": 4.0}
    assert screen.lines(seen(stuck, slow, WAITING), 200) == [
        (
            "streamgate 1.2.3  ready  up 2h13m  active 2/500  stalled 1  queued 1  starts/s 1.5  chunks/s 1000"
            "  ttft 340ms (p95 2.1s)  errors/s 0.2"
        ),
        "upstreams: gpu-a ok (2 tries)",
        "limits: model llama-* 2/2, gateway 2/500  waiting: batch 1 (the longest 3.2s)",
        "",
        "PHASE                  AGE   TTFT  CHUNKS/S  CHUNKS   LAST  BUFFER  UPSTREAM  MODEL  REQUEST",
        "STALLED              1m15s  340ms        16    1234  1h01m      2K  gpu-a     llama  r1",
        "slow client          1m15s  340ms        16    1234   0.2s      2K  gpu-a     llama  r1",
        "waiting first token  1m15s      -         -       0      -      0B  -         llama  -",
    ]


def test_lines_are_cut_and_what_is_missing_is_counted():
    """At the terminal's width, and at so many rows."""
    text = screen.lines(seen(*[STREAM] * 9, total=250), 40, rows=3)
    assert max(map(len, text)) == 40
    assert (len(text), text[-1]) == (9, "... and 247 more")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"phase": "draining", "ready": False}, "draining"),
        ({"ready": False}, "starting"),
        ({"sample": None}, "chunks/s -"),
    ],
)
def test_the_state_is_told_also_before_and_after_serving(more, word):
    """And before the first second is over."""
    assert word in screen.headline(seen(limit=0, **more))


def test_limits_are_told_as_far_as_there_are_any():
    """No limit, nobody waits, nothing is wrong: one word; what is wrong is in capitals."""
    quiet: dict[str, Any] = {"slots": [], "waiting": {"batch": 0}, "longest_wait_s": 0.0}
    assert screen.limits(quiet | {"troubles": []}) == "limits: none"
    assert screen.limits(quiet | {"troubles": ["lag", "store"]}) == "limits: none  TROUBLE: lag, store"


def test_a_strangers_words_move_no_cursor():
    """Control characters are replaced, in what is written and in what is drawn; markup is no markup."""
    text = screen.clean("a\x1b[2Jb\rc\u202e")
    assert text == "a\ufffd[2Jb\ufffdc\ufffd"
    output = io.StringIO()
    console = Console(file=output, width=160, height=20, force_terminal=False)
    console.print(screen_rich.picture(seen(STREAM | {"model": "[red]x[/]\x1b[2J"}), 10))
    assert "[red]x[/]\ufffd[2J" in output.getvalue()


def test_rich_draws_as_many_rows_as_fit_and_leaves_the_terminal_as_it_was():
    """Each snapshot in place of the last, on the alternate screen."""
    output = io.StringIO()
    console = Console(file=output, width=120, height=11, force_terminal=True)
    with screen_rich.drawn(console) as show:
        show(seen(*[STREAM] * 9))
    drawn = output.getvalue()
    assert drawn.count("gpu-a ") >= 3 and "... and 6 more" in drawn
    assert drawn.startswith("\x1b[?1049h") and "\x1b[?1049l" in drawn


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.0, "0.0s"), (9.94, "9.9s"), (59.4, "59s"), (60.0, "1m00s"), (7260.0, "2h01m")]
)
def test_seconds_are_short(value, text):
    """Four or five characters, whatever the size."""
    assert screen.seconds(value) == text
