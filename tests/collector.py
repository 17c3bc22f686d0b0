"""A real collector (rotel) between a gateway and a receiver that keeps every span it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import importlib.util
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from tests.ports import free_port

PATIENCE = 10.0


class Span(NamedTuple):
    """What arrived, in plain values. `status`: 0 unset, 1 ok, 2 error; `kind`: 2 SERVER, 3 CLIENT."""

    name: str
    kind: int
    trace: str
    span: str
    parent: str
    status: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    schema: str


class Receiver:
    """An OTLP/HTTP server."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.url = ""
        self._more = asyncio.Event()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def some(self, count: int) -> list[Span]:
        """Wait for so many spans."""
        async with asyncio.timeout(PATIENCE):
            while len(self.spans) < count:
                self._more.clear()
                await self._more.wait()
        return self.spans

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                self._keep(gzip.decompress(body) if b"content-encoding: gzip" in head else body)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    def _keep(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Span(
                            span.name, span.kind, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                            span.status.code, plain(span.attributes), plain(resource.resource.attributes),
                            scope.schema_url,
                        )
                    )  # fmt: skip
        self._more.set()


def plain(attributes: Any) -> dict[str, Any]:
    return {each.key: value_of(each.value) for each in attributes if isinstance(each, KeyValue)}


def value_of(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(each) for each in value.array_value.values]
    return getattr(value, kind or "string_value")


@contextlib.asynccontextmanager
async def collector(receiver: Receiver, folder: Path) -> AsyncIterator[str]:
    """rotel, in front of the receiver; its address."""
    found = importlib.util.find_spec("rotel")
    if found is None or found.origin is None:
        pytest.fail("rotel is not installed: it is in the extra `test`")
    own, other = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        Path(found.origin).with_name("rotel-agent"), "start",
        "--otlp-http-endpoint", f"127.0.0.1:{own}", "--otlp-grpc-endpoint", f"127.0.0.1:{other}",
        "--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint", receiver.url,
        "--pid-file", str(folder / "rotel.pid"),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.environ.get("PATH", "")},
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{own}"
    finally:
        process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]
