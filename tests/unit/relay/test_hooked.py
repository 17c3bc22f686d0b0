"""Plugins between the passage and the outlet: what clients get, what hooks see, what failures do."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from stage import delta

from streamgate.clock import monotonic
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.errors import Drained
from streamgate.hooks import Abort, Answer, Kept, Plugin, ServerSentEvent
from streamgate.hooks.chain import Plugins
from streamgate.hooks.member import Member
from streamgate.hooks.watchdog import Running
from streamgate.record import COMPLETED, Ending, Outcome, StreamRecord
from streamgate.relay import hooked as hooked_module
from streamgate.relay import mailbox as mailbox_module
from streamgate.relay.attempt import Attempt
from streamgate.relay.hooked import Hooked, at_once
from streamgate.relay.mailbox import FULL, WaitingHooked, hooked
from streamgate.relay.valve import MAILBOX, OUTLET, TURN, Valve
from streamgate.sse.clocks import clocks_of
from streamgate.sse.outlet import Lost
from streamgate.testing import Delta, PluginHarness, finish, say
from streamgate.testing.harness import Books
from streamgate.testing.received import Written
from streamgate.testing.relayed import Opening
from streamgate.testing.script import DONE

pytestmark = pytest.mark.anyio
SSE = [(b"content-type", b"text/event-stream")]


def doing(**hooks) -> type[Plugin]:
    """A plugin of these hooks and attributes."""
    return type("Doing", (Plugin,), hooks)


def on_event(answer, **more) -> type[Plugin]:
    return doing(on_event=lambda _, event, __: answer(event), **more)


def on_text(answer, **more) -> type[Plugin]:
    return doing(on_text=lambda _, text, __: answer(text), **more)


async def streamed(kind: type[Plugin], *script, fail=None, **how):
    """What the client got, and the failures."""
    async with PluginHarness(kind, fail=fail) as gateway:
        received = await gateway.stream(script, **how)
        return received, gateway.failures


def changed(event: ServerSentEvent) -> ServerSentEvent:
    event.data = str(event.data).replace('"a"', '"b"')
    return event


# Events.


@pytest.mark.parametrize(
    "block",
    [
        say("x"),
        say("x").replace(b"\n", b"\r\n"),
        say("x").replace(b"\n", b"\r"),
        b"id: 7\nx-unknown: y\n" + say("x"),
        b": a comment inside\n" + say("x"),
        b"retry: 100\n\n" + say("x"),
        b"data: {\ndata: }\n\n" + say("x"),
        b"data:{}\n\n" + say("x"),
    ],
)
async def test_an_event_that_is_given_back_passes_byte_for_byte(block):
    """Whatever its fields, comments and line ends are."""
    for answer in (lambda event: event, lambda event: [event], lambda event: (one for one in (event,))):
        received, failures = await streamed(on_event(answer), block)
        assert received.body == block + finish() + DONE
        assert failures == []


async def test_events_are_changed_dropped_and_added():
    """In place or by another one; the rest of the stream is untouched; several keep their order."""
    more = ServerSentEvent("more", event="note", sep="\r\n")
    for answer, expected in (
        (changed, say("b")),
        (lambda event: ServerSentEvent(event.data), say("a")),
        (lambda _: None, b""),
        (lambda _: [], b""),
        (lambda event: [more, event], b"event: note\r\ndata: more\r\n\r\n" + say("a")),
    ):
        kind = on_event(lambda event, answer=answer: answer(event) if '"a"' in str(event.data) else event)
        received, failures = await streamed(kind, say("a"))
        assert received.body == expected + finish() + DONE
        assert failures == []


async def test_what_an_event_hook_sees():
    """Its fields, the terminator too; comments and events without data are not shown to it."""
    seen = []
    kind = on_event(lambda event: seen.append((event.data, event.event, event.id, event.retry)) or event)
    await streamed(
        kind, b"id: 7\nevent: e\nretry: 9\n" + say("a"), b"retry: 100\n\n", b": ping\n\n", b"data: x\ndata: y\n\n"
    )
    assert [data if data.startswith("[") else "..." for data, *_ in seen] == ["...", "...", "...", "[DONE]"]
    assert seen[0][1:] == ("e", "7", 9) and seen[1][0] == "x\ny"


@pytest.mark.parametrize("garbage", [7, "text", b"bytes", {"data": "x"}, [7], ServerSentEvent("x", retry=-1)])
async def test_garbage_from_an_event_hook(garbage):
    """Open: the event passes as it was. Closed: the stream ends with the code plugin_failed."""
    kind = on_event(lambda _: garbage)
    received, failures = await streamed(kind, "a")
    assert received.body == say("a") + finish() + DONE and received.outcome == "completed"
    assert {failure.reason for failure in failures} == {"garbage"}
    received, failures = await streamed(kind, "a", fail="closed")
    assert (received.outcome, received.code, len(failures)) == ("internal_error", "plugin_failed", 1)
    assert received.text == "" and json.loads(str(received.events[-1].data))["error"]["code"] == "plugin_failed"


async def test_the_breaker_stops_asking():
    """A plugin that always raises is asked five times; the stream never notices."""
    asked = []

    def raises(event):
        asked.append(event)
        raise ValueError

    received, failures = await streamed(on_event(raises), *"abcdefghij")
    assert received.text == "abcdefghij" and len(asked) == len(failures) == 5


async def test_an_event_hook_ends_the_stream():
    """An error event in the family's form, the plugin's words, its outcome; the upstream is not read any further."""

    def aborts(event):
        if '"b"' in str(event.data):
            raise Abort("Not here.", "policy")
        return event

    received, failures = await streamed(on_event(aborts), "a", "b", "c", split=50)
    assert (received.text, received.outcome, received.code, received.message) == (
        "a",
        "plugin_abort",
        "policy",
        "Not here.",
    )
    assert json.loads(str(received.events[-1].data))["error"]["message"] == "Not here."
    assert received.whole and failures == [] and b"[DONE]" not in received.body


# Text.


def keeping(count):
    def answer(text):
        keep = 0 if text.final else min(count, len(text.pending))
        return Kept(text.pending[: len(text.pending) - keep].upper(), keep)

    return answer


async def test_text_is_held_and_released():
    """As much as was asked for; what is left comes before the finish event, in one of its own."""
    received, failures = await streamed(on_text(keeping(2), window=2), "a", "bc", "d", "e")
    texts = [json.loads(str(e.data))["choices"][0]["delta"].get("content") for e in received.events[:-1]]
    assert texts == ["A", "B", "C", "DE", None]
    assert received.text == "ABCDE" and failures == []


async def test_what_a_text_hook_sees():
    """What was kept and what is new, per choice and kind, and at last all of it as final."""
    seen = []

    def answer(text):
        seen.append(text)
        return keeping(3)(text)

    script = ["ab", Delta("xy", 1), Delta("th", 0, "reasoning"), "cd", Delta("z", 1)]
    received, _ = await streamed(on_text(answer, window=3), *script)
    assert [tuple(text)[:4] for text in seen] == [
        (0, "content", "ab", False), (1, "content", "xy", False), (0, "reasoning", "th", False),
        (0, "content", "abcd", False), (1, "content", "xyz", False),
        (0, "reasoning", "th", True), (0, "content", "bcd", True), (1, "content", "xyz", True),
    ]  # fmt: skip
    assert {(text.kind, text.field) for text in seen} == {("content", "content"), ("reasoning", "reasoning_content")}
    assert received.texts() == {0: "ABCD", 1: "XYZ"} and received.texts("reasoning") == {0: "TH"}


async def test_text_beside_its_finish_is_final():
    """In its own event, and nothing before it."""
    last = delta("d", finish_reason="stop")
    received, _ = await streamed(on_text(keeping(9), window=9), "abc", last, DONE, ends=False)
    assert [str(event.data)[:1] for event in received.events] == ["{", "["]
    assert received.text == "ABCD" and b'"finish_reason":"stop"' in received.events[0].encode()


async def test_an_event_that_says_more_than_its_text_stays():
    """Its text is empty then."""
    first = delta(delta={"role": "assistant", "content": "a"})
    received, _ = await streamed(on_text(keeping(9), window=9), first, "b")
    assert json.loads(str(received.events[0].data))["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert received.text == "AB"


async def test_what_repeats_a_held_text_is_left_out():
    """Log probabilities tell the token: they go where its text is held or changed, and stay where it is not."""
    logged = delta("ab").replace(b'"delta"', b'"logprobs":{"content":[{"token":"secret"}]},"delta"')
    received, _ = await streamed(on_text(lambda text: text.pending), logged)
    assert received.body.startswith(logged)
    received, _ = await streamed(on_text(lambda _: "**"), logged)
    assert b"secret" not in received.body
    kept = on_text(lambda text: text.pending if text.final else Kept("a" * (len(text.pending) // 2), 1), window=2)
    received, _ = await streamed(kept, logged, logged)
    assert b"secret" not in received.body


async def test_data_of_several_lines():
    """The same text, in one event with the same fields."""
    two = b'id: 7\ndata: {"choices":[{"delta":\ndata: {"content":"ab"}}]}\n\n'
    received, _ = await streamed(on_text(lambda text: text.pending.upper()), two, finish(), DONE, ends=False)
    assert received.text == "AB" and received.events[0].id == "7"


@pytest.mark.parametrize(
    "garbage",
    [None, 7, b"x", ("a", 1), Kept("a", 4), Kept("a", -1), Kept("", True), Kept(7, 1), Kept("a", 2)],  # type: ignore[arg-type]
)
async def test_garbage_from_a_text_hook(garbage):
    """Open: the text passes as it was. Closed: it never leaves. More than the window or the text is not kept."""
    kind = on_text(lambda _: garbage, window=3)
    received, failures = await streamed(kind, "a")
    assert (received.text, received.outcome, failures[0].reason) == ("a", "completed", "garbage")
    received, _ = await streamed(kind, "a", fail="closed")
    assert (received.text, received.outcome, received.code) == ("", "internal_error", "plugin_failed")


async def test_nothing_is_kept_of_a_final_text():
    """A hook that tries is told."""
    received, failures = await streamed(on_text(lambda _: Kept("", 1), window=1), "a")
    assert received.text == "a" and [failure.reason for failure in failures] == ["garbage"]
    assert "of a text that ends" in failures[0].detail


async def test_a_failing_text_hook_and_what_it_held():
    """Open: what it held goes out as it was. Closed: it does not."""

    def answer(text):
        if "!" in text.pending:
            raise ValueError
        return keeping(9)(text)

    kind = on_text(answer, window=9)
    received, _ = await streamed(kind, "ab", "!", "c")
    assert received.text == "ab!C"
    received, _ = await streamed(kind, "ab", "!", "c", fail="closed")
    assert received.text == ""


async def test_a_text_hook_ends_the_stream():
    """What it held or was shown is not sent; what it had released was."""

    def answer(text):
        if "bomb" in text.pending:
            raise Abort("No.")
        return keeping(3)(text)

    received, _ = await streamed(on_text(answer, window=3), "how to bo", "mb", "x")
    assert (received.text, received.outcome, received.code) == ("HOW TO", "plugin_abort", "plugin_abort")


async def test_held_text_comes_before_the_upstreams_error():
    """Its own error event, or the gateway's for one that broke off."""
    error = b'data: {"error":{"message":"oom","type":"server_error"}}\n\n'
    received, _ = await streamed(on_text(keeping(5), window=5), "abc", error, ends=False, split=len(say("abc")))
    assert received.text == "ABC" and received.body.endswith(error) and received.outcome == "upstream_error"
    received, _ = await streamed(on_text(keeping(5), window=5), "abc", ends=False)
    assert received.text == "ABC" and received.outcome == "truncated" and b'"error"' in received.body.splitlines()[-2]


