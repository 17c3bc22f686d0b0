"""When a failed try is followed by another."""

from __future__ import annotations

import pytest

from streamgate import errors
from streamgate.upstream.retry import Again, RetryBudget, RetrySettings, decide, retry_after

SETTINGS = RetrySettings()
ELSEWHERE = Again(0.0, elsewhere=True)


def status(code: int, wait: float | None = None) -> errors.BadStatus:
    return errors.BadStatus(code, (), b"", retry_after=wait)


def ask(fault: errors.Fault, **changes: object) -> Again | None:
    arguments: dict[str, object] = {
        "made": 1, "elapsed": 0.0, "others": True, "settings": SETTINGS, "now": 0.0, "jitter": 0.5,
    }  # fmt: skip
    return decide(fault, **{"budget": RetryBudget(SETTINGS), **arguments, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fault",
    [
        errors.Unreachable(), errors.ConnectTimeout(), errors.NameNotResolved(), errors.TlsRefused(), errors.Reset(),
        errors.ClosedEarly(), errors.Garbled(), errors.Encoded(), errors.WrongContent(), errors.Empty(),
        errors.Truncated(), errors.FirstTokenTimeout(), errors.ErrorEvent("busy"), errors.KeyRejected(),
        status(429), status(429, 30.0), status(502), status(503), status(504),
    ],
)  # fmt: skip
def test_another_upstream_is_tried_at_once(fault: errors.Fault) -> None:
    """Whatever may pass elsewhere moves to another upstream without waiting, whatever Retry-After says."""
    assert ask(fault) == ELSEWHERE


@pytest.mark.parametrize(
    "fault",
    [
        errors.Redirected(), errors.EventTooLarge(), errors.IdleTimeout(), errors.Deadline(), errors.Drained(),
        errors.Killed(), errors.Internal(), *(status(code) for code in (400, 401, 403, 404, 408, 413, 422, 500, 501)),
    ],
)  # fmt: skip
def test_what_cannot_pass_is_not_tried_again(fault: errors.Fault) -> None:
    """A fault of the request's, the gateway's or the stream's middle ends the stream."""
    assert ask(fault) is None


@pytest.mark.parametrize(
    "fault, expected",
    [
        (errors.Reset(), Again(0.025, elsewhere=False)),
        (status(429), Again(0.025, elsewhere=False)),
        (status(503, 2.0), Again(2.0, elsewhere=False)),
        (status(429, 0.0), Again(0.0, elsewhere=False)),
        (status(429, 2.1), None),
        (errors.KeyRejected(), None),
    ],
)
def test_without_another_upstream_the_same_is_tried_after_a_wait(fault: errors.Fault, expected: Again | None) -> None:
    """Retry-After is waited for up to 2 s; a refused key stays refused."""
    assert ask(fault, others=False) == expected


def test_waits_grow_to_a_second() -> None:
    """Full jitter below a ceiling that doubles from 50 ms to 1 s."""
    settings = RetrySettings(attempts=99)
    again = [ask(errors.Reset(), others=False, made=made, jitter=0.999, settings=settings) for made in (1, 2, 5, 6, 50)]
    waits = [found.delay for found in again if found]
    assert waits == pytest.approx([0.04995, 0.0999, 0.7992, 0.999, 0.999])
    assert ask(errors.Reset(), others=False, jitter=0.0) == Again(0.0, elsewhere=False)


def test_tries_and_time_are_bounded() -> None:
    """Two more tries after the first, and none that would begin after the deadline."""
    assert ask(errors.Reset(), made=2) == ELSEWHERE
    assert ask(errors.Reset(), made=3) is None
    assert ask(errors.Reset(), elapsed=179.0) == ELSEWHERE
    assert ask(errors.Reset(), elapsed=180.0) is None
    assert ask(status(429, 1.5), others=False, elapsed=178.6) is None
    assert ask(errors.Reset(), settings=RetrySettings(attempts=0)) is None


def test_the_budget_is_shared_and_slides() -> None:
    """5 a second over 10 s are free, then a fifth of the requests; after 10 s it is fresh."""
    budget = RetryBudget(SETTINGS)
    assert sum(budget.take(0.5) for _ in range(100)) == 50
    for _ in range(10):
        budget.note(3.0)
    assert [budget.take(3.0) for _ in range(3)] == [True, True, False]
    assert not budget.take(9.9)
    assert budget.take(10.1)


def test_a_storm_gets_at_most_its_share() -> None:
    """When everything fails, all tries together stay near 1.2 times the requests."""
    settings = RetrySettings(budget_min_per_s=0.0)
    budget, tries = RetryBudget(settings), 0
    for request in range(5000):
        budget.note(request / 100)
        tries += 1
        for made in (1, 2):
            if ask(status(503), made=made, settings=settings, budget=budget, now=request / 100) is None:
                break
            tries += 1
    assert tries <= 5000 * 1.25


def test_what_is_refused_anyway_costs_no_budget() -> None:
    """Only tries that are made are counted."""
    budget = RetryBudget(RetrySettings(budget=0.0, budget_min_per_s=0.1))
    assert ask(status(400), budget=budget) is None
    assert ask(errors.Reset(), elapsed=500.0, budget=budget) is None
    assert ask(errors.Reset(), budget=budget) == ELSEWHERE
    assert ask(errors.Reset(), budget=budget) is None


NOW = 1_000_000_000.0  # Sun, 09 Sep 2001 01:46:40 GMT


@pytest.mark.parametrize(
    "headers, expected",
    [
        ([], None),
        ([(b"retry-after", b"3")], 3.0),
        ([(b"retry-after", b" 1.5 ")], 1.5),
        ([(b"retry-after-ms", b"250"), (b"retry-after", b"3")], 0.25),
        ([(b"retry-after-ms", b"soon"), (b"retry-after", b"3")], 3.0),
        ([(b"retry-after", b"Sun, 09 Sep 2001 01:46:50 GMT")], 10.0),
        ([(b"retry-after", b"Sun, 09 Sep 2001 01:46:50 -0000")], 10.0),
        ([(b"retry-after", b"Sun, 09 Sep 2001 01:46:00 GMT")], 0.0),
        ([(b"retry-after", b"-3")], None),
        ([(b"retry-after", b"nan")], None),
        ([(b"retry-after", b"1e999")], None),
        ([(b"retry-after", b"")], None),
        ([(b"retry-after", b"Sun, 99 Sep 2001 01:46:50 GMT")], None),
        ([(b"retry-after", b"\xff\xfe")], None),
        ([(b"x-retry", b"3")], None),
    ],
)
def test_retry_after_is_read(headers: list[tuple[bytes, bytes]], expected: float | None) -> None:
    """Milliseconds before seconds before a date; nonsense is nothing."""
    assert retry_after(headers, NOW) == expected
