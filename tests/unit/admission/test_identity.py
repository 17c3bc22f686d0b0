"""What one who asks may do."""

from __future__ import annotations

import time

import pytest

from streamgate.admission.identity import ANONYMOUS, NO_MODEL, Identity, smallest


@pytest.mark.parametrize(
    ("globs", "model", "allowed"),
    [
        ((), "anything", True),
        (("llama-8b",), "llama-8b", True),
        (("llama-8b",), "llama-8b2", False),
        (("llama-8b",), "LLAMA-8B", False),
        (("llama-*",), "llama-", True),
        (("llama-*",), "allama-8b", False),
        (("llama-?b",), "llama-8b", True),
        (("llama-?b",), "llama-70b", False),
        (("a", "b*"), "bc", True),
        (("*",), "x\ny", True),
        (("m[12]",), "m1", False),
        (("m[12]",), "m[12]", True),
        (("m.x",), "m+x", False),
        (NO_MODEL, "m", False),
    ],
)
def test_models_are_matched_as_routes_do(globs: tuple[str, ...], model: str, allowed: bool) -> None:
    """Whole names; `*` is any text, `?` one character, case counts, nothing else is special."""
    assert Identity(models=globs).may(model) is allowed


@pytest.mark.parametrize(
    ("globs", "route", "allowed"),
    [
        ((), ("*",), True),
        (("*",), ("*",), True),
        (("whisper-*",), ("whisper-1",), True),
        (("whisper-*",), ("whisper-1", "other"), False),
        (("whisper-*",), ("whisper-1*",), True),
        (("whisper-1*",), ("whisper-*",), False),
        (("whisper-?",), ("whisper-*",), False),  # one character is not any text
        (("whisper-*",), ("whisper-?",), True),
        (("whisper-?",), ("whisper-?",), True),
        (("whisper-1",), ("*",), False),
        (("whi?per-*", "b"), ("whi?per-*",), True),
        (NO_MODEL, ("m",), False),
    ],
)
def test_a_request_without_a_model_needs_all_of_the_routes(
    globs: tuple[str, ...], route: tuple[str, ...], allowed: bool
) -> None:
    """What may be for any model of the route is for a key that may use every one of them."""
    assert Identity(models=globs).may_all(route) is allowed


def test_matching_takes_no_time() -> None:
    """Globs with many stars are not tried in every way: a long name of a model cannot stop the others' streams."""
    identity = Identity(models=("*a" * 40 + "b",))
    began = time.perf_counter()
    assert not identity.may("a" * 256)
    assert time.perf_counter() - began < 0.1


def test_the_smallest_limit_holds() -> None:
    """0 is none."""
    assert smallest() == smallest(0, 0) == 0
    assert smallest(0, 5, 3) == 3


def test_everybody_may_use_everything() -> None:
    """Where no keys are set."""
    assert ANONYMOUS.may("anything") and ANONYMOUS.may_all(("*",)) and not ANONYMOUS.expires
    assert {ANONYMOUS, Identity()} == {Identity()}