async def test_a_hook_that_fails_at_the_very_end():
    """With the final text: the ending is the plugin's, and its text does not leave."""

    def answer(text):
        if text.final:
            raise Abort("No.")
        return Kept("", len(text.pending))

    received, _ = await streamed(on_text(answer, window=9), "abc", finish(), ends=False)
    assert (received.outcome, received.text) == ("plugin_abort", "")
    received, _ = await streamed(on_text(answer, window=9), "abc", ends=False)
    assert (received.outcome, received.text) == ("plugin_abort", "")


async def test_an_unknown_family_has_no_text():
    """Event hooks see its events, text hooks nothing."""
    shout = doing(on_text=lambda *_: "X", on_event=lambda _, event, __: changed(event))
    received, _ = await streamed(shout, b'data: "a"\n\n', path="/v1/messages", ends=False)
    assert received.body.startswith(b'data: "b"\n\n')
    received, _ = await streamed(on_text(lambda _: "X"), b"data: a\n\n", path="/v1/messages")
    assert received.body.startswith(b"data: a\n\n")


# Whole answers.


async def answered(kind: type[Plugin], text: str = "secret", fail=None, **how):
    async with PluginHarness(kind, fail=fail) as gateway:
        return await gateway.answer(text, **how)


async def test_a_whole_answer_has_its_text_changed():
    """With a length that is right; event hooks are not called."""
    shout = doing(on_text=lambda _, text, __: text.pending.upper() + "!", on_event=lambda *_: None)
    received = await answered(shout)
    assert received.text == "SECRET!"
    assert received.headers["content-length"] == str(len(received.body))


