"""What a client of a scripted stream would have got, and what became of the request on its way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from streamgate.hooks import Ended, Headers, Kind, Request, ServerSentEvent, UpstreamRequest
from streamgate.sse.clocks import Clocks
from streamgate.sse.outlet import OutletSettings, TimedOutlet
from streamgate.sse.parser import iter_events

_FIELDS: dict[Kind, tuple[str, ...]] = {"content": ("content", "text"), "reasoning": ("reasoning_content", "reasoning")}


class Written(TimedOutlet):
    """The client's side: keeps all that is written."""

    def __init__(self, clocks: Clocks) -> None:
        super().__init__(OutletSettings(heartbeat=0.0, send=0.0), clocks)
        self.status = 0
        self.headers = Headers()
        self.frames: list[bytes] = []

    @property
    def buffered(self) -> int:
        return 0

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
        self.began()

    def write(self, frame: bytes, now: float) -> None:
        self.frames.append(frame)

    async def finish(self, farewell: bytes | None, *, whole: bool) -> None:
        self.frames += [farewell] if farewell else []
        self.close()


class Received:
    """`body` is what was sent, `frames` the same as it was written; `whole` False: it was cut short on purpose."""

    def __init__(self) -> None:
        self.status = 0
        self.headers = Headers()
        self.frames: list[bytes] = []
        self.whole = True
        self.outcome = ""  # how the stream ended; "" when it never became one
        self.code = ""  # of the error that the client read
        self.message = ""
        self.request: Request | None = None  # as the plugin left it
        self.upstreams: Sequence[str] = ()
        self.upstream_request: UpstreamRequest | None = None
        self.ended: Ended  # as `on_end` is told

    @property
    def body(self) -> bytes:
        return b"".join(self.frames)

    @property
    def json(self) -> Any:
        """The body of an answer that is no stream."""
        return json.loads(self.body)

    @property
    def events(self) -> list[ServerSentEvent]:
        return list(iter_events([self.body]))

    @property
    def text(self) -> str:
        """The content of the first choice."""
        return self.texts().get(0, "")

    def texts(self, kind: Kind = "content") -> dict[int, str]:
        """The text of each choice, put together as a client would."""
        together: dict[int, str] = {}
        for payload in self._payloads():
            for position, choice in enumerate(payload.get("choices") or ()):
                spoken = choice.get("delta") or choice.get("message") or choice
                for field in _FIELDS[kind]:
                    if isinstance(spoken.get(field), str):
                        index = choice.get("index", position)
                        together[index] = together.get(index, "") + spoken[field]
        # Halves of a character that came in two events are one, as in JavaScript.
        return {index: _mended(text) for index, text in together.items()}

    def _payloads(self) -> list[Any]:
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            return [self.json] if self.body else []
        return [json.loads(str(event.data)) for event in self.events if str(event.data).startswith("{")]


def _mended(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
