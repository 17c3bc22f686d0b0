"""W3C trace context, in and out."""

from __future__ import annotations

import pytest

from streamgate.observe.context import incoming, outgoing

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()


def test_a_valid_context_is_read():
    """Ids, the sampled flag and the state, several headers joined."""
    got = incoming([(b"host", b"x"), (b"traceparent", PARENT), (b"tracestate", b"a=b"), (b"tracestate", b"c=d")])
    assert got == (int(TRACE, 16), int(SPAN, 16), True, b"a=b,c=d")


@pytest.mark.parametrize(("flags", "sampled"), [(b"00", False), (b"01", True), (b"02", False), (b"03", True)])
def test_only_the_lowest_flag_says_sampled(flags, sampled):
    """The others are for other things."""
    got = incoming([(b"traceparent", PARENT[:-2] + flags)])
    assert got is not None and got.sampled is sampled


@pytest.mark.parametrize(
    "values",
    [
        [], [PARENT, PARENT], [b"hello"], [PARENT.upper()], [b"ff" + PARENT[2:]], [PARENT[:-3]],
        [f"00-{'0' * 32}-{SPAN}-01".encode()], [f"00-{TRACE}-{'0' * 16}-01".encode()],
    ],
)  # fmt: skip
def test_anything_else_is_no_context(values):
    """Absent, repeated or malformed: a new trace begins, without the old one's state."""
    assert incoming([*((b"traceparent", value) for value in values), (b"tracestate", b"a=b")]) is None


def test_a_state_that_is_too_long_stays_behind():
    """512 characters are all that anybody must carry."""
    got = incoming([(b"traceparent", PARENT), (b"tracestate", b"a=" + b"b" * 511)])
    assert got is not None and got.state == b""


@pytest.mark.parametrize("sampled", [True, False])
def test_what_goes_out_is_ours_alone(sampled):
    """A client's own context is replaced; it can be read back."""
    headers = [(b"accept", b"*/*"), (b"traceparent", PARENT), (b"tracestate", b"x=y")]
    sent = outgoing(headers, 7, 9, sampled=sampled, state=b"a=b")
    assert [name for name, _ in sent] == [b"accept", b"traceparent", b"tracestate"]
    assert incoming(sent) == (7, 9, sampled, b"a=b")
    assert [name for name, _ in outgoing(headers, 7, 9, sampled=sampled)] == [b"accept", b"traceparent"]
