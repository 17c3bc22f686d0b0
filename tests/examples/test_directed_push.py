"""examples/directed_push.py"""

from __future__ import annotations

import contextlib
import json
import time

import httpx
import pytest
from httpx_sse import connect_sse


def emit(client, recipient, text):
    answer = client.post("/emit", json={"recipient": recipient, "text": text})
    assert answer.status_code == 200
    return answer.json()["reached"]


def test_a_message_reaches_its_recipient_and_nobody_else(running):
    """All streams of the recipient get it, each once; the stream of another gets only its own."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx.Client(base_url=stack.enter_context(running("directed_push")), timeout=10))
        ann, ann_again, bob = (
            stack.enter_context(connect_sse(client, "GET", f"/subscribe/{name}")).iter_sse()
            for name in ("ann", "ann", "bob")
        )
        assert emit(client, "ann", "for ann") == 2
        assert emit(client, "bob", "for bob\nin two lines") == 1
        assert json.loads(next(ann).data) == json.loads(next(ann_again).data) == {"text": "for ann"}
        assert json.loads(next(bob).data) == {"text": "for bob\nin two lines"}


def test_nobody_listens_before_and_after(running):
    """The answer to /emit says that nobody took it, before the first subscription and after the last."""
    with running("directed_push") as url, httpx.Client(base_url=url, timeout=10) as client:
        assert emit(client, "ann", "hello") == 0
        with connect_sse(client, "GET", "/subscribe/ann"):
            assert emit(client, "ann", "hello") == 1
        deadline = time.monotonic() + 10
        while emit(client, "ann", "are you gone?"):
            assert time.monotonic() < deadline


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"recipient": "ann"}', b'{"recipient": 1, "text": "a"}'])
def test_what_is_no_message_is_refused(running, body):
    """A body that is not an object with two strings gets a 400 which says so."""
    with running("directed_push") as url:
        answer = httpx.post(f"{url}/emit", content=body)
        assert (answer.status_code, list(answer.json())) == (400, ["error"])
