"""Hides personal data and keys in requests and in answers, wherever tokens cut them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from streamgate.hooks import Facade, Kept, Plugin, Refuse, Request, Stream, Text, UpstreamRequest
from streamgate_redact.patterns import Rule
from streamgate_redact.request import Unreadable, hidden
from streamgate_redact.scan import Place, Scanner, Seal
from streamgate_redact.seal import Hashed
from streamgate_redact.settings import RedactSettings

AT_ONCE: Final = 32 * 1024  # bytes of a request, 4 ms; longer ones are read in a thread

Body = Mapping[str, Any]


class Case:
    """One stream: where its texts have got to, and whether trusted upstreams alone may see its request."""

    __slots__ = ("confined", "places")

    def __init__(self) -> None:
        self.places: dict[tuple[int, str], Place] = {}
        self.confined = False


class Redact(Plugin):
    """Hides e-mail addresses, card numbers, keys and patterns of one's own. See the README for the settings."""

    Settings = RedactSettings
    fail = "closed"  # what could not be looked at does not leave

    def __init__(self, settings: RedactSettings, gateway: Facade) -> None:
        super().__init__(settings, gateway)
        rules = settings.rules()
        self._reads = "in" in settings.direction
        self._writes = "out" in settings.direction
        self._trusted = settings.trusted
        self._scanner = Scanner(rules, sealed=settings.hash_key is not None)
        self._labels = {rule.name: settings.labels.get(rule.name, f"[{rule.name}]") for rule in rules}
        self._key = None if settings.hash_key is None else settings.hash_key.get_secret_value().encode()
        self._redacted = gateway.metrics.counter("redacted_total", "Matches that were hidden.", ["pattern"])
        self.window = self._scanner.window

    async def on_request(self, request: Request, stream: Stream) -> Request | None:
        if not self._reads or request.json is None:
            return None
        try:
            body, found = await self._searched(request.json, len(request.body))
        except Unreadable:
            raise Refuse(400, "unreadable_prompt", "A prompt of token ids cannot be checked; send text.") from None
        if body is request.json:
            return None
        if self._trusted:
            _case(stream).confined = True
            return None
        self._count(found)
        return request.replaced(json=body)

    def choose_upstream(self, names: Sequence[str], stream: Stream) -> Sequence[str] | None:
        """Trusted ones first, for a request in which there is something to hide."""
        if not self._trusted or not _case(stream).confined:
            return None
        return sorted(names, key=self._is_trusted, reverse=True)

    async def on_upstream_request(self, call: UpstreamRequest, stream: Stream) -> UpstreamRequest | None:
        """With trusted upstreams, it is decided at each try what the upstream gets to see."""
        if not self._trusted or not _case(stream).confined or call.body is None or self._is_trusted(call.upstream):
            return None
        body, found = await self._searched(call.json, len(call.body))
        self._count(found)
        return call.replaced(json=body)

    def on_text(self, text: Text, stream: Stream) -> str | Kept:
        if not self._writes:
            return text.pending
        places = _case(stream).places
        key = (text.choice, text.field)
        place = places.get(key)
        if place is None:
            place = places[key] = Place(self._counted)
        out, keep = self._scanner.feed(place, text.pending, final=text.final)
        return Kept(out, keep) if keep else out

    async def _searched(self, body: Body, size: int) -> tuple[Body, Counter[str]]:
        """The body with nothing to hide in it (the same one where there was nothing), and what was hidden."""
        if size <= AT_ONCE:
            return self._hidden(body)
        return await asyncio.to_thread(self._hidden, body)

    def _hidden(self, body: Body) -> tuple[Body, Counter[str]]:
        """Maybe in a thread, so it counts for itself."""
        found: Counter[str] = Counter()

        def label(rule: Rule) -> str | Seal:
            found[rule.name] += 1
            return self._label(rule)

        return hidden(body, lambda text: self._scanner.whole(text, label)), found

    def _is_trusted(self, upstream: str) -> bool:
        return any(fnmatchcase(upstream, glob) for glob in self._trusted)

    def _count(self, found: Counter[str]) -> None:
        for name, times in found.items():
            self._redacted.inc(times, pattern=name)

    def _counted(self, rule: Rule) -> str | Seal:
        self._redacted.inc(pattern=rule.name)
        return self._label(rule)

    def _label(self, rule: Rule) -> str | Seal:
        return self._labels[rule.name] if self._key is None else Hashed(rule.name, self._key)


def _case(stream: Stream) -> Case:
    case: Case | None = stream.state
    if case is None:
        case = stream.state = Case()
    return case
