"""The example circuit_breaker: closed, open, half-open, and what clients get in each state."""

from __future__ import annotations

import anyio
import httpx
import pytest
from httpx_sse import connect_sse


@pytest.fixture
def anyio_backend():
    return "asyncio"  # the event loop that matters is the example's


class Service:
    def __init__(self, url, client):
        self.url = url
        self.client = client

    def upstream_is(self, mood):
        assert self.client.put(f"/upstream/{mood}").status_code == 204

    def status(self):
        return self.client.get("/answer").status_code

    def breaker(self):
        return self.client.get("/breaker").json()

    def break_it(self):
        self.upstream_is("down")
        assert [self.status() for _ in range(3)] == [502, 502, 502]


@pytest.fixture
def slow_to_forgive(running):
    """Its breaker, once open, stays so for longer than a test takes."""
    with running("circuit_breaker", COOLDOWN="60") as url, httpx.Client(base_url=url) as client:
        yield Service(url, client)


@pytest.fixture
def forgiving(running):
    """Its breaker is open for a moment only."""
    with running("circuit_breaker", COOLDOWN="0.05") as url, httpx.Client(base_url=url) as client:
        yield Service(url, client)


def words(service):
    with connect_sse(service.client, "GET", "/answer") as source:
        return [(event.event, event.data) for event in source.iter_sse()]


def test_a_failure_before_the_first_event_is_a_status(slow_to_forgive):
    """502 with a body of its own, not a 200 that breaks off."""
    slow_to_forgive.upstream_is("down")
    response = slow_to_forgive.client.get("/answer")
    assert (response.status_code, response.text) == (502, "the upstream failed")
    assert "event-stream" not in response.headers["content-type"]


def test_a_failure_after_the_first_event_is_an_event(slow_to_forgive):
    """What was sent stays good; `trouble` says that the rest is missing."""
    slow_to_forgive.upstream_is("breaking")
    assert words(slow_to_forgive) == [("message", "all"), ("message", "is"), ("trouble", "upstream_failed")]


def test_three_failures_in_a_row_open_it(slow_to_forgive):
    """Then everybody is refused at once, with the seconds to wait, though the upstream is well again."""
    slow_to_forgive.break_it()
    slow_to_forgive.upstream_is("up")
    refused = slow_to_forgive.client.get("/answer")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "60")
    assert slow_to_forgive.breaker() == {"state": "open", "failures": 3}


@pytest.mark.parametrize("mood", ["down", "breaking"])
def test_a_success_starts_the_count_anew(slow_to_forgive, mood):
    """Two failures, a whole answer, two failures: still closed. A third: open; late failures count as early ones do."""
    for round_of_two in range(2):
        slow_to_forgive.upstream_is(mood)
        slow_to_forgive.status(), slow_to_forgive.status()
        assert slow_to_forgive.breaker() == {"state": "closed", "failures": 2}, round_of_two
        if round_of_two == 0:
            slow_to_forgive.upstream_is("up")
            assert [word for _, word in words(slow_to_forgive)] == ["all", "is", "well"]
    slow_to_forgive.upstream_is(mood)
    slow_to_forgive.status()
    assert slow_to_forgive.status() == 503


@pytest.mark.anyio
async def test_the_trial_closes_it_when_it_works(forgiving, until):
    """After the cooldown one request goes through; its answer makes everything as it was."""
    forgiving.break_it()
    forgiving.upstream_is("up")
    await until(lambda: forgiving.status() == 200)
    assert forgiving.breaker() == {"state": "closed", "failures": 0}


@pytest.mark.anyio
async def test_the_trial_opens_it_again_when_it_fails(forgiving, until):
    """One failure is enough then, and it is open for another cooldown."""
    forgiving.break_it()
    await until(lambda: forgiving.status() == 502)
    assert forgiving.breaker() == {"state": "open", "failures": 4}


@pytest.mark.anyio
async def test_only_one_tries(forgiving, until):
    """While the trial waits for the upstream, the others are refused; when its client leaves, the next one tries."""
    forgiving.break_it()
    forgiving.upstream_is("hanging")

    async def ask_until_let_in():
        async with httpx.AsyncClient(base_url=forgiving.url, timeout=None) as client:
            while (await client.get("/answer")).status_code == 503:
                pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask_until_let_in)
        await until(lambda: forgiving.breaker()["state"] == "half-open")
        refused = [forgiving.client.get("/answer") for _ in range(2)]
        assert [(one.status_code, one.headers["retry-after"]) for one in refused] == [(503, "1")] * 2
        tasks.cancel_scope.cancel()
    forgiving.upstream_is("up")
    await until(lambda: forgiving.status() == 200)
    assert forgiving.breaker() == {"state": "closed", "failures": 0}