async def test_a_whole_answer_may_be_refused():
    """Nothing was sent, so it is a status that SDKs do not try again."""

    def aborts(text):
        assert text.final
        raise Abort("No.", "policy")

    received = await answered(on_text(aborts))
    assert (received.status, received.outcome, received.json["error"]["code"]) == (403, "plugin_abort", "policy")
    received = await answered(on_text(lambda _: 7), fail="closed")
    assert (received.status, received.json["error"]["code"]) == (503, "plugin_failed")


async def test_a_whole_answer_of_a_plugin_that_only_sees_events():
    """Passes as it is."""
    assert (await answered(on_event(lambda _: None))).text == "secret"


async def test_an_answer_too_long_to_be_held(monkeypatch):
    """Open: it passes unseen. Closed: it does not pass."""
    monkeypatch.setattr(hooked_module, "WHOLE", 70_000)
    kind = on_text(lambda _: "")
    long = "x" * 80_000
    assert (await answered(kind, long)).text == long
    received = await answered(kind, long, fail="closed")
    assert (received.status, received.code) == (503, "plugin_failed")


async def test_other_bodies_are_not_hooked():
    """Audio is no text."""
    stage = Stage(on_text(lambda _: ""), headers=[(b"content-type", b"audio/mpeg")])
    stage.step.write(b"\xff\xfb", 1.0)
    assert stage.outlet.frames == [b"\xff\xfb"]
    assert await stage.step.finish(COMPLETED) is COMPLETED


