"""Events of `/v1/completions`."""

from __future__ import annotations

import pytest

from streamgate.dialects.dialect import Dialect, Seen, Sight
from streamgate.dialects.openai_completions import OPENAI_COMPLETIONS

DIALECT: Dialect = OPENAI_COMPLETIONS
S, F = Sight.SEMANTIC, Sight.FINISH

CHOICES = [
    (b'{"index":0,"text":" time","logprobs":null,"finish_reason":null,"token_ids":null}', S),
    (b'{"text": " a", "index": 0, "logprobs": null, "finish_reason": null}', S),
    (b'{"finish_reason":null,"text":" a","index":0}', S),
    (b'{"index":0,"text":"\\"}\\n"}', S),
    (b'{"index":0,"text":""}', Sight.NOTHING),
    (b'{"index":0,"text":null}', Sight.NOTHING),
    (b'{"index":0}', Sight.NOTHING),
    (b'{"index":0,"text":" in","finish_reason":"length"}', S | F),
    (b'{"text":"","index":0,"finish_reason":"length"}', S | F),
    (b'{"index":0,"text":"x","logprobs":{"tokens":["x"]},"finish_reason":null}', S),
]


def meant(sight: int) -> int:
    """What was seen, without the hint that it was nothing out of the ordinary."""
    return sight & ~Sight.ORDINARY


@pytest.mark.parametrize(("choice", "sight"), CHOICES)
def test_choice(choice: bytes, sight: int) -> None:
    """Text that is not empty is progress, and so is a finish reason."""
    seen = Seen()
    assert meant(DIALECT.scan(b'data: {"id":"c","choices":[' + choice + b'],"model":"m"}\n\n', seen)) == sight
    assert (seen.events, seen.choices) == (1, {0})
    assert seen.finished == ({0: "length"} if sight & F else {})


def test_identity() -> None:
    """A dialect has a name and a ping that every client survives."""
    assert (DIALECT.name, DIALECT.ping) == ("openai_completions", b": ping\n")
