"""What all tests share: the two event loops, waiting with a deadline, tools that may be absent, no task left behind."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

# On its way out a connection may need a few turns of the loop; what is still there after this is a leak.
GRACE = 2.0


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every test marked `anyio` runs on asyncio's own loop and on uvloop."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


def require(tool: str) -> str:
    """The path of a program; without it the test is skipped, except in CI (CI=true), where that is a failure."""
    path = shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is not None:
        return path
    absent = f"{tool} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{absent}, and CI must have it")
    pytest.skip(absent)


@pytest.fixture
def need() -> Callable[[str], str]:
    """`need("nginx")` gives the program's path, or skips the test with the reason (in CI: fails it)."""
    return require


async def eventually(predicate: Callable[[], object], timeout: float = 5.0) -> None:  # noqa: ASYNC109
    """Wait until `predicate()` is true, at most `timeout` seconds; the one place in the tests that polls.

    Only for things that announce themselves to nobody: a descriptor count, a file another program writes, a counter.
    Where there is an event, a future or a socket to wait on, wait on that.
    """
    deadline = time.monotonic() + timeout
    while not predicate():
        assert time.monotonic() < deadline, f"not within {timeout} s: {inspect.getsource(predicate).strip()}"
        await asyncio.sleep(0.005)


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """`await until(lambda: ..., timeout)`: see `eventually`."""
    return eventually


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Every async test must leave no asyncio task behind; `leaves_tasks` excuses one that does so on purpose."""
    test = pyfuncitem.obj
    # Hypothesis wraps its own way; the `stage` ends what a test started after the test, and checks for itself.
    excused = hasattr(test, "hypothesis") or "stage" in pyfuncitem.fixturenames
    if inspect.iscoroutinefunction(test) and not excused and not pyfuncitem.get_closest_marker("leaves_tasks"):
        pyfuncitem.obj = leaving_no_tasks(test)


def leaving_no_tasks(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def checked(*args: object, **kwargs: object) -> None:
        before = asyncio.all_tasks()
        await test(*args, **kwargs)
        left = asyncio.all_tasks() - before
        if left:
            _, left = await asyncio.wait(left, timeout=GRACE)
        assert not left, f"tasks left behind: {sorted(map(str, left))}"

    return checked
