"""What processes cost, by the operating system's own account: CPU clock and proportional set size of a process tree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path


def tree(pid: int) -> Iterator[int]:
    """The process and its descendants that are alive."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from tree(int(child))


def cpu_seconds(pid: int) -> float:
    """CPU time of a tree: each process's CPU-time clock, which counts nanoseconds (clock_getcpuclockid(3))."""
    return sum(time.clock_gettime_ns((~each << 3) | 2) for each in tree(pid)) / 1e9


def pss_kib(pid: int) -> int:
    """Memory of a tree in KiB, shared pages divided among their users. Socket buffers are the kernel's, not in it."""
    return sum(
        int(line.split()[1])
        for each in tree(pid)
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    )
