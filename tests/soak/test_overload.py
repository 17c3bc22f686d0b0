"""A minute of five times the load: see tests/wire/test_overload.py."""

from __future__ import annotations

import pytest
from stage import Stage

from tests.wire.conftest import stage
from tests.wire.test_overload import CROWDS, Until, judged, overloaded

__all__ = ["stage"]  # the fixture

pytestmark = pytest.mark.anyio


@pytest.mark.soak
@pytest.mark.timeout(180)
async def test_a_minute_of_overload(stage: Stage, until: Until) -> None:
    """Limits held throughout; classes, tenants and refused clients got what they were promised."""
    judged(await overloaded(stage, CROWDS, 60.0, until), CROWDS, share=0.99, error=0.25)
