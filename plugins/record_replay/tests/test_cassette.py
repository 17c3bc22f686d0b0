"""Cassettes: what they keep, what tells requests apart, what is not one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from streamgate_record_replay import RecordReplaySettings
from streamgate_record_replay.cassette import BadCassette, Cassette, Recorded, asked_of, key_of, read, written
from streamgate_record_replay.pace import played
from streamgate_record_replay.shelf import Shelf

from streamgate.hooks import ServerSentEvent

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(categories=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
TEXT = st.none() | st.text(st.characters(categories=None))
EVENTS = st.builds(
    Recorded,
    st.integers(0, 10**9).map(lambda micros: micros / 10**6),
    TEXT,
    TEXT,
    TEXT,
    st.none() | st.integers(0, 10**6),
)


@given(body=st.dictionaries(st.text(max_size=5), JSON, max_size=3), events=st.lists(EVENTS, max_size=5))
def test_a_cassette_reads_as_it_was_written(body: dict[str, Any], events: list[Recorded]):
    """Any text, halves of characters and line ends of any kind among it."""
    asked = asked_of("POST", "/v1/x", body, [])
    cassette = Cassette(key=key_of(asked), asked=asked, at="now", status=201, headers={"a": "b"}, events=events)
    assert read(written(cassette)) == cassette
    assert written(cassette).count(b"\n") == len(events) + 2


@given(body=st.dictionaries(st.text(max_size=5), JSON, min_size=1, max_size=5), more=JSON)
def test_requests_are_told_apart_by_what_they_say_in_whatever_order(body: dict[str, Any], more: Any):
    """Not by fields that are ignored; by method and path, too."""
    key = key_of(asked_of("POST", "/x", body, []))
    assert key == key_of(asked_of("POST", "/x", dict(reversed(body.items())), []))
    assert key == key_of(asked_of("POST", "/x", body | {"_volatile": more}, ["_volatile"]))
    assert key != key_of(asked_of("POST", "/x", body | {"_other": more}, ["_volatile"]))
    assert key != key_of(asked_of("POST", "/y", body, []))
    assert key != key_of(asked_of("PUT", "/x", body, []))


HEAD = b'{"cassette":1,"key":"k","at":"","request":{},"status":200,"headers":{}}\n'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no end"),
        (HEAD, "no end"),
        (HEAD + b'{"t":0,"data":"x"}\n', "no end"),
        (HEAD + b'{"end":1}\n', "no end"),
        (HEAD + b'{"t":0,"da', "line 2 is not an object"),
        (HEAD + b"[]\n" + b'{"end":1}\n', "line 2 is not an object"),
        (HEAD + b'{"t":-1}\n' + b'{"end":1}\n', "line 2 is not an event"),
        (HEAD + b'{"data":"x"}\n' + b'{"end":1}\n', "line 2 is not an event"),
        (HEAD + b'{"t":true}\n' + b'{"end":1}\n', "line 2 is not an event"),
        (HEAD + b'{"t":0,"data":5}\n' + b'{"end":1}\n', "line 2 is not an event"),
        (HEAD + b'{"t":0,"retry":-1}\n' + b'{"end":1}\n', "line 2 is not an event"),
        (HEAD.replace(b'1,"key"', b'2,"key"') + b'{"end":0}\n', "not a cassette of version 1"),
        (HEAD.replace(b'"key":"k",', b"") + b'{"end":0}\n', "line 1 is not a head"),
        (HEAD.replace(b'"headers":{}', b'"headers":[]') + b'{"end":0}\n', "line 1 is not a head"),
        (HEAD.replace(b"200", b'"ok"') + b'{"end":0}\n', "line 1 is not a head"),
    ],
)
def test_what_is_not_a_whole_cassette_is_not_read(content: bytes, said: str):
    """A file cut short, another program's, one that was edited wrongly."""
    with pytest.raises(BadCassette, match=said):
        read(content)


def test_a_cassette_is_put_there_whole_or_not_at_all(tmp_path: Path):
    """And what cannot be written leaves no part behind."""
    shelf = Shelf(str(tmp_path / "a" / "b"))
    shelf.make()
    assert shelf.find("k") is None
    good = Cassette(key="k", asked={}, events=[Recorded(0.0, "x")])
    shelf.put(good)
    shelf.put(good)
    assert shelf.find("k") == good
    with pytest.raises(TypeError):
        shelf.put(Cassette(key="k", asked={"x": object()}))
    assert [each.name for each in (tmp_path / "a" / "b").iterdir()] == ["k.jsonl"]
    (tmp_path / "a" / "b" / "k.jsonl").rename(tmp_path / "a" / "b" / "other.jsonl")
    with pytest.raises(BadCassette, match="its key is not its name"):
        shelf.find("other")


@pytest.mark.anyio
@pytest.mark.parametrize(("speed", "waits"), [(1.0, [1.0, 0.5, 2.5]), (2.0, [0.5, 0.25, 1.25])])
async def test_events_are_played_at_their_times_and_delays_do_not_add_up(speed: float, waits: list[float]):
    """Two of one moment without a pause; what is late is not made later."""
    clock = [100.0]
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)
        clock[0] += seconds

    cassette = Cassette(key="k", asked={}, events=[Recorded(at, str(at)) for at in (1.0, 1.5, 1.5, 4.0)])
    texts = [event.data async for event in played(cassette, speed, lambda: clock[0], wait)]
    assert texts == ["1.0", "1.5", "1.5", "4.0"] and waited == waits


def test_an_event_is_kept_with_all_its_fields():
    """As the client reads them."""
    event = ServerSentEvent("a\nb", event="delta", id="7", retry=100)
    assert Recorded.of(0.5, event).played().encode() == event.encode()


@pytest.mark.parametrize(
    ("settings", "where", "said"),
    [
        ({}, ("directory",), "Field required"),
        ({"directory": "d", "mode": "play"}, ("mode",), "'record', 'replay' or 'auto'"),
        ({"directory": "d", "speed": -1}, ("speed",), "greater"),
        ({"directory": "d", "headers": ["Set-Cookie"]}, ("headers", 0), "holds no secret"),
        ({"directory": "d", "headers": ["x-api-key"]}, ("headers", 0), "holds no secret"),
        ({"directory": "d", "headers": ["x y"]}, ("headers", 0), "the name of a header"),
        ({"directory": "d", "dir": "d"}, ("dir",), "Extra inputs"),
    ],
)
def test_a_mistake_in_the_settings_is_named_with_its_key(settings: dict[str, Any], where: tuple[str, ...], said: str):
    """Each error has the key's path and says what was expected."""
    with pytest.raises(ValidationError) as raised:
        RecordReplaySettings.model_validate(settings)
    assert raised.value.errors()[0]["loc"] == where
    assert said in raised.value.errors()[0]["msg"]
