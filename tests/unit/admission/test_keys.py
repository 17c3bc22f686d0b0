"""Who is asking."""

from __future__ import annotations

import contextlib
import hmac

import pytest

from streamgate.admission.keys import Keys
from streamgate.errors import Reason, Refusal

KEYS = Keys({"alice": "sk-alice", "bob": "sk-bob", "carol": "schlüssel-Ω", "dave": "sk-dave"})
ALICE = (b"authorization", b"Bearer sk-alice")


def refused(keys: Keys, *headers: tuple[bytes, bytes]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        keys.tenant(headers)
    assert caught.value.reason is Reason.AUTH
    assert caught.value.status == 401
    assert caught.value.code == "invalid_api_key"
    assert (b"www-authenticate", b"Bearer") in caught.value.headers
    return caught.value


@pytest.mark.parametrize(
    ("header", "tenant"),
    [
        (ALICE, "alice"),
        ((b"authorization", b"bearer sk-bob"), "bob"),
        ((b"authorization", b"  BEARER   sk-bob  "), "bob"),
        ((b"x-api-key", b"sk-dave"), "dave"),
        ((b"x-api-key", b" sk-dave "), "dave"),
        ((b"authorization", "Bearer schlüssel-Ω".encode()), "carol"),
        ((b"x-api-key", "schlüssel-Ω".encode()), "carol"),
    ],
)
def test_a_known_key_names_its_tenant(header: tuple[bytes, bytes], tenant: str) -> None:
    """In either header, whatever the case of the scheme and the spaces around it, in any alphabet."""
    assert KEYS.tenant([(b"host", b"gateway"), header, (b"accept", b"*/*")]) == tenant


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"cookie", b"sk-alice"),),
        ((b"api-key", b"sk-alice"),),
    ],
)
def test_no_key_is_asked_for(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """Nothing that carries a key was sent."""
    assert "required" in refused(KEYS, *headers).message


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer sk-mallory"),
        (b"authorization", b"Bearer SK-ALICE"),
        (b"authorization", b"Bearer sk-alice2"),
        (b"authorization", b"Bearer sk-alic"),
        (b"authorization", b"Bearer "),
        (b"authorization", b"Bearer"),
        (b"authorization", b""),
        (b"authorization", b"sk-alice"),
        (b"authorization", b"Basic sk-alice"),
        (b"authorization", b"Bearer\tsk-alice"),
        (b"x-api-key", b""),
        (b"x-api-key", b"Bearer sk-alice"),
        (b"authorization", "Bearer schlüssel-Ω".encode("utf-16")),
        (b"authorization", "Bearer schlüssel".encode("latin-1")),
        (b"x-api-key", bytes(range(128, 256))),
    ],
)
def test_an_unknown_key_is_refused(header: tuple[bytes, bytes]) -> None:
    """Nearly right, empty, under another scheme, or bytes that are no text: none of it is a key or an error of ours."""
    refusal = refused(KEYS, header)
    assert "not valid" in refusal.message
    assert "sk-" not in refusal.message


@pytest.mark.parametrize(
    "headers",
    [
        (ALICE, (b"x-api-key", b"sk-bob")),
        (ALICE, (b"authorization", b"Bearer sk-bob")),
        ((b"x-api-key", b"sk-alice"), (b"x-api-key", b"sk-mallory")),
        (ALICE, (b"x-api-key", b"")),
    ],
)
def test_two_different_keys_are_refused(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """Whoever chose one of them would be guessing, and a proxy before us may have guessed otherwise."""
    assert "different" in refused(KEYS, *headers).message
    assert "different" in refused(KEYS, *reversed(headers)).message


def test_the_same_key_twice_is_one_key() -> None:
    """Some clients send both headers."""
    assert KEYS.tenant([ALICE, (b"x-api-key", b"sk-alice"), ALICE]) == "alice"


@pytest.mark.parametrize("headers", [(), (ALICE,), ((b"x-api-key", b"a"), (b"authorization", b"b"))])
def test_without_a_list_everybody_may_ask(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """As nobody in particular, with or without a key of theirs."""
    assert Keys({}).tenant(headers) == ""


@pytest.mark.parametrize("key", [b"sk-alice", b"sk-dave", b"sk-mallory", b""])
def test_every_digest_is_compared_whichever_matches(key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number of constant-time comparisons of equally long digests for the first, the last, and no match."""
    lengths: list[int] = []
    compare = hmac.compare_digest

    def counted(known: bytes, given: bytes) -> bool:
        lengths.extend((len(known), len(given)))
        return compare(known, given)

    monkeypatch.setattr("streamgate.admission.keys.hmac.compare_digest", counted)
    with contextlib.suppress(Refusal):
        KEYS.tenant([(b"x-api-key", key)])
    assert lengths == [32] * 8


def test_keys_are_not_kept() -> None:
    """Only digests are: a dump of the memory shows no key."""
    assert "sk-alice" not in repr(vars(Keys({"alice": "sk-alice"})))
