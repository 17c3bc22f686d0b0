"""The stage: see tests/stage.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from stage import Stage


@pytest.fixture
async def stage(anyio_backend: Any) -> AsyncIterator[Stage]:
    before = asyncio.all_tasks()
    async with contextlib.AsyncExitStack() as stack:
        yield Stage(stack)
    left = {task for task in asyncio.all_tasks() - before if "TestRunner" not in repr(task.get_coro())}
    if left:
        _, left = await asyncio.wait(left, timeout=2)
    assert not left, f"tasks left behind: {sorted(map(str, left))}"
