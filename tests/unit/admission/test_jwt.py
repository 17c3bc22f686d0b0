"""Tokens: real signatures, and every way in which one can be wrong."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from typing import Any

import jwt
import pytest

from streamgate.admission.claim import Limits
from streamgate.admission.identity import NO_MODEL, Identity
from streamgate.admission.jwks import KeySet
from streamgate.admission.jwt import REMEMBERED, JsonWebTokens, TokenSettings
from streamgate.errors import Refusal
from tests.tokens import AUDIENCE, ISSUER, Issuer

pytestmark = pytest.mark.anyio

OURS, OTHERS = Issuer(), Issuer()
ALL = ("RS256", "PS256", "ES256", "EdDSA")
LIMITS = Limits(concurrent=3)


def member(tenant: str, priority: str | None) -> Identity:
    return Identity(key=f"jwt:{tenant}", tenant=tenant, priority=priority or "interactive", limits=LIMITS)


class Bench:
    """Tokens of an issuer whose keys the test sets, and how often they were judged."""

    def __init__(self, *kids: str, **settings: Any) -> None:
        self.text: bytes | None = OURS.jwks(*kids)
        settings = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ALL} | settings
        self.failed: list[str] = []
        self.keys = KeySet(self.fetch, failed=self.failed.append)
        self.tokens = JsonWebTokens(TokenSettings(**settings), self.keys, member)

    def fetch(self) -> bytes:
        if self.text is None:
            raise OSError("down")
        return self.text

    async def who(self, token: str | bytes) -> Identity:
        return await self.tokens.identify(token.encode() if isinstance(token, str) else token, time.time())

    async def refused(self, token: str | bytes, code: str = "invalid_api_key", status: int = 401) -> str:
        with pytest.raises(Refusal) as caught:
            await self.who(token)
        assert (caught.value.status, caught.value.code) == (status, code), caught.value.message
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        return caught.value.message


@pytest.mark.parametrize(("kid", "algorithm"), [("rsa", "RS256"), ("rsa", "PS256"), ("ec", "ES256"), ("ed", "EdDSA")])
async def test_a_good_token_names_its_tenant(kid: str, algorithm: str) -> None:
    """Of each kind of key; whose limits hold is said elsewhere; it ends with the token, and the clocks' leeway."""
    expires = int(time.time()) + 600
    found = await Bench().who(OURS.token(kid, algorithm, exp=expires, aud=["other", AUDIENCE]))
    assert (found.tenant, found.key, found.priority, found.limits) == ("alice", "jwt:alice", "interactive", LIMITS)
    assert found.expires == expires + 30.0 and found.models == ()


async def test_claims_say_class_and_models() -> None:
    """Where the configuration names them; an empty list of models allows none, which is not the same as all."""
    bench = Bench(tenant_claim="org", priority_claim="class", models_claim="models")
    found = await bench.who(OURS.token(org="acme", models=["llama-*"], **{"class": "batch"}))
    assert (found.tenant, found.priority, found.models) == ("acme", "batch", ("llama-*",))
    found = await bench.who(OURS.token(org="acme", models=[], **{"class": 7}))
    assert (found.priority, found.models) == ("interactive", NO_MODEL) and not found.may("llama-8b")
    for models in (None, "llama", [1], {"a": 1}):
        assert "models" in await bench.refused(OURS.token(org="acme", models=models))


@pytest.mark.parametrize("tenant", [None, "", "x" * 129, "a\nb", "a\u202eb"])
async def test_a_tenant_is_text(tenant: str | None) -> None:
    """It goes to logs."""
    bench = Bench(tenant_claim="org")
    assert "org" in await bench.refused(OURS.token(org=tenant))
    assert "org" in await bench.refused(OURS.token(org=7))


@pytest.mark.parametrize(
    ("claims", "code", "says"),
    [
        ({"exp": 1_000_000_000}, "expired_api_key", "expired"),
        ({"exp": time.time() - 31}, "expired_api_key", "expired"),
        ({"exp": None}, "invalid_api_key", "not valid"),
        ({"exp": "soon"}, "invalid_api_key", "not valid"),
        ({"exp": float("inf")}, "invalid_api_key", "not valid"),
        ({"aud": "other"}, "invalid_api_key", "another audience"),
        ({"aud": None}, "invalid_api_key", "not valid"),
        ({"iss": "https://issuer.test"}, "invalid_api_key", "another issuer"),
        ({"iss": None}, "invalid_api_key", "not valid"),
        ({"nbf": time.time() + 3600}, "invalid_api_key", "not valid yet"),
        ({"iat": time.time() + 3600}, "invalid_api_key", "not valid yet"),
    ],
)
async def test_a_claim_that_is_wrong(claims: dict[str, Any], code: str, says: str) -> None:
    """The message says what is wrong, as far as it helps its owner; the code tells an expired token from others."""
    assert says in await Bench().refused(OURS.token(**claims), code)


async def test_a_little_late_is_not_expired() -> None:
    """Clocks differ."""
    assert (await Bench().who(OURS.token(exp=time.time() - 20))).tenant == "alice"
    assert "expired" in await Bench(leeway=0.0).refused(OURS.token(exp=time.time() - 20), "expired_api_key")


def forged(head: dict[str, Any], signature: bytes = b"", claims: dict[str, Any] | None = None) -> bytes:
    said = claims or {"iss": ISSUER, "aud": AUDIENCE, "sub": "root", "exp": time.time() + 600}
    parts = [json.dumps(head).encode(), json.dumps(said).encode(), signature]
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)


