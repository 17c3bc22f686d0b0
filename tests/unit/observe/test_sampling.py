"""Which requests are traced."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from structlog.testing import CapturingLogger

from streamgate.observe.context import Incoming
from streamgate.observe.sampling import Sampler, longest_wait, sampler_of, unwanted
from streamgate.record import Outcome, StreamRecord

HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


def parent(*, sampled: bool) -> Incoming:
    return Incoming(1, 2, sampled, b"")


def record(*, first: float = 0.0, gap: float = 0.0, end: float = 1.0) -> StreamRecord:
    made = StreamRecord(100.0)
    made.t_read = 100.5
    made.t_first = 100.5 + first if first else 0.0
    made.max_gap = gap
    made.t_end = 100.5 + end
    return made


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("trace", [0, 1, (1 << 64) - 1, 1 << 62, (1 << 63) + 7, (1 << 127) + (1 << 60)])
def test_the_share_keeps_the_traces_that_opentelemetrys_sampler_keeps(share, trace):
    """Every service with the same ratio decides alike."""
    theirs = TraceIdRatioBased(share).should_sample(None, trace, "x").decision.is_sampled()
    assert bool(Sampler(share=share).head(trace, None)) is theirs


@pytest.mark.parametrize(
    ("trust", "sampled", "share", "kept"),
    [
        (False, True, 0.0, ""), (False, False, 1.0, "ratio"),
        (True, True, 0.0, "parent"), (True, False, 1.0, ""),
    ],
)  # fmt: skip
def test_a_parent_decides_only_when_it_is_trusted(trust, sampled, share, kept):
    """Else any client could have everything traced."""
    assert Sampler(share=share, trust_incoming=trust).head(5, parent(sampled=sampled)) == kept


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_broken_are_kept(outcome):
    """Every outcome but two; none when it is turned off."""
    kept = "" if outcome in (Outcome.COMPLETED, Outcome.CLIENT_CLOSED) else "broken"
    assert Sampler(slow=0.0).tail(record(), outcome) == kept
    assert Sampler(slow=0.0, broken=False).tail(record(), outcome) == ""


def test_a_refused_request_is_neither_slow_nor_broken():
    """Anybody can make a thousand of those."""
    assert Sampler(slow=0.1).tail(record(), None) == ""


@pytest.mark.parametrize(
    ("found", "wait"),
    [
        (record(first=3.0, gap=1.0, end=90.0), 3.0),
        (record(first=1.0, gap=4.0, end=90.0), 4.0),
        (record(end=5.0), 5.0),
    ],
)
def test_slow_is_how_long_the_client_waited(found, wait):
    """For the first token, between two, or for one that never came; a long answer that flows is not slow."""
    assert longest_wait(found) == wait
    assert Sampler(slow=wait).tail(found, Outcome.COMPLETED) == "slow"
    assert Sampler(slow=wait + 0.1).tail(found, Outcome.COMPLETED) == ""
    assert Sampler(slow=0.0).tail(found, Outcome.COMPLETED) == ""


def made(environ: dict[str, str], log: CapturingLogger | None = None, **more: object) -> Sampler:
    settings = {"sample": 0.1, "slow": 1.0, "broken": True, "trust_incoming": False} | more
    return sampler_of(environ, **settings, log=log or CapturingLogger())


@pytest.mark.parametrize(
    ("name", "argument", "share"),
    [
        (None, None, 0.1), ("", None, 0.1), ("always_on", None, 1.0), ("always_off", "0.5", 0.0),
        ("traceidratio", "0.25", 0.25), ("parentbased_traceidratio", "0.25", 0.25), ("traceidratio", None, 1.0),
        ("parentbased_always_on", None, 1.0),
    ],
)  # fmt: skip
def test_the_standard_variable_says_the_share(name, argument, share):
    """In place of the setting."""
    given = {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument}
    assert made({key: value for key, value in given.items() if value is not None}).share == share


@pytest.mark.parametrize(("name", "argument"), [("jaeger_remote", ""), ("traceidratio", "2"), ("traceidratio", "ten")])
def test_a_sampler_that_is_not_understood_is_said_and_left(name, argument):
    """The setting holds."""
    log = CapturingLogger()
    assert made({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument}, log).share == 0.1
    assert [call.method_name for call in log.calls] == ["warning"]


@pytest.mark.parametrize(
    ("environ", "settings", "why"),
    [
        (HERE, {}, ""),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, {}, ""),
        ({}, {}, "OTEL_EXPORTER_OTLP_ENDPOINT is not set"),
        (HERE | {"OTEL_SDK_DISABLED": "True"}, {}, "OTEL_SDK_DISABLED is true"),
        (HERE | {"OTEL_TRACES_EXPORTER": "none"}, {}, "OTEL_TRACES_EXPORTER is not otlp"),
        (HERE, {"sample": 0.0, "slow": 0.0, "broken": False}, "the settings ask for no traces"),
        (HERE, {"sample": 0.0, "slow": 0.0, "broken": False, "trust_incoming": True}, ""),
    ],
)
def test_when_nothing_is_exported(environ, settings, why):
    """And the reason that is given."""
    assert unwanted(environ, made(environ, **settings)) == why
