"""What a plugin's event and text hooks cost: CPU for each event, by plugins that do nothing, without any network.

    python benchmarks/hooks.py

Prints microseconds for each event through the passage alone and with the hooks; the difference is theirs. The smallest
of several rounds counts: everything else that a machine does only adds.
"""

from __future__ import annotations

import asyncio
import json
import re
import time

from streamgate.clock import monotonic
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.hooks import Kept, Plugin, ServerSentEvent, Stream, Text
from streamgate.hooks.chain import Plugins
from streamgate.hooks.member import Member
from streamgate.hooks.watchdog import Running
from streamgate.record import StreamRecord
from streamgate.relay.deadlines import Deadlines
from streamgate.relay.mailbox import hooked
from streamgate.relay.passage import Passage
from streamgate.sse.clocks import clocks_of
from streamgate.testing.harness import Books
from streamgate.testing.received import Written
from streamgate.testing.relayed import Opening

EVENTS, ROUNDS = 5000, 15
WORDS = ("the", " quick", " brown", " fox", " ju", "mps", " over", " the", " lazy", " dog.")
ADDRESS = re.compile(r"\b[\w.+-]+@[\w-]+\.\w{2,}\b")


class Event(Plugin):
    """on_event, does nothing"""

    def on_event(self, event: ServerSentEvent, stream: Stream) -> ServerSentEvent:
        return event


class Words(Plugin):
    """on_text, does nothing"""

    def on_text(self, text: Text, stream: Stream) -> str:
        return text.pending


class Window(Plugin):
    """on_text, keeps 8 characters"""

    window = 8

    def on_text(self, text: Text, stream: Stream) -> str | Kept:
        keep = 0 if text.final else min(8, len(text.pending))
        return Kept(text.pending[: len(text.pending) - keep], keep)


class Pattern(Plugin):
    """on_text, a regular expression"""

    def on_text(self, text: Text, stream: Stream) -> str:
        return ADDRESS.sub("[hidden]", text.pending)


def events() -> list[bytes]:
    """Tokens as vLLM writes them."""
    return [
        b"data: "
        + json.dumps(
            {
                "id": "chatcmpl-3f1c5e2a8d674c6f9a0f5f4b7f6f4c21",
                "object": "chat.completion.chunk",
                "created": 1767225600,
                "model": "llama-3.1-8b-instruct",
                "choices": [{"index": 0, "delta": {"content": WORDS[n % 10]}, "logprobs": None, "finish_reason": None}],
            },
            separators=(",", ":"),
        ).encode()
        + b"\n\n"
        for n in range(EVENTS)
    ]


async def once(kinds: tuple[type[Plugin], ...], frames: list[bytes]) -> float:
    """Microseconds of CPU for each event."""
    books, running = Books(), Running()
    members = [Member(kind.__name__.lower(), kind(None, None), books, running) for kind in kinds]
    record = StreamRecord(monotonic())
    record.stream, record.t_leased = True, monotonic()
    hooks = Plugins(members, books, running).stream(record)
    outlet = Written(clocks_of(asyncio.get_running_loop()))
    head = Opening(outlet, record)
    step = hooked(hooks, outlet, head, OPENAI_CHAT, record)
    passage = Passage(step or outlet, step or head, OPENAI_CHAT, record, Deadlines(), 1 << 20)
    if step is not None:
        step.attach(passage)
    passage.begin(own_key=True)
    passage.head(200, [(b"content-type", b"text/event-stream")])
    begun = time.process_time()
    for frame in frames:
        passage.feed(frame)
    spent = time.process_time() - begun
    passage.drained()
    passage.close()
    outlet.close()
    if books.failures:
        raise SystemExit(f"the hooks failed: {books.failures[:3]}")
    return spent / len(frames) * 1e6


def main() -> None:
    cases: list[tuple[str, tuple[type[Plugin], ...]]] = [("no plugin", ())]
    cases += [((kind.__doc__ or ""), (kind,)) for kind in (Event, Words, Window, Pattern)]
    cases.append(("on_text and on_event of two plugins", (Words, Event)))
    frames = events()
    best = dict.fromkeys((name for name, _ in cases), 1e9)
    for _ in range(ROUNDS):  # in turns: what the machine does besides hits all of them
        for name, kinds in cases:
            best[name] = min(best[name], asyncio.run(once(kinds, frames)))
    print(f"{'':40}{'us/event':>10}{'more':>8}")
    for name, took in best.items():
        print(f"{name:40}{took:10.2f}{took - best['no plugin']:8.2f}")


if __name__ == "__main__":
    main()