# The head.


async def test_the_head_is_changed():
    """Status and headers; plain, async, or in a thread."""

    def plain(self, head, stream):
        return head.replaced(status=201, headers={"x-plugin": "yes"})

    async def waits(self, head, stream):
        return plain(self, head, stream)

    for kind in (doing(on_open=plain), doing(on_open=waits), doing(on_open=plain, threaded=True)):
        received, failures = await streamed(kind, "a")
        assert (received.status, received.headers["x-plugin"], received.text) == (201, "yes", "a")
        assert received.headers["content-type"] == "text/event-stream" and failures == []


async def test_a_head_that_is_left_as_it_is():
    """None changes nothing; after an early commit nobody is asked."""
    asked = []
    kind = doing(on_open=lambda _, head, __: asked.append(head))
    received, _ = await streamed(kind, "a")
    assert received.status == 200 and len(asked) == 1
    stage = Stage(kind, begun=True)
    stage.open()
    assert len(asked) == 1


async def test_a_strict_plugin_that_fails_at_the_head():
    """Nothing was sent: a status."""
    received, _ = await streamed(doing(on_open=lambda *_: 7, fail="closed"), "a")
    assert (received.status, received.json["error"]["code"], received.outcome) == (
        503,
        "plugin_failed",
        "internal_error",
    )


# Who has the step at all.


