"""A stream is stopped on the word of a classifier, which is a real server here."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from streamgate_guard import ClassifierGuard
from streamgate_guard.classifier import flagged

from streamgate.testing import Delta, PluginHarness

pytestmark = pytest.mark.anyio

SMALL = {"window": 16, "overlap": 4}


@pytest.mark.parametrize("mode", ["block", "watch"])
async def test_text_that_is_passed_arrives_whole(classifier: Any, mode: str):
    """In windows that overlap, the same in both modes."""
    async with PluginHarness(ClassifierGuard, SMALL | {"url": classifier.url, "mode": mode}) as gateway:
        received = await gateway.stream(["one two th", "ree four five", " six", " seven"])
        assert received.text == "one two three four five six seven"
        assert received.outcome == "completed"
        assert gateway.metric("checks_total", verdict="passed") == len(classifier.asked) == 3
        assert gateway.failures == []


async def test_windows_are_what_is_sent(classifier: Any):
    """Twelve new characters each, after four that were there before."""
    async with PluginHarness(ClassifierGuard, SMALL | {"url": classifier.url}) as gateway:
        await gateway.stream(["abcdefghij", "klmnopqrstuvwxyz", "ABCDEF"])
    assert sorted(classifier.texts) == ["abcdefghijkl", "ijklmnopqrstuvwx", "uvwxyzABCDEF"]


async def test_nothing_that_is_flagged_leaves_while_it_blocks(classifier: Any):
    """The windows before it do; then the error event."""
    async with PluginHarness(ClassifierGuard, SMALL | {"url": classifier.url, "message": "No."}) as gateway:
        received = await gateway.stream(["all is well ", "and then bad", " things and more and more"])
        assert received.text == "all is well "
        assert (received.outcome, received.code, received.message) == ("plugin_abort", "guard", "No.")
        assert gateway.metric("stopped_total", verdict="flagged") == 1


async def test_text_flows_while_it_watches_and_the_end_waits_for_the_verdict(classifier: Any):
    """The verdict comes after all of the text, and still the stream does not end well."""
    release = asyncio.Event()

    async def late(question: dict[str, Any]) -> tuple[int, Any]:
        await release.wait()
        return 200, {"flagged": True}

    classifier.answer = late
    async with PluginHarness(ClassifierGuard, {"url": classifier.url, "mode": "watch"}) as gateway:
        async with asyncio.TaskGroup() as tasks:
            streaming = tasks.create_task(gateway.stream(["some bad ", "words"]))
            async with asyncio.timeout(5):
                await classifier.arrived.wait()
            assert not streaming.done()
            release.set()
        received = streaming.result()
        assert received.text == "some bad word"
        assert (received.outcome, received.code) == ("plugin_abort", "guard")


async def test_a_verdict_stops_a_stream_that_goes_on(classifier: Any):
    """While it watches: at the next text after the verdict."""
    given = SMALL | {"url": classifier.url, "mode": "watch"}
    async with PluginHarness(ClassifierGuard, given, fail="closed") as gateway:
        received = await gateway.stream(["bad " * 3, *["more words to come "] * 2_000])
        assert received.outcome == "plugin_abort"
        assert received.text.startswith("bad bad bad more")
        assert len(received.text) < 2_000 * 19


@pytest.mark.parametrize("mode", ["block", "watch"])
@pytest.mark.parametrize(("on_timeout", "outcome"), [("pass", "completed"), ("stop", "plugin_abort")])
async def test_a_classifier_that_is_late(classifier: Any, mode: str, on_timeout: str, outcome: str):
    """After the deadline the settings decide; the question is given up."""

    async def never(question: dict[str, Any]) -> tuple[int, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    classifier.answer = never
    given = {"url": classifier.url, "deadline": 0.05, "on_timeout": on_timeout, "mode": mode}
    async with PluginHarness(ClassifierGuard, given) as gateway:
        received = await gateway.stream(["words"])
        assert received.outcome == outcome
        assert gateway.metric("checks_total", verdict="timeout") == 1
        assert gateway.failures == []
        async with asyncio.timeout(5):
            await classifier.left.wait()


@pytest.mark.parametrize(
    "answer", [(500, {}), (200, b"<html>"), (200, {}), (200, {"flagged": "yes"}), (200, []), (200, b"\xff\xfe")]
)
@pytest.mark.parametrize(("on_error", "outcome"), [("pass", "completed"), ("stop", "plugin_abort")])
async def test_a_classifier_that_says_nothing(classifier: Any, answer: tuple[int, Any], on_error: str, outcome: str):
    """A status, a body or a value that is no verdict is an error, and the settings decide."""

    async def garbage(question: dict[str, Any]) -> tuple[int, Any]:
        return answer

    classifier.answer = garbage
    async with PluginHarness(ClassifierGuard, {"url": classifier.url, "on_error": on_error}) as gateway:
        assert (await gateway.stream(["words"])).outcome == outcome
        assert gateway.metric("checks_total", verdict="error") == 1
        assert gateway.failures == []


async def test_a_classifier_that_is_not_there():
    """A refused connection is an error like any."""
    async with PluginHarness(ClassifierGuard, {"url": "http://127.0.0.1:9/", "on_error": "pass"}) as gateway:
        assert (await gateway.stream(["words"])).text == "words"
        assert gateway.metric("checks_total", verdict="error") == 1


async def test_the_form_of_openai_moderation(classifier: Any, monkeypatch: pytest.MonkeyPatch):
    """With a key from the environment, which is in the request and nowhere else."""

    async def moderation(question: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"results": [{"flagged": "bad" in question["input"]}]}

    classifier.answer = moderation
    monkeypatch.setenv("MODERATION_KEY", "sk-1234")
    given = {
        "url": classifier.url,
        "format": "openai", "model": "omni", "headers": {"authorization": "Bearer ${MODERATION_KEY}"},
    }  # fmt: skip
    async with PluginHarness(ClassifierGuard, given) as gateway:
        assert (await gateway.stream(["bad words \ud83d x"])).outcome == "plugin_abort"
        assert "sk-1234" not in repr(gateway.plugin.settings)
    assert classifier.asked == [{"input": "bad words ? x", "model": "omni"}]
    assert "authorization: Bearer sk-1234" in classifier.heads[0].replace("Authorization", "authorization")


async def test_kinds_and_choices_are_texts_of_their_own(classifier: Any):
    """A kind that is not asked for is passed on unseen."""
    async with PluginHarness(ClassifierGuard, {"url": classifier.url, "kinds": ["content"]}) as gateway:
        received = await gateway.stream([Delta("one"), Delta("two", 1), Delta("bad", 0, "reasoning")])
        assert received.texts() == {0: "one", 1: "two"}
        assert received.texts("reasoning") == {0: "bad"}
    assert sorted(classifier.texts) == ["one", "two"]


async def test_a_whole_answer_is_judged(classifier: Any):
    """One JSON body: all of its windows at once."""
    async with PluginHarness(ClassifierGuard, SMALL | {"url": classifier.url}) as gateway:
        assert (await gateway.answer("well " * 20)).text == "well " * 20
        received = await gateway.answer("well " * 20 + "bad")
        assert (received.code, b"well" in received.body) == ("guard", False)


async def test_questions_end_with_their_stream(classifier: Any):
    """When another window stopped it, the rest is given up."""

    async def one(question: dict[str, Any]) -> tuple[int, Any]:
        if "bad" not in question["text"]:
            await asyncio.Event().wait()
        return 200, {"flagged": True}

    classifier.answer = one
    async with PluginHarness(ClassifierGuard, SMALL | {"url": classifier.url, "deadline": 30}) as gateway:
        received = await gateway.answer("well well well well bad")
        assert received.code == "guard"
        async with asyncio.timeout(5):
            await classifier.left.wait()


async def test_questions_end_with_the_plugin(classifier: Any):
    """A shutdown gives up what is under way: no task is left behind."""

    async def never(question: dict[str, Any]) -> tuple[int, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    classifier.answer = never
    async with PluginHarness(ClassifierGuard, {"url": classifier.url, "deadline": 30}) as gateway:
        plugin = gateway.plugin
        assert isinstance(plugin, ClassifierGuard)
        plugin._background.begin(plugin._checked(plugin._case(NoStream()), "x"))  # type: ignore[arg-type]
        async with asyncio.timeout(5):
            await classifier.arrived.wait()


class NoStream:
    state = None


@pytest.mark.parametrize(
    "answer", [[], {"results": []}, {"results": {}}, {"results": [{"flagged": 1}]}, {"results": [3]}]
)
def test_what_is_no_moderation_is_an_error(answer: Any):
    """Results, each with a truth value."""
    with pytest.raises(ValueError, match="an answer without"):
        flagged(answer, "openai")
