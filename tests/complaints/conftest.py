"""What sse-starlette's users complained of, each complaint a test: here on asyncio, uvloop and trio.

At the head of each file a table says which complaint is held by which test; `test_tables.py` keeps them honest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sse_starlette.sse

from streamgate.sse import AppStatus


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        # The check for tasks left behind is asyncio's; trio has no task without a nursery.
        pytest.param(("trio", {}), id="trio", marks=pytest.mark.leaves_tasks),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture(autouse=True)
def switch() -> Iterator[None]:
    """The switches of the whole process as they were: ours, and sse-starlette's, which a signal latches."""
    yield
    AppStatus.should_exit = sse_starlette.sse.AppStatus.should_exit = False
    AppStatus.enable_automatic_graceful_drain_mode()


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """sse-starlette without the task that polls for the shutdown and outlives its streams."""
    monkeypatch.setattr(sse_starlette.sse, "_ensure_watcher_started_on_this_loop", lambda: None)