class Passage:
    """As the step sees it."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def pause(self):
        self.told.append("pause")

    def resume(self):
        self.told.append("resume")

    def finish(self, ending):
        self.told.append(ending)

    def crash(self, bug):
        self.told.append(bug)


class Stage:
    """The step alone, with an outlet that keeps what it gets."""

    def __init__(self, *kinds: type[Plugin], headers=SSE, begun: bool = False, fail=None) -> None:
        self.books, running = Books(), Running()
        members = [Member(f"p{n}", kind(None, None), self.books, running, fail=fail) for n, kind in enumerate(kinds)]
        self.record = StreamRecord(1.0)
        self.outlet = Written(clocks_of(asyncio.get_running_loop()))
        head = Opening(self.outlet, self.record)
        hooks = Plugins(members, self.books, running).stream(self.record)
        step = hooked(hooks, self.outlet, head, OPENAI_CHAT, self.record)
        assert step is not None
        self.step: Hooked = step
        self.passage = Passage()
        step.attach(self.passage)
        self.attempt = Attempt(0.0, 1000, own_key=True)
        self.attempt.head(200, headers, events_only=False)
        if begun:
            self.outlet.start(200, [])
        elif not isinstance(step, WaitingHooked):
            self.open()

    def open(self) -> None:
        self.step.open(self.attempt, self.passage)


async def test_a_stream_that_nobody_listens_to_has_no_step():
    """The passage writes to the outlet itself: not a call more."""
    record = StreamRecord(1.0)
    outlet = Written(clocks_of(asyncio.get_running_loop()))
    head = Opening(outlet, record)
    silent = Plugins([Member("p", doing(on_end=lambda *_: None)(None, None), Books(), Running())], Books(), Running())
    assert hooked(None, outlet, head, OPENAI_CHAT, record) is None
    assert hooked(silent.stream(record), outlet, head, OPENAI_CHAT, record) is None
    outlet.close()


async def test_the_books_are_about_what_was_sent():
    """Bytes to the client as they left; the time of all calls of a stream is noted once."""
    received, _ = await streamed(on_text(lambda text: text.pending * 100), "a", "b")
    assert received.ended.bytes_out == len(received.body)
    stage = Stage(on_event(lambda event: event))
    for _ in range(3):
        stage.step.write(say("a"), monotonic())
    await stage.step.finish(COMPLETED)
    assert list(stage.books.seconds) == ["on_event"] and stage.books.seconds["on_event"] > 0


async def test_after_the_end_nothing_is_written():
    """By a plugin that ended the stream; its passage is told once."""
    stage = Stage(on_event(lambda _: (_ for _ in ()).throw(Abort("no"))))
    stage.step.write(say("a"), monotonic())
    stage.step.write(say("b"), monotonic())
    assert stage.outlet.frames == []
    assert [ending.outcome for ending in stage.passage.told] == [Outcome.PLUGIN_ABORT]
    assert (await stage.step.finish(COMPLETED)).outcome is Outcome.PLUGIN_ABORT


async def test_those_after_the_one_that_ended_it_release_what_they_hold():
    """What they hold had passed it."""
    first = on_text(lambda text: (_ for _ in ()).throw(Abort("no")) if "!" in text.pending else text.pending)
    stage = Stage(first, on_text(keeping(5), window=5), on_text(lambda text: text.pending + "."))
    for text in ("abc", "!"):
        stage.step.write(say(text), monotonic())
    assert (await stage.step.finish(Ending.by(Drained()))).outcome is Outcome.PLUGIN_ABORT
    assert [json.loads(frame[6:])["choices"][0]["delta"]["content"] for frame in stage.outlet.frames] == ["ABC."]


async def test_several_may_end_it():
    """The first one's word stands, and nothing leaves that either of them held."""

    def strict(text):
        if text.final or "!" in text.pending:
            raise Abort(text.pending)
        return keeping(5)(text)

    asked = []
    watching = on_event(lambda event: asked.append(event) or event)
    stage = Stage(
        on_text(keeping(5), window=5), watching, on_text(strict, window=5), on_text(strict, window=5), watching
    )
    stage.step.write(say("abcdefghijklmnop"), monotonic())
    stage.step.write(say("!"), monotonic())
    ending = await stage.step.finish(Ending.by(Drained()))
    assert ending.fault is not None and ending.outcome is Outcome.PLUGIN_ABORT
    said = "".join(json.loads(frame[6:])["choices"][0]["delta"]["content"] for frame in stage.outlet.frames)
    assert said == "AB" and len(stage.passage.told) == 1


