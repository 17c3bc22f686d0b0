"""The one tree of errors: what each says to a client, and what it never says."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict

import pytest

from streamgate import errors
from streamgate.errors import Fault, Reason, Refusal


def below(kind: type[Fault]) -> list[type[Fault]]:
    return list(itertools.chain.from_iterable([each, *below(each)] for each in kind.__subclasses__()))


FAULTS = [Fault, *below(Fault)]
SECRET = "10.1.2.3:8000 sk-secret Traceback /srv/app.py"


def made(kind: type[Fault], detail: str = "") -> Fault:
    return errors.BadStatus(500, (), detail.encode()) if kind is errors.BadStatus else kind(detail)


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_can_be_told(kind: type[Fault]) -> None:
    """An error status, a machine-readable code, the attempt's label, and a sentence that names no internals."""
    assert kind.status in {500, 502, 503, 504} or kind is errors.Aborted  # 403: nothing failed
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)
    assert re.fullmatch(r"[a-z0-9_]+", kind.kind)
    assert re.fullmatch(r"(The|No) [A-Za-z ,;'/0-9-]+\.", kind.message)
    assert not re.search(r"(?i)traceback|exception|http://|sk-|\.py|[0-9]{1,3}\.[0-9]", kind.message)
    assert isinstance(kind.retryable, bool) and isinstance(kind.ejects, bool)


@pytest.mark.parametrize("kind", FAULTS)
def test_details_stay_inside(kind: type[Fault]) -> None:
    """What is for the log is in `detail` and in the exception's own text, never in `message`."""
    fault = made(kind, SECRET)
    assert SECRET not in fault.message and fault.message == kind.message
    if kind is not errors.BadStatus:
        assert fault.detail == SECRET and str(fault) == SECRET
        assert str(kind()) == kind.message


def test_codes_are_unique_where_they_are_meant_to_be() -> None:
    """A client can tell two causes apart by the code, except where the difference is the operator's business."""
    by_code: defaultdict[str, set[type[Fault]]] = defaultdict(set)
    for kind in FAULTS:
        by_code[kind.code].add(kind)
    shared = {code: kinds for code, kinds in by_code.items() if len(kinds) > 1}
    assert shared == {
        "upstream_error": {Fault, errors.ErrorEvent, errors.BadStatus},
        "upstream_unreachable": {errors.Unreachable, errors.NameNotResolved},
        "upstream_closed": {errors.ClosedEarly, errors.Stale},
    }


def test_timeouts_are_504_and_own_faults_are_not_502() -> None:
    """Who is at fault can be read off the status."""
    statuses = {kind: kind.status for kind in FAULTS}
    assert {kind for kind, status in statuses.items() if status == 504} == {
        errors.ConnectTimeout, errors.FirstTokenTimeout, errors.IdleTimeout, errors.Deadline,
    }  # fmt: skip
    assert {kind for kind, status in statuses.items() if status == 503} == {
        errors.Drained, errors.Killed, errors.PluginFailed,
    }  # fmt: skip
    assert {kind for kind, status in statuses.items() if status == 500} == {errors.Internal}


def test_what_is_not_the_upstreams_fault_does_not_eject_it() -> None:
    """A drain, an operator, plugins, our deadline, a stale connection and our own bugs say nothing of its health."""
    assert {kind for kind in FAULTS if not kind.ejects} == {
        errors.Stale, errors.Deadline, errors.Drained, errors.Killed, errors.Internal, errors.Aborted,
        errors.PluginFailed,
    }  # fmt: skip


def test_what_another_try_cannot_mend_is_not_tried_again() -> None:
    """The stream is over, or the answer would be the same."""
    assert {kind for kind in FAULTS if not kind.retryable} == {
        errors.Redirected, errors.EventTooLarge, errors.IdleTimeout, errors.Deadline, errors.Drained, errors.Killed,
        errors.Internal, errors.Aborted, errors.PluginFailed,
    }  # fmt: skip


def test_a_refusal_says_what_to_do() -> None:
    """Its code is the reason's word unless it has a better one."""
    refusal = Refusal(Reason.RATE, 429, "Too many.", retry_after=1.5)
    assert (refusal.code, refusal.status, refusal.retry_after) == ("rate", 429, 1.5)
    assert refusal.param is None and refusal.headers == ()
    assert str(refusal) == refusal.message == "Too many."
    assert Refusal(Reason.BAD_REQUEST, 400, "x", code="invalid_json", param="model").code == "invalid_json"
    assert isinstance(refusal, errors.StreamgateError) and not isinstance(refusal, Fault)


def test_the_reasons_are_the_contracts() -> None:
    """They are label values: `streamgate_requests_rejected_total{reason=...}`."""
    assert {reason.value for reason in Reason} == {
        "auth", "forbidden", "bad_request", "unsupported", "not_found", "method", "too_large", "body_timeout", "rate",
        "concurrency", "queue_full", "queue_timeout", "overload", "draining", "no_upstream", "plugin", "client_left",
    }  # fmt: skip


def test_an_error_event_keeps_the_upstreams_words_apart() -> None:
    """`said` may be passed on; the class's own sentence stands where there are none."""
    event = errors.ErrorEvent("CUDA out of memory", code="oom", frame=b"data: {}\n\n")
    assert (event.said, event.said_code, event.frame) == ("CUDA out of memory", "oom", b"data: {}\n\n")
    assert event.code == "upstream_error"
    assert errors.ErrorEvent().said == ""
    assert str(errors.ErrorEvent()) == Fault.message


def test_a_bad_status_keeps_the_answer() -> None:
    """Status, headers, body and the wait it asks for, for whoever decides to pass it on."""
    answer = errors.BadStatus(429, ((b"retry-after", b"2"),), b"{}", retry_after=2.0)
    assert (answer.answered, answer.body, answer.retry_after) == (429, b"{}", 2.0)
    assert answer.headers == ((b"retry-after", b"2"),)
    assert str(answer) == "status 429"
