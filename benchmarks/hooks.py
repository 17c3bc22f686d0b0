"""What a plugin's event and text hooks cost: CPU for each event, by plugins that do nothing and by `redact`.

    python benchmarks/hooks.py            # through the passage alone, without any network
    python benchmarks/hooks.py --whole    # of a whole gateway's process, as `make bench` measures it

Prints microseconds for each event without plugins and with them; the difference is theirs, and for some of it there is
a limit. The smallest of several rounds counts: everything else that a machine does only adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateways import Gateway as Measured
from gateways import free_port, running, upstream
from run import PACE, Bench, doubts

from streamgate.clock import monotonic
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.hooks import Kept, Plugin, ServerSentEvent, Stream, Text
from streamgate.hooks.chain import Plugins
from streamgate.hooks.facade import Gateway
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

HERE = Path(__file__).resolve().parent
REDACT = HERE.parent / "plugins" / "redact"  # found there, installed or not
EVENTS, ROUNDS = 5000, 15
WHOLE_ROUNDS = 3
STREAMS, SECONDS = 200, 4.0  # paced, 50 events a second each
EVENT_MOST, REDACT_MOST = 12.0, 25.0  # microseconds more for each event
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


def redact() -> type[Plugin]:
    """The plugin with its default patterns."""
    sys.path.insert(0, str(REDACT))
    from streamgate_redact import Redact  # noqa: PLC0415

    return Redact


def made(kind: type[Plugin]) -> Plugin:
    settings = getattr(kind, "Settings", None)
    return kind(settings and settings(), Gateway(kind.__name__.lower()))


async def once(kinds: tuple[type[Plugin], ...], frames: list[bytes]) -> float:
    """Microseconds of CPU for each event."""
    books, running = Books(), Running()
    members = [Member(kind.__name__.lower(), made(kind), books, running) for kind in kinds]
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


def passage_alone() -> None:
    cases: list[tuple[str, tuple[type[Plugin], ...], float | None]] = [("no plugin", (), None)]
    limits = {Event: EVENT_MOST}
    cases += [(kind.__doc__ or "", (kind,), limits.get(kind)) for kind in (Event, Words, Window, Pattern)]
    cases.append(("on_text and on_event of two plugins", (Words, Event), None))
    cases.append(("redact", (redact(),), REDACT_MOST))
    frames = events()
    best = dict.fromkeys((name for name, *_ in cases), 1e9)
    for _ in range(ROUNDS):  # in turns: what the machine does besides hits all of them
        for name, kinds, _ in cases:
            best[name] = min(best[name], asyncio.run(once(kinds, frames)))
    show(best, {name: most for name, _, most in cases})


def whole_gateway() -> None:
    plugins = {
        "no plugin": [],
        "on_event, does nothing": [{"use": "hooks:Event"}],
        "redact": [{"use": "streamgate_redact:Redact"}],
    }
    # The gateway's process finds them here.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(REDACT), os.environ.get("PYTHONPATH", "")])
    best = dict.fromkeys(plugins, 1e9)
    asked = argparse.Namespace(streams=STREAMS, seconds=SECONDS)
    sent = STREAMS * int(SECONDS * 1000 / PACE)
    with tempfile.TemporaryDirectory(prefix="streamgate-hooks-") as scratch:
        for number in range(WHOLE_ROUNDS):
            for name, listed in plugins.items():
                folder = Path(scratch)
                with upstream(folder) as (port, pid), served(listed, port, folder) as gate:
                    bench = Bench(gate, pid, asked)
                    bench.load("bench-n16-t0", connections=8, requests=25)  # warm
                    seen = bench.paced()
                for doubt in doubts({"gateway": name, "paced": seen}):
                    print(f"round {number + 1}, {name}: not to be trusted: {doubt}")
                # By the events that were sent: of those whose text is held back the client cannot read the time stamp.
                best[name] = min(best[name], seen["gateway_cpu_s"] / sent * 1e6)
    show(best, {"on_event, does nothing": EVENT_MOST, "redact": REDACT_MOST})


@contextmanager
def served(plugins: list[dict[str, str]], upstream_port: int, folder: Path) -> Iterator[Measured]:
    """A gateway with these plugins."""
    port, admin = free_port(), free_port()
    config = folder / "streamgate.yaml"
    tree = {"upstreams": [{"name": "up", "url": f"http://127.0.0.1:{upstream_port}"}], "plugins": plugins}
    config.write_text(json.dumps(tree))  # JSON is YAML
    command = [sys.executable, "-m", "streamgate", "serve", "--config", str(config)]
    command += ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
    with running(command, folder / "streamgate.log", port) as process:
        yield Measured("streamgate", port, process, admin)


def show(best: dict[str, float], limits: dict[str, float | None]) -> None:
    print(f"{'':40}{'us/event':>10}{'more':>8}{'at most':>9}")
    for name, took in best.items():
        most = limits.get(name)
        print(f"{name:40}{took:10.2f}{took - best['no plugin']:8.2f}{'' if most is None else f'{most:9.0f}'}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what hooks cost.")
    parser.add_argument("--whole", action="store_true", help="a whole gateway, with clients and an upstream")
    if parser.parse_args().whole:
        whole_gateway()
    else:
        passage_alone()


if __name__ == "__main__":
    main()