async def test_what_came_before_the_end_in_one_read_is_sent():
    """However the network cut it, the client gets the same."""

    def aborts(event):
        if '"c"' in str(event.data):
            raise Abort("no")
        return event

    for split in (0, 1, 300):
        script = ["a", "b", "c", "d"]
        received, _ = await streamed(doing(on_event=lambda _, event, __: aborts(event)), *script, split=split)
        assert received.text == "ab"


async def test_for_a_client_that_left_nothing_is_asked():
    """The hooks have nothing to release to anybody."""
    asked = []
    stage = Stage(on_text(lambda text: asked.append(text.final) or keeping(5)(text), window=5))
    stage.step.write(say("abc"), monotonic())
    closed = Ending(Outcome.CLIENT_CLOSED)
    assert await stage.step.finish(closed) is closed
    stage.outlet.gone(Lost.CLOSED)
    assert await stage.step.finish(COMPLETED) is COMPLETED
    assert asked == [False]


async def test_hooks_take_no_more_than_their_share_of_a_turn():
    """After 5 ms the source is paused and goes on in the next turn of the loop."""
    stage = Stage(on_event(lambda event: (threading.Event().wait(0.004) and None) or event))
    for _ in range(2):
        stage.step.write(say("a"), monotonic())
    assert stage.passage.told == ["pause"]
    await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop
    assert stage.passage.told == ["pause", "resume"]


async def test_a_plain_stream_cannot_wait():
    """A hook that does so without saying it is a bug of ours, and is told as one."""
    with pytest.raises(RuntimeError, match="waits"):
        at_once(asyncio.sleep(0))  # noqa: TID251 - something that waits


def test_a_source_is_paused_for_any_reason():
    """It flows when none is left; a source that comes later is told."""
    valve, source = Valve(), Passage()
    valve.shut(TURN)
    valve.attach(source)
    valve.pause()
    valve.open(TURN)
    valve.open(TURN)
    assert source.told == ["pause"]
    valve.resume()
    valve.shut(MAILBOX)
    valve.shut(OUTLET)
    assert source.told == ["pause", "resume", "pause"]
    valve.attach(None)
    valve.open(MAILBOX | OUTLET)
    valve.shut(TURN)
    assert source.told == ["pause", "resume", "pause"]


# Hooks that wait.


def waiting(answer) -> type[Plugin]:
    async def event(self, event, stream):
        return await answer(event)

    return doing(on_event=event, waits=True)


async def test_hooks_that_wait_keep_the_order():
    """However long each waits; the end waits for them."""
    turns = iter([3, 0, 5, 1, 0, 2, 0])

    async def answer(event):
        for _ in range(next(turns)):
            await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop
        return changed(event)

    received, failures = await streamed(waiting(answer), *"axaxx")
    assert received.text == "bxbxx" and received.outcome == "completed" and failures == []


async def test_a_full_mailbox_pauses_the_source():
    """And lets it go on when half of it is empty."""
    gate = asyncio.Event()

    async def answer(event):
        await gate.wait()
        return event

    stage = Stage(waiting(answer))
    async with stage.step:
        stage.open()
        frame = say("x" * 5000)
        while not stage.passage.told:
            stage.step.write(frame, monotonic())
        assert stage.passage.told == ["pause"]
        assert stage.step._size < FULL + len(frame)
        gate.set()
        assert await stage.step.finish(COMPLETED) is COMPLETED
    assert stage.passage.told == ["pause", "resume"]
    assert len(stage.outlet.frames) >= FULL // len(frame)


async def test_a_hook_that_waits_too_long():
    """It is given up after its budget, and the event passes; nobody else's stream is concerned."""
    kind = waiting(lambda _: asyncio.Event().wait())
    async with PluginHarness(kind, budget=0.01) as gateway:
        received = await gateway.stream(["a"])
    assert received.text == "a" and {failure.reason for failure in gateway.failures} == {"timeout"}


