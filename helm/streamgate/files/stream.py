"""`helm test`: asks for a stream, and is content when tokens come and it ends as it should. Standard library only."""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit


def connected() -> http.client.HTTPConnection:
    at = urlsplit(os.environ["URL"])
    return http.client.HTTPConnection(at.hostname or "", at.port, timeout=float(os.environ.get("TIMEOUT", "60")))


def asked(method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
    """The open answer, which must be a 200."""
    headers = {"content-type": "application/json"} if body is not None else {}
    if os.environ.get("KEY"):
        headers["authorization"] = f"Bearer {os.environ['KEY']}"
    connection = connected()
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    if answer.status != 200:
        sys.exit(f"{method} {path}: {answer.status} {answer.read(2000).decode(errors='replace')}")
    return answer


def first_model() -> str:
    listed = json.load(asked("GET", "/v1/models"))["data"]
    if not listed:
        sys.exit("/v1/models is empty: set tests.model")
    return str(listed[0]["id"])


def events(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """What follows `data:`, as it arrives."""
    for line in answer:
        if line.startswith(b"data:"):
            yield line[5:].strip()


def main() -> None:
    model = os.environ.get("MODEL") or first_model()
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Count to five."}]}
    began = time.monotonic()
    answer = asked("POST", "/v1/chat/completions", body)
    times: list[float] = []
    last = b""
    for last in events(answer):
        if b'"error"' in last and "error" in json.loads(last):
            sys.exit(f"{model}: {last.decode()}")
        times.append(time.monotonic() - began)
    if last != b"[DONE]":
        sys.exit(f"{model}: the stream ended after {len(times)} events without [DONE]")
    sys.stdout.write(f"{model}: {len(times)} events, the first in {times[0]:.3f} s, the last in {times[-1]:.3f} s\n")


if __name__ == "__main__":
    main()
