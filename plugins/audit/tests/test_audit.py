"""The plugin, through real streams."""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from streamgate_audit import Audit

from streamgate.hooks import hooks_of
from streamgate.testing import Delta, PluginHarness

pytestmark = pytest.mark.anyio
SAID = b'data: {"choices":[],"usage":{"prompt_tokens":6,"completion_tokens":3,"total_tokens":9}}\n\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def text(path: Path) -> str:
    return path.read_text()


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


async def test_a_stream_is_one_line_with_who_what_and_how_it_ended(path: Path):
    """And not a word of what was said."""
    async with PluginHarness(Audit, {"file": str(path), "fsync": "batch"}) as gateway:
        got = await gateway.stream(["se", "same", SAID], tenant="acme", json={"messages": ["open"]})
        await gateway.stream(["half"], ends=False)
    assert got.text == "sesame" and gateway.failures == []
    assert gateway.metric("lines_total") == 2
    assert "sesame" not in text(path) and "open" not in text(path)
    line, broken = lines(path)
    assert (line["kind"], line["tenant"], line["model"], line["upstream"]) == ("request", "acme", "m", "first")
    assert (line["outcome"], line["status"], line["finish_reason"], line["attempts"]) == ("completed", 200, "stop", 1)
    assert line["usage"] == {"input": 6, "output": 3, "cached_input": 0, "cache_write": 0, "reasoning": 0}
    assert line["duration"] >= line["first_token"] >= 0 and line["id"] == got.ended.id
    assert "reason" not in line and "request" not in line
    assert broken["outcome"] == "truncated" and broken["code"] == "upstream_truncated"


async def test_without_content_streams_pass_untouched(path: Path):
    """A text hook would cost each of them."""
    async with PluginHarness(Audit, {"file": str(path)}) as gateway:
        assert hooks_of(type(gateway.plugin)) == ("startup", "on_end", "shutdown")


async def test_plain_content_is_cut_and_leaves_the_stream_as_it_is(path: Path):
    """Each choice and kind for itself; the request as its body."""
    settings = {"file": str(path), "content": "plain", "content_limit": 12}
    script = ["Hello, ", Delta("hm", kind="reasoning"), Delta("Hi", choice=1), "this is all.\u2028"]
    async with PluginHarness(Audit, settings) as gateway:
        got = await gateway.stream(script, json={"messages": [], "n": 2})
        whole = await gateway.answer("Hello, you there.")
    assert got.texts() == {0: "Hello, this is all.\u2028", 1: "Hi"} and whole.ended.outcome == "completed"
    streamed, answered = lines(path)
    assert streamed["answer"] == [
        {"choice": 0, "kind": "content", "text": "Hello, this ", "chars": 20, "cut": True},
        {"choice": 0, "kind": "reasoning", "text": "hm", "chars": 2},
        {"choice": 1, "kind": "content", "text": "Hi", "chars": 2},
    ]
    assert streamed["request"]["text"] == '{"model":"m"' and streamed["request"]["cut"]
    assert answered["answer"][0]["text"] == "Hello, you t"


async def test_hashed_content_can_be_checked_by_who_has_the_salt_and_says_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The same text has the same hash, however it was split."""
    monkeypatch.setenv("AUDIT_SALT", "0123456789abcdef")
    settings = {"file": str(path), "content": "hash", "salt": "${AUDIT_SALT}"}
    async with PluginHarness(Audit, settings) as gateway:
        for script in (["se", "same"], ["ses", "ame"]):
            got = await gateway.stream(script)
    one, other = lines(path)
    assert one["answer"] == other["answer"]
    assert one["answer"][0]["hmac_sha256"] == hmac.digest(b"0123456789abcdef", b"sesame", "sha256").hex()
    body = got.request.body
    assert one["request"] == {
        "hmac_sha256": hmac.digest(b"0123456789abcdef", body, "sha256").hex(),
        "bytes": len(body),
    }
    assert "sesame" not in text(path)


async def test_a_request_without_a_body_has_no_content(path: Path):
    """Such as one that was refused before it was read."""
    async with PluginHarness(Audit, {"file": str(path), "content": "plain"}) as gateway:
        got = await gateway.stream([])
        got.ended.stream.request = None
        got.ended.stream.state = None
        gateway.plugin.on_end(got.ended)
    first, second = lines(path)
    assert "request" in first and "request" not in second and "answer" not in second


async def test_a_full_queue_drops_lines_and_tells_once(path: Path):
    """Never a stream: the log has one line for each time, the metric each one."""
    settings = {"file": str(path), "content": "plain", "queue_bytes": 1}
    async with PluginHarness(Audit, settings) as gateway:
        for _ in range(3):
            assert (await gateway.stream(["x"])).outcome == "completed"
    assert gateway.metric("dropped_total") == 3
    assert [line[1] for line in gateway.log.lines] == ["audit_queue_full"]
    assert sum(line["count"] for line in lines(path)) == 3


async def test_lines_that_cannot_be_written_are_told_and_counted(path: Path):
    """The gateway goes on; at the end it says how many are lost."""
    async with PluginHarness(Audit, {"file": str(path)}) as gateway:
        become_folder(path)
        await gateway.stream(["x"])
    assert gateway.log.lines[-1] == ("error", "audit_lines_lost", {"lines": 1})


async def test_trouble_is_logged_when_it_begins_and_again_when_it_comes_back(path: Path):
    """Not for every write."""
    async with PluginHarness(Audit, {"file": str(path)}) as gateway:
        for why in ("a", "a", "", "b"):
            gateway.plugin._told(why)
    assert gateway.metric("write_errors_total") == 3
    assert [line[2] for line in gateway.log.lines] == [{"why": "a"}, {"why": "b"}]