async def test_the_end_does_not_wait_for_ever(monkeypatch):
    """Hooks that are too far behind end the stream."""
    monkeypatch.setattr(mailbox_module, "LATEST", 0.01)
    received, _ = await streamed(waiting(lambda _: asyncio.Event().wait()), "a")
    assert (received.outcome, received.code) == ("internal_error", "plugin_failed")


async def test_a_waiting_hook_ends_the_stream():
    """Even after the upstream's part is over: the ending is the plugin's."""

    async def answer(event):
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop
        raise Abort("no")

    received, _ = await streamed(waiting(answer), "a", "b")
    assert (received.outcome, received.text) == ("plugin_abort", "")


async def test_a_client_that_left_is_not_waited_for():
    """What is in the mailbox is dropped."""
    asked = []

    async def answer(event):
        asked.append(event)
        return event

    stage = Stage(waiting(answer))
    async with stage.step:
        stage.open()
        stage.outlet.gone(Lost.CLOSED)
        stage.step.write(say("a"), monotonic())
        await stage.step.finish(Ending(Outcome.CLIENT_CLOSED))
    assert asked == []


async def test_a_bug_of_ours_ends_the_stream():
    """It is the stream's internal error, and the task does not die of it silently."""
    stage = Stage(waiting(lambda _: asyncio.Event().wait()))
    stage.outlet.start = None  # type: ignore[method-assign,assignment]
    async with stage.step:
        stage.open()
        await stage.step.finish(COMPLETED)
    assert [type(bug) for bug in stage.passage.told] == [TypeError]


async def test_after_a_waiting_plugin_ended_it_nothing_is_taken():
    """The mailbox stays empty."""

    async def answer(event):
        raise Abort("no")

    stage = Stage(waiting(answer))
    async with stage.step:
        stage.open()
        stage.step.write(say("a"), monotonic())
        await stage.step.finish(COMPLETED)
        stage.step.write(say("b"), monotonic())
        assert not stage.step._mail


# Answers of a plugin's own.


def answering(answer) -> type[Plugin]:
    return doing(on_request=lambda *_: answer)


async def test_a_plugin_answers_with_events():
    """At their pace, with its headers, and accounted for as any stream."""

    async def paced():
        for text in "abc":
            await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop
            yield ServerSentEvent(json.loads(json.dumps(say(text)[6:-2].decode())), sep="\n")
        yield finish() + DONE

    received, failures = await streamed(answering(Answer(events=paced(), headers={"X-Replay": "yes"})))
    assert (received.text, received.outcome, failures) == ("abc", "completed", [])
    assert received.headers["x-replay"] == "yes" and received.headers["content-type"].startswith("text/event-stream")
    received, _ = await streamed(answering(Answer(events=[say("x"), finish(), DONE])))
    assert received.text == "x" and received.upstream_request is None


async def test_a_plugin_answers_with_a_body():
    """Whole; a status of 400 or more is an answer without a stream."""
    received = await answered(answering(Answer.of_json({"choices": [{"message": {"content": "hi"}}]}, status=201)))
    assert (received.status, received.text, received.outcome) == (201, "hi", "completed")
    received = await answered(answering(Answer.of_json({"error": "no"}, status=418)))
    assert (received.status, received.json, received.outcome) == (418, {"error": "no"}, "completed")


async def test_an_answer_that_breaks():
    """Its iterable raises: the plugin failed; it has no end, or nothing at all: the stream is truncated."""

    def raises():
        yield say("a")
        raise ValueError("private")

    received, _ = await streamed(answering(Answer(events=raises())))
    assert (received.text, received.outcome, received.code) == ("a", "internal_error", "plugin_failed")
    assert b"private" not in received.body
    received, _ = await streamed(answering(Answer(events=[say("a")])))
    assert received.outcome == "truncated"
    received, _ = await streamed(answering(Answer(events=[])))
    assert (received.outcome, received.status) == ("truncated", 502)
