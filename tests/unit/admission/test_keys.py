"""Who is asking."""

from __future__ import annotations

import contextlib
import hmac
from hashlib import sha256

import pytest

from streamgate.admission.identity import ANONYMOUS, Identity
from streamgate.admission.keys import Keys, Ring, StaticKey, digest_of, new_key
from streamgate.errors import Reason, Refusal

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0
ALICE = (b"authorization", b"Bearer sk-alice")


def known(name: str, key: str, **more: object) -> StaticKey:
    return StaticKey(sha256(key.encode()).digest(), Identity(key=name, tenant=name, **more))  # type: ignore[arg-type]


LISTED = [
    known("alice", "sk-alice"),
    known("bob", "sk-bob"),
    known("carol", "schlüssel-Ω"),
    known("dave", "sk-dave"),
    known("late", "sk-late", expires=NOW),
    known("early", "sk-early", expires=NOW + 0.5),
]
KEYS = Keys(LISTED)


async def refused(keys: Keys, *headers: tuple[bytes, bytes], code: str = "invalid_api_key") -> Refusal:
    with pytest.raises(Refusal) as caught:
        await keys.identify(headers, NOW)
    assert caught.value.reason is Reason.AUTH
    assert (caught.value.status, caught.value.code) == (401, code)
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
        ((b"x-api-key", b"sk-early"), "early"),
    ],
)
async def test_a_known_key_names_its_tenant(header: tuple[bytes, bytes], tenant: str) -> None:
    """In either header, whatever the case of the scheme and the spaces around it, in any alphabet."""
    found = await KEYS.identify([(b"host", b"gateway"), header, (b"accept", b"*/*")], NOW)
    assert (found.key, found.tenant) == (tenant, tenant)


@pytest.mark.parametrize("headers", [(), ((b"cookie", b"sk-alice"),), ((b"api-key", b"sk-alice"),)])
async def test_no_key_is_asked_for(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """Nothing that carries a key was sent."""
    assert "required" in (await refused(KEYS, *headers)).message


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
        (b"authorization", b"Bearer a.b.c"),
        (b"x-api-key", b""),
        (b"x-api-key", b"Bearer sk-alice"),
        (b"authorization", "Bearer schlüssel-Ω".encode("utf-16")),
        (b"authorization", "Bearer schlüssel".encode("latin-1")),
        (b"x-api-key", bytes(range(128, 256))),
    ],
)
async def test_an_unknown_key_is_refused(header: tuple[bytes, bytes]) -> None:
    """Nearly right, empty, under another scheme, or bytes that are no text: none of it is a key or an error of ours."""
    refusal = await refused(KEYS, header)
    assert "not valid" in refusal.message
    assert "sk-" not in refusal.message


async def test_a_key_ends_in_the_moment_it_says() -> None:
    """Until then it is good; then it is expired, which is another code than unknown."""
    assert "expired" in (await refused(KEYS, (b"x-api-key", b"sk-late"), code="expired_api_key")).message


@pytest.mark.parametrize(
    "headers",
    [
        (ALICE, (b"x-api-key", b"sk-bob")),
        (ALICE, (b"authorization", b"Bearer sk-bob")),
        ((b"x-api-key", b"sk-alice"), (b"x-api-key", b"sk-mallory")),
        (ALICE, (b"x-api-key", b"")),
    ],
)
async def test_two_different_keys_are_refused(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """Whoever chose one of them would be guessing, and a proxy before us may have guessed otherwise."""
    assert "different" in (await refused(KEYS, *headers)).message
    assert "different" in (await refused(KEYS, *reversed(headers))).message


async def test_the_same_key_twice_is_one_key() -> None:
    """Some clients send both headers."""
    assert (await KEYS.identify([ALICE, (b"x-api-key", b"sk-alice"), ALICE], NOW)).tenant == "alice"


@pytest.mark.parametrize("headers", [(), (ALICE,), ((b"x-api-key", b"a"), (b"authorization", b"b"))])
async def test_without_keys_everybody_may_ask(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """As nobody in particular, with or without a key of theirs."""
    assert await Keys().identify(headers, NOW) is ANONYMOUS
    nobody = Identity(priority="interactive")
    assert await Keys(anonymous=nobody).identify(headers, NOW) is nobody


async def test_an_empty_list_lets_nobody_in() -> None:
    """No keys that are known is not the same as no keys that are needed."""
    await refused(Keys(()), ALICE)


async def test_keys_of_a_file_and_tokens_are_asked_in_turn() -> None:
    """What the configuration does not know the file may; what neither knows may be a token, if it looks like one."""

    class File:
        async def current(self) -> Ring:
            return Ring([known("filed", "sk-filed")])

    class Tokens:
        async def identify(self, token: bytes, now: float) -> Identity:
            return Identity(tenant=token.decode(), expires=0.0 if token == b"a.b.c" else now)

    keys = Keys(LISTED, file=File(), tokens=Tokens())
    assert (await keys.identify([ALICE], NOW)).tenant == "alice"
    assert (await keys.identify([(b"x-api-key", b"sk-filed")], NOW)).tenant == "filed"
    assert (await keys.identify([(b"authorization", b"Bearer a.b.c")], NOW)).tenant == "a.b.c"
    await refused(keys, (b"authorization", b"Bearer x.y.z"), code="expired_api_key")
    await refused(keys, (b"authorization", b"Bearer a.b"))
    assert not Keys(file=File()).open and not Keys(tokens=Tokens()).open


@pytest.mark.parametrize("key", [b"sk-alice", b"sk-dave", b"sk-mallory", b""])
async def test_whole_digests_are_compared_in_constant_time(key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One comparison of two whole digests, whether there is such a key or not, and however many others there are."""
    lengths: list[int] = []
    compare = hmac.compare_digest

    def counted(known: bytes, given: bytes) -> bool:
        lengths.extend((len(known), len(given)))
        return compare(known, given)

    monkeypatch.setattr("streamgate.admission.keys.hmac.compare_digest", counted)
    with contextlib.suppress(Refusal):
        await KEYS.identify([(b"x-api-key", key)], NOW)
    assert lengths == [32] * 2


def test_digests_that_begin_alike_are_told_apart() -> None:
    """The first bytes only find the candidates."""
    first, second = bytes(32), bytes(31) + b"\x01"
    ring = Ring([StaticKey(first, Identity(key="first")), StaticKey(second, Identity(key="second"))])
    assert [found.key for found in (ring.find(first), ring.find(second)) if found] == ["first", "second"]
    assert ring.find(bytes(30) + b"\x01\x01") is None
    assert Ring().find(bytes(32)) is None  # what is compared when there is no candidate opens no door


def test_keys_are_not_kept() -> None:
    """Only digests are: a dump of the memory shows no key."""
    assert "sk-alice" not in repr(vars(KEYS)) + repr(vars(KEYS._static)) + repr(LISTED)


def test_a_new_key_cannot_be_guessed() -> None:
    """`sg-` and 43 characters for a URL, never the same; its digest is what a request's key is compared by."""
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    for key in made:
        assert key.startswith("sg-") and len(key) == 46 and key.isascii()
        assert bytes.fromhex(digest_of(key)) == sha256(key.encode()).digest()
