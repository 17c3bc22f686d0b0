"""examples/long_job.py"""

from __future__ import annotations

import contextlib
import json

import httpx
import pytest
from httpx_sse import connect_sse


def start(client, numbers):
    answer = client.post("/jobs", json={"numbers": numbers})
    assert answer.status_code == 202
    return answer.json()["events"]


def told(event):
    return event.event, json.loads(event.data)


def watched(client, path):
    with connect_sse(client, "GET", path) as source:
        return [told(event) for event in source.iter_sse()]


def test_progress_then_the_result(running):
    """Percent never falls, the result is the last event, and the stream ends with it."""
    with running("long_job", INTERVAL="0.05") as url, httpx.Client(base_url=url, timeout=10) as client:
        *progress, result = watched(client, start(client, [1, 2, 4, 8]))
    assert result == ("result", {"sum": 1.875})
    assert {name for name, _ in progress} == {"progress"}
    percents = [state["percent"] for _, state in progress]
    assert percents == sorted(set(percents))
    assert set(percents) <= {0, 25, 50, 75, 100}


def test_several_watch_and_one_comes_late(running):
    """Who comes late is told at once where the job is, and all are told the result."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(running("long_job", INTERVAL="0.02"))
        client = stack.enter_context(httpx.Client(base_url=url, timeout=10))
        path = start(client, [1] * 100)
        early = stack.enter_context(connect_sse(client, "GET", path)).iter_sse()
        second = stack.enter_context(connect_sse(client, "GET", path)).iter_sse()
        reached = next(state["percent"] for _, state in map(told, early) if state["percent"] >= 10)
        late = stack.enter_context(connect_sse(client, "GET", path)).iter_sse()
        name, state = told(next(late))
        assert (name, state["percent"] >= reached) == ("progress", True)
        for watcher in (early, second, late):
            *_, last = watcher
            assert told(last) == ("result", {"sum": 100.0})


def test_who_comes_after_the_end_gets_the_result(running):
    """A finished job has one event to tell; a browser that comes back with its id is told not to (204)."""
    with running("long_job", INTERVAL="0") as url, httpx.Client(base_url=url, timeout=10) as client:
        path = start(client, [2])
        for _ in range(2):
            with connect_sse(client, "GET", path) as source:
                *_, last = source.iter_sse()
            assert (told(last), last.id) == (("result", {"sum": 0.5}), "last")
        assert client.get(path, headers={"last-event-id": "last"}).status_code == 204


def test_a_job_that_fails_says_so(running):
    """The failure is an event of its own, and the last one; the server goes on."""
    with running("long_job", INTERVAL="0") as url, httpx.Client(base_url=url, timeout=10) as client:
        for _ in range(2):
            assert watched(client, start(client, [1, 0]))[-1] == ("failure", {"error": "division by zero"})


def test_a_job_goes_on_without_watchers(running):
    """It belongs to the application: all watchers leave, and it is finished all the same."""
    with running("long_job", INTERVAL="0.03") as url, httpx.Client(base_url=url, timeout=10) as client:
        path = start(client, [1] * 50)
        with connect_sse(client, "GET", path) as source:
            assert told(next(source.iter_sse()))[0] == "progress"
        assert watched(client, path)[-1] == ("result", {"sum": 50.0})


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"numbers": []}', b'{"numbers": ["1"]}', b'{"numbers": 3}'])
def test_what_is_no_job_is_refused(running, body):
    """A body without a list of integers gets a 400; a job nobody started a 404."""
    with running("long_job") as url:
        assert httpx.post(f"{url}/jobs", content=body).status_code == 400
        assert httpx.get(f"{url}/jobs/none/events").status_code == 404


def test_the_shutdown_ends_jobs_and_watchers(running):
    """A job that has hours to go does not hold up the server's shutdown."""
    with httpx.Client(timeout=10) as client, running("long_job", INTERVAL="3600") as url:
        path = client.post(f"{url}/jobs", json={"numbers": [1]}).json()["events"]
        response = client.send(client.build_request("GET", url + path), stream=True)
        chunks = response.iter_raw()  # held: httpx closes the connection when nobody holds it
        assert next(chunks).startswith(b"event: progress")