async def test_a_foreign_signature_is_no_signature() -> None:
    """Another issuer's key under the same id, a changed payload, another's signature, none at all."""
    bench = Bench()
    good, other = OURS.token(), OURS.token(sub="bob")
    head, _, signature = good.split(".")
    for token in (OTHERS.token(), f"{head}.{other.split('.')[1]}.{signature}", good[:-8] + "AAAAAAAA", f"{head}.."):
        await bench.refused(token)
    assert "algorithm" in await bench.refused(forged({"alg": "none", "kid": "rsa"}))
    assert "algorithm" in await bench.refused(forged({"alg": "HS256", "kid": "rsa"}))
    assert "algorithm" in await bench.refused(forged({"kid": "rsa"}))
    await bench.refused(forged({"alg": "RS256", "kid": "rsa"}, b"x" * 256))


async def test_a_key_is_used_for_its_own_algorithm_only() -> None:
    """An elliptic key does not check RSA, and one that says RS256 does not check PS256."""
    bench = Bench()
    await bench.refused(jwt.encode({"sub": "x"}, OURS.rsa, "RS256", headers={"kid": "ec"}))
    assert (await Bench("rsa").who(OURS.token("rsa", "PS256"))).tenant == "alice"
    narrow = Bench("rsa")
    narrow.text = OURS.jwks("rsa", alg="RS256")
    assert (await narrow.who(OURS.token("rsa", "RS256"))).tenant == "alice"
    await narrow.refused(OURS.token("rsa", "PS256"))
    assert "algorithm" in await Bench(algorithms=("ES256",)).refused(OURS.token("rsa"))


async def test_a_public_key_is_not_a_shared_secret() -> None:
    """The old trick: HS256, signed with the text of the public key. Not even when the issuer's set holds a secret."""
    secret = base64.urlsafe_b64encode(b"s" * 32).rstrip(b"=").decode()
    bench = Bench()
    bench.text = json.dumps({"keys": [{"kty": "oct", "k": secret, "kid": "oct"}, OURS.public("rsa")]}).encode()
    token = jwt.encode({"sub": "root"}, b"s" * 32, "HS256", headers={"kid": "oct"})
    assert "algorithm" in await bench.refused(token)


async def test_a_key_that_is_none_is_left_out() -> None:
    """A broken key of the set makes the tokens of that key bad, not the others'."""
    bench = Bench()
    bench.text = json.dumps({"keys": [{"kty": "RSA", "kid": "rsa", "n": "!", "e": "AQAB"}, OURS.public("ec")]}).encode()
    await bench.refused(OURS.token("rsa"))
    assert (await bench.who(OURS.token("ec"))).tenant == "alice"


@pytest.mark.parametrize(
    "token",
    [
        b"a.b.c",
        b"..",
        b"\xff.\xfe.\xfd",
        b"e30.e30.e30",
        b"W10.e30.e30",
        base64.urlsafe_b64encode(b"[" * 9000).rstrip(b"=") + b".e30.e30",
        b"." + b"a" * 20000 + b".",
        forged({"alg": "RS256", "kid": 7}),
        forged({"alg": ["RS256"], "kid": "rsa"}),
        forged({"alg": "RS256", "kid": "rsa", "crit": ["x"]}),
        forged({"alg": "RS256", "kid": "nobody"}),
        forged({"alg": "RS256"}),
    ],
    ids=range(12),
)
async def test_what_is_no_token(token: bytes) -> None:
    """Refused as any other unknown key, never an error of ours."""
    await Bench().refused(token)


async def test_an_issuer_that_is_not_there_is_not_the_clients_fault() -> None:
    """503 and when to come back: the token may be good. With known keys it is judged all the same."""
    bench = Bench()
    good = OURS.token()
    bench.text = None
    assert "issuer" in await bench.refused(good, "issuer_unavailable", 503)
    assert bench.keys.failures == 1
    with pytest.raises(Refusal) as caught:
        await bench.who(good)
    assert 1.0 <= (caught.value.retry_after or 0.0) <= 30.0 and bench.keys.failures == 1
    bench.text, bench.keys._asked_at = OURS.jwks("rsa"), -1000.0
    assert (await bench.who(good)).tenant == "alice"
    bench.text, bench.keys._asked_at = None, -1000.0
    assert "issuer" in await bench.refused(OURS.token("ec"), "issuer_unavailable", 503)
    assert (await bench.who(OURS.token(sub="bob"))).tenant == "bob"


async def test_a_token_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the issuer's keys change: a key that was withdrawn takes its tokens with it."""
    bench = Bench()
    judged: list[str] = []
    claims = bench.tokens._claims
    monkeypatch.setattr(bench.tokens, "_claims", lambda token, *rest: judged.append("") or claims(token, *rest))
    good = OURS.token()
    first = await bench.who(good)
    assert await bench.who(good) is first and len(judged) == 1
    bench.text, bench.keys._asked_at, bench.keys._fresh_until = OURS.jwks("ec"), -1000.0, 0.0
    await bench.keys.candidates("new")
    assert "key of its issuer" in await bench.refused(good)


async def test_not_all_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many; a token that is not good is not remembered at all."""
    assert REMEMBERED == 4096
    monkeypatch.setattr("streamgate.admission.jwt.REMEMBERED", 2)
    bench = Bench()
    for name in ("a", "b", "c", "d", "c"):
        assert (await bench.who(OURS.token(sub=name))).tenant == name
        assert len(bench.tokens._known) <= 2
    before = len(bench.tokens._known)
    await bench.refused(OTHERS.token())
    assert len(bench.tokens._known) == before


def test_without_the_package_there_are_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration says so before; here it is an error."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(ImportError):
        Bench()


def test_nothing_of_it_is_loaded_where_it_is_not_configured() -> None:
    """PyJWT and its cryptography do not come with the modules that every gateway loads."""
    code = (
        "import sys; import streamgate.control.keyring, streamgate.admission.jwt;"
        "print([name for name in ('jwt', 'cryptography') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
