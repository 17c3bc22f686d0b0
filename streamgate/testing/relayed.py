"""One scripted request, as the relay takes it: hooks, passage and farewell are the gateway's own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from streamgate.clock import monotonic
from streamgate.dialects.bodies import family_of
from streamgate.dialects.dialect import Dialect
from streamgate.dialects.openai_chat import OPENAI_CHAT
from streamgate.dialects.openai_completions import OPENAI_COMPLETIONS
from streamgate.dialects.plain import PLAIN_SSE
from streamgate.errors import Fault, PluginFailed, Refusal, Truncated
from streamgate.hooks.chain import Plugins
from streamgate.hooks.ended import ended_of
from streamgate.hooks.spec import Stream
from streamgate.hooks.values import Answer, Headers, Request, UpstreamRequest, to_json
from streamgate.record import Ending, Outcome, StreamRecord
from streamgate.relay.answer import Kind
from streamgate.relay.answered import Answered
from streamgate.relay.attempt import Attempt
from streamgate.relay.deadlines import Deadlines
from streamgate.relay.headers import own, returned
from streamgate.relay.hooked import Hooked
from streamgate.relay.mailbox import hooked
from streamgate.relay.passage import Passage
from streamgate.relay.reply import tell, words_for
from streamgate.sse.clocks import clocks_of
from streamgate.sse.outlet import Source
from streamgate.testing.received import Received, Written

DIALECTS: Mapping[str, Dialect] = {"/v1/chat/completions": OPENAI_CHAT, "/v1/completions": OPENAI_COMPLETIONS}


class Opening:
    """The response head, as `relay.tries.Head` writes it."""

    def __init__(self, outlet: Written, record: StreamRecord) -> None:
        self.amended: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._outlet = outlet
        self._record = record

    @property
    def begun(self) -> bool:
        return self._outlet.started

    def open(self, attempt: Attempt, source: Source) -> None:
        self._outlet.attach(source)
        status, headers = self.amended or (attempt.status, returned(attempt.headers, self._record.request_id)[0])
        if attempt.length is not None:
            headers = [*headers, (b"content-length", str(attempt.length).encode())]
        self._record.status = status
        self._outlet.start(status, headers)


class Relayed:
    """One request through the hooks of some plugins."""

    def __init__(
        self,
        plugins: Plugins,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        tenant: str,
        upstreams: Sequence[str],
    ) -> None:
        self._record = record = StreamRecord(monotonic())
        record.request_id = "req_" + secrets.token_hex(12)
        record.route, record.method, record.tenant, record.client = path, "POST", tenant, "127.0.0.1"
        record.model = str(body.get("model", ""))
        record.stream = body.get("stream") is True
        self._request = Request(
            method="POST", path=path, model=record.model, stream=record.stream, headers=Headers(headers), json=body,
            body=to_json(body), client=record.client,
        )  # fmt: skip
        self._hooks = plugins.stream(record)
        self._hooks.routed(record.model)
        self._dialect = DIALECTS.get(path, PLAIN_SSE)
        self._names = upstreams
        self._outlet = Written(clocks_of(asyncio.get_running_loop()))
        self._head = Opening(self._outlet, record)
        self.received = Received()

    async def run(self, pieces: list[bytes], headers: list[tuple[bytes, bytes]], *, ends: bool) -> Received:
        """`headers` are the upstream's; without `ends` it breaks off after the last piece."""
        try:
            await self._whole(pieces, headers, None if ends else Truncated())
        finally:
            await self._hooks.ended()
            self._outlet.close()
        received, record = self.received, self._record
        received.ended = ended_of(record, Stream(record))
        received.status, received.headers = self._outlet.status, self._outlet.headers
        received.frames = self._outlet.frames
        received.outcome, received.code = received.ended.outcome, received.ended.code
        problem = record.refusal or (record.ending.fault if record.ending else None)
        received.message = words_for(problem).message if problem is not None else ""
        return received

    async def _whole(self, pieces: list[bytes], headers: list[tuple[bytes, bytes]], fault: Fault | None) -> None:
        try:
            asked = await self._hooks.request(self._request)
            if isinstance(asked, Request):
                self.received.request = asked
                self.received.upstreams = await self._hooks.upstreams(self._names)
        except Refusal as refusal:
            self._record.refusal = refusal
            await self._farewell(refusal, None)
            return
        if isinstance(asked, Answer) and asked.events is None and asked.status >= 400:
            await self._told(asked)
            return
        self._record.t_leased = monotonic()
        step = hooked(self._hooks, self._outlet, self._head, self._dialect, self._record)
        passage = Passage(step or self._outlet, step or self._head, self._dialect, self._record, Deadlines(), 1 << 20)
        try:
            ending = await self._streamed(passage, step, self._passed(asked, passage, pieces, headers, fault))
        finally:
            passage.close()
        await self._closed(ending, passage)

    async def _streamed(self, passage: Passage, step: Hooked | None, passed: Coroutine[Any, Any, None]) -> Ending:
        if step is None:
            await passed
            return passage.until.result()
        step.attach(passage)
        async with step:
            await passed
            return await step.finish(passage.until.result())

    async def _closed(self, ending: Ending, passage: Passage) -> None:
        self._record.ending = ending
        told = passage.told and ending is passage.until.result()
        if ending.fault is None or told:
            self.received.whole = ending.outcome is Outcome.COMPLETED or told
            await self._outlet.finish(None, whole=self.received.whole)
        else:
            await self._farewell(ending.fault, None if passage.kind in (Kind.BODY, Kind.JSON) else self._dialect)

    async def _told(self, answer: Answer) -> None:
        """An answer without a stream."""
        self._record.status = answer.status
        self._record.ending = Ending(Outcome.COMPLETED)
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
        self._outlet.start(answer.status, headers)
        await self._outlet.finish(answer.body, whole=True)

    async def _passed(
        self,
        asked: Request | Answer,
        passage: Passage,
        pieces: list[bytes],
        headers: list[tuple[bytes, bytes]],
        fault: Fault | None,
    ) -> None:
        """Feed the passage, by the plugin's own answer or the script, until it has ended."""
        record = self._record
        if isinstance(asked, Answer):
            await Answered(asked, self._hooks.broke).into(passage, self._head, own(record.request_id))
            return
        record.upstream, record.attempts = self.received.upstreams[0], 1
        call = UpstreamRequest(
            upstream=record.upstream, method="POST", path=record.route, headers=Headers(), body=asked.body
        )
        try:
            self.received.upstream_request = await self._hooks.upstream_request(call)
        except PluginFailed as failed:
            passage.finish(Ending.by(failed))
            return
        source = _Paced()
        passage.begin(own_key=True)
        passage.fed_by(source)
        passage.head(200, headers)
        for piece in pieces:
            await source.flowing.wait()
            passage.feed(piece)
        passage.end(fault)
        failure = await passage.first
        if failure is not None:
            passage.finish(Ending.by(failure))

    async def _farewell(self, problem: Refusal | Fault, spoken: Dialect | None) -> None:
        last = tell(problem, self._outlet, spoken, family_of(self._record.route), self._record)
        self.received.whole = last.whole
        await self._outlet.finish(last.words, whole=last.whole)


class _Paced:
    """The scripted upstream, as the gateway may slow it down."""

    def __init__(self) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()

    def pause(self) -> None:
        self.flowing.clear()

    def resume(self) -> None:
        self.flowing.set()
