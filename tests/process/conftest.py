"""Processes have loops of their own: which one the test itself runs on makes no difference."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
