"""The example custom_protocol, read with its own client and without."""

from __future__ import annotations

import importlib.util
import json
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from streamgate.sse import aiter_events, iter_events

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"  # the event loop that matters is the example's


@pytest.fixture(scope="module")
def protocol():
    """The example as a module: its client, and its numbers."""
    path = Path(__file__).parents[2] / "examples" / "custom_protocol.py"
    spec = importlib.util.spec_from_file_location("custom_protocol", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def client(running):
    with running("custom_protocol") as url:
        async with httpx.AsyncClient(base_url=url) as client:
            yield client


async def ask(client, words):
    response = await client.post("/answers", json={"words": words})
    assert response.status_code == 201
    return response.json()["id"]


async def acknowledged(client, name, number):
    return (await client.post(f"/answers/{name}/ack", json={"ack": number})).status_code


async def test_the_client_gets_every_message_once_in_order(client, protocol):
    """`start`, each `delta`, `end`, numbered without a gap, though only sixteen may wait at a time."""
    messages = [message async for message in protocol.read(client, await ask(client, 100))]
    assert [message["seq"] for message in messages] == list(range(1, 103))
    assert [message["type"] for message in messages] == ["start"] + ["delta"] * 100 + ["end"]
    assert messages[57]["text"] == "word 56"


async def test_a_reader_that_was_cut_off_goes_on_where_it_was(client, protocol):
    """What one reader has, the next does not get again, and it misses nothing."""
    name = await ask(client, 30)
    seen = []
    for _ in range(3):
        async with aclosing(protocol.read(client, name, len(seen))) as messages:
            async for message in messages:
                seen.append(message["seq"])
                if len(seen) % 12 == 0:
                    break
    assert seen == list(range(1, 33))


async def test_no_more_is_made_than_may_wait(client, protocol):
    """Sixteen messages come without an acknowledgement; acknowledging four brings four more."""
    name = await ask(client, 100)
    async with (
        client.stream("POST", f"/answers/{name}", json={"ack": 0}) as response,
        aclosing(aiter_events(response.aiter_bytes())) as events,
    ):
        assert [(await anext(events)).id for _ in range(protocol.WINDOW)] == [str(n) for n in range(1, 17)]
        assert await acknowledged(client, name, 17) == 409
        assert await acknowledged(client, name, 4) == 204
        assert [(await anext(events)).id for _ in range(4)] == ["17", "18", "19", "20"]
        assert await acknowledged(client, name, 21) == 409


async def test_a_message_says_what_it_is(client):
    """Type and number are the event's own name and id as well, so that other clients need not look inside."""
    name = await ask(client, 1)
    response = await client.post(f"/answers/{name}", json={"ack": 0})
    events = list(iter_events([response.content]))
    assert [(event.event, event.id) for event in events] == [("start", "1"), ("delta", "2"), ("end", "3")]
    assert json.loads(events[1].data) == {"seq": 2, "type": "delta", "text": "word 0"}


async def test_an_answer_that_fails_ends_with_an_error(client, protocol):
    """`error` is a last message as `end` is, with a code; what was said before stays good."""
    name = await ask(client, protocol.LONGEST + 1)
    messages = [message async for message in protocol.read(client, name)]
    assert messages[-1] == {"seq": 1002, "type": "error", "code": "too_long"}
    assert {message["type"] for message in messages[1:-1]} == {"delta"}


async def test_what_was_acknowledged_cannot_be_had_again(client, protocol):
    """A number that is forgotten, or not there yet, is refused with 409, before any stream."""
    name = await ask(client, 5)
    assert await acknowledged(client, name, 3) == 204
    for number in (2, 8):
        response = await client.post(f"/answers/{name}", json={"ack": number})
        assert (response.status_code, response.json()) == (409, {"detail": "from 3 to 7"})
    with pytest.raises(httpx.HTTPStatusError):
        await anext(protocol.read(client, name, seen=2))


async def test_an_answer_is_forgotten_when_all_is_acknowledged(client, protocol):
    """Its id means nothing any more: 404. A reader that is still there comes to a clean end."""
    name = await ask(client, 3)
    assert len([message async for message in protocol.read(client, name)]) == 5
    assert await acknowledged(client, name, 5) == 404


async def test_what_is_no_number_is_refused(client):
    """422, from the framework."""
    name = await ask(client, 3)
    for number in (-1, "x", None):
        assert (await client.post(f"/answers/{name}", json={"ack": number})).status_code == 422
