"""The plugin, through real streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from streamgate_record_replay import RecordReplay

from streamgate.hooks import Headers, Request
from streamgate.testing import Delta, PluginHarness, Received

pytestmark = pytest.mark.anyio
ASKED = {"messages": [{"role": "user", "content": "hello"}]}


def harness(path: Path, mode: str, **settings: Any) -> PluginHarness:
    return PluginHarness(RecordReplay, {"directory": str(path), "mode": mode, "speed": 0, **settings})


async def recorded(path: Path, **settings: Any) -> Received:
    """A stream, and its cassette in the folder."""
    async with harness(path, "record", **settings) as gateway:
        got = await gateway.stream(["Hel", "lo", Delta("hm", kind="reasoning"), "\ud83d", "\ude00"], json=ASKED)
        assert gateway.metric("recorded_total") == 1 and gateway.failures == []
    return got


def cassettes(path: Path) -> list[list[dict[str, Any]]]:
    return [[json.loads(line) for line in each.read_text().splitlines()] for each in sorted(path.iterdir())]


async def test_a_recorded_stream_is_replayed_without_an_upstream(tmp_path: Path):
    """The same events, from the first to the terminator; the stream counts as completed."""
    first = await recorded(tmp_path)
    async with harness(tmp_path, "replay") as gateway:
        again = await gateway.stream(["never said"], json=ASKED | {"user": "another"})
        assert gateway.metric("replayed_total") == 1 and gateway.failures == []
    assert [event.data for event in again.events] == [event.data for event in first.events]
    assert again.events[-1].data == "[DONE]"
    assert (again.outcome, again.status, again.upstream_request, again.text) == ("completed", 200, None, "Hello😀")
    assert again.headers["content-type"] == first.headers["content-type"]


async def test_a_replay_keeps_the_recorded_pace(tmp_path: Path):
    """At 1000 times the speed here; the times in the file are those of the recording."""
    await recorded(tmp_path)
    (lines,) = cassettes(tmp_path)
    times = [line["t"] for line in lines[1:-1]]
    assert times == sorted(times) and lines[-1] == {"end": len(times)}
    async with harness(tmp_path, "replay", speed=1000) as gateway:
        with anyio.fail_after(5):
            assert (await gateway.stream([], json=ASKED)).text == "Hello😀"


async def test_no_header_of_a_request_is_written_and_of_the_response_only_what_is_listed(tmp_path: Path):
    """Cassettes are passed around: keys and cookies have no place in them."""
    async with harness(tmp_path, "record", headers=["Content-Type", "X-Other"]) as gateway:
        await gateway.stream(
            ["x"], headers={"authorization": "Bearer sesame", "cookie": "sesame"}, json={"user": "mallory"}
        )
    ((head, *_),) = cassettes(tmp_path)
    assert set(head["headers"]) == {"content-type"}
    assert head["request"] == {
        "method": "POST", "path": "/v1/chat/completions", "body": {"model": "m", "stream": True, "messages": []},
    }  # fmt: skip
    assert "sesame" not in json.dumps(cassettes(tmp_path)) and "mallory" not in json.dumps(cassettes(tmp_path))


async def test_auto_asks_an_upstream_once_and_replays_from_then_on(tmp_path: Path):
    """Requests that differ are others."""
    async with harness(tmp_path, "auto") as gateway:
        assert (await gateway.stream(["first"], json=ASKED)).text == "first"
        assert (await gateway.stream(["second"], json=ASKED)).text == "first"
        assert (await gateway.stream(["third"], json=ASKED | {"temperature": 0})).text == "third"
        assert (gateway.metric("recorded_total"), gateway.metric("replayed_total")) == (2, 1)


async def test_record_replaces_what_was_there(tmp_path: Path):
    """The last completed stream is the cassette."""
    async with harness(tmp_path, "record") as gateway:
        for text in ("first", "second"):
            await gateway.stream([text], json=ASKED)
    async with harness(tmp_path, "replay") as gateway:
        assert (await gateway.stream([], json=ASKED)).text == "second"


@pytest.mark.parametrize(("settings", "ends"), [({}, False), ({"max_size": 10}, True)])
async def test_a_stream_that_broke_off_or_is_too_long_is_not_kept(tmp_path: Path, settings: dict[str, int], ends: bool):
    """It reaches the client all the same."""
    async with harness(tmp_path, "record", **settings) as gateway:
        got = await gateway.stream(["x" * 20, "y"], json=ASKED, ends=ends)
        assert got.text == "x" * 20 + "y"
        assert gateway.metric("discarded_total") == 1
    assert cassettes(tmp_path) == []


async def test_without_a_cassette_a_replay_refuses_or_passes(tmp_path: Path):
    """A test should notice that it would have asked an upstream."""
    async with harness(tmp_path, "replay") as gateway:
        got = await gateway.stream(["x"], json=ASKED)
        assert (got.status, got.code) == (404, "no_cassette")
        whole = await gateway.answer("x", json=ASKED)
        assert (whole.status, whole.code) == (404, "not_a_stream")
        assert gateway.metric("missing_total") == 2
    async with harness(tmp_path, "replay", missing="pass") as gateway:
        assert (await gateway.stream(["x"], json=ASKED)).text == "x"
        assert (await gateway.answer("x", json=ASKED)).json["choices"][0]["message"]["content"] == "x"
    assert cassettes(tmp_path) == []


async def test_whole_answers_and_bodies_that_are_not_json_pass_unrecorded(tmp_path: Path):
    """Only streams are kept; a GET is never refused."""
    async with harness(tmp_path, "auto") as gateway:
        await gateway.answer("x", json=ASKED)
    async with harness(tmp_path, "replay") as gateway:
        models = Request(method="GET", path="/v1/models", model="", stream=False, headers=Headers())
        assert await gateway.plugin.on_request(models, None) is None
    assert cassettes(tmp_path) == []


async def test_a_cassette_that_cannot_be_read_refuses_a_replay_and_is_recorded_anew_by_auto(tmp_path: Path):
    """The message says which, and what is wrong with it."""
    await recorded(tmp_path)
    spoil(tmp_path)
    async with harness(tmp_path, "replay") as gateway:
        got = await gateway.stream(["x"], json=ASKED)
        assert (got.status, got.code) == (500, "bad_cassette") and "it has no end" in got.json["error"]["message"]
    async with harness(tmp_path, "auto") as gateway:
        assert (await gateway.stream(["new"], json=ASKED)).text == "new"
        assert (await gateway.stream(["x"], json=ASKED)).text == "new"
        assert gateway.metric("bad_cassettes_total") == 1
        assert gateway.log.lines[0][1] == "bad_cassette"


def spoil(path: Path) -> None:
    for each in path.iterdir():
        each.write_bytes(b"".join(each.read_bytes().splitlines(keepends=True)[:-1]))


def lost(path: Path) -> None:
    for each in path.iterdir():
        each.unlink()
        each.mkdir()


async def test_a_file_that_the_disk_does_not_give_is_a_bad_cassette(tmp_path: Path):
    """Not a failure of the plugin."""
    await recorded(tmp_path)
    lost(tmp_path)
    async with harness(tmp_path, "replay") as gateway:
        got = await gateway.stream(["x"], json=ASKED)
        assert "IsADirectoryError" in got.json["error"]["message"] and gateway.failures == []
