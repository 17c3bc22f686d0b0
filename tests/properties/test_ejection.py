"""Never more than half of the upstreams are out, never all, and only those that kept failing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamgate.routing.ejection import Ejections, EjectionSettings

NAMES = ["a", "b", "c", "d", "e"]


@given(
    st.integers(1, 5),
    st.floats(0.0, 1.0),
    st.lists(st.tuples(st.sampled_from(NAMES), st.booleans(), st.floats(0, 20)), max_size=120),
)
def test_ejections_are_bounded_and_deserved(size: int, share: float, story: list[tuple[str, bool, float]]) -> None:
    """Out only after failures in a row, for as long as set, a share of the pool at most, and never the last."""
    names = NAMES[:size]
    settings = EjectionSettings(failures=3, seconds=30.0, max_share=share)
    ejections = Ejections(names, settings)
    now, in_a_row, last_failure = 0.0, dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, -100.0)
    for name, failed, seconds in story:
        now += seconds
        if failed:
            ejections.failed(name, now)
            in_a_row[name] += 1
            last_failure[name] = now
        else:
            ejections.succeeded(name)
            in_a_row[name] = 0
        out = ejections.ejected(now)
        assert out <= set(names)
        assert len(out) <= min(int(size * share), size - 1)
        assert all(in_a_row[each] >= 3 and now - last_failure[each] < 30.0 for each in out)
    assert not ejections.ejected(now + 30.0)
