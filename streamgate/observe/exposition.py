"""`/metrics`: folded on the loop, rendered off it, one at a time, kept for a second.

Rendering costs about 10 us per series; on the loop's own thread a large scrape would stop every stream for 100 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio.to_thread
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from streamgate.clock import monotonic
from streamgate.observe.metrics import StreamCollector, scrape
from streamgate.observe.observer import Observer

KEPT = 1.0  # seconds: several scrapers, or one that retries, cost one rendering


class Exposition:
    """Renders an observer's metrics; call it with the scraper's Accept header."""

    def __init__(self, observer: Observer, *, kept: float = KEPT) -> None:
        self._observer = observer
        self._kept = kept
        self._turn = asyncio.Lock()
        self._bodies: dict[str, tuple[float, bytes]] = {}
        self._collector = StreamCollector()
        self._registry = CollectorRegistry()
        self._registry.register(self._collector)
        for stock in (ProcessCollector, PlatformCollector, GCCollector):
            stock(registry=self._registry)

    async def __call__(self, accept: str) -> tuple[bytes, str]:
        """The body and its content type."""
        encode, content_type = choose_encoder(accept)
        async with self._turn:
            return await self._body(content_type, encode), content_type

    async def _body(self, content_type: str, encode: Callable[[Collector], bytes]) -> bytes:
        rendered_at, body = self._bodies.get(content_type, (0.0, b""))
        if body and monotonic() - rendered_at < self._kept:
            return body
        self._collector.scrape = await scrape(self._observer)
        body = await anyio.to_thread.run_sync(encode, self._registry)
        # One body only: a content type repeats parameters of the scraper's, which could be anything.
        self._bodies = {content_type: (monotonic(), body)}
        return body
