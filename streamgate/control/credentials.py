"""The kinds of single values about who may ask: digests, expiry, a token issuer's keys, the URL of the store.

As in `values`: from what was written to its final form, or a ValueError with what was expected.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, quote, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)

from streamgate.control.values import HIDDEN, VARIABLE, secret, split_url, variable


def moment(written: object) -> datetime:
    """A point in time in UTC; a date is its first moment there. YAML has made dates of what looks like them."""
    if isinstance(written, str):
        try:
            written = datetime.fromisoformat(written) if len(written) > 10 else date.fromisoformat(written)
        except ValueError:
            written = None
    if isinstance(written, datetime):
        if written.tzinfo is None:
            raise ValueError("expected a zone behind the time, such as 2027-01-31T12:00:00Z")
        return written.astimezone(UTC)
    if isinstance(written, date):
        return datetime.combine(written, time(), UTC)
    raise ValueError("expected a date or a time with its zone, such as 2027-01-31 or 2027-01-31T12:00:00Z")


def tenant_name(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("expected printable text without spaces around it")
    return text


def key_source(text: str) -> str:
    """A http or https URL, or the path of a file."""
    if text.startswith(("http://", "https://")):
        split_url(text, "a URL such as https://issuer.example.com/.well-known/jwks.json")
    elif not Path(text).is_file():
        raise ValueError("expected a http or https URL, or a file that exists")
    return text


def store_url(written: object, info: ValidationInfo) -> SecretStr:
    """A Redis URL. What a variable inside it holds is percent-encoded, so that any password fits."""
    if isinstance(written, SecretStr):
        return written
    if not isinstance(written, str):
        raise ValueError("expected a URL such as redis://10.0.0.7:6379/0")  # noqa: TRY004 - pydantic's contract
    if VARIABLE.fullmatch(written) or written.startswith("file:"):
        return SecretStr(_redis(secret(written, info).get_secret_value()))
    shape = _redis(VARIABLE.sub("", written))
    if urlsplit(shape).password:
        raise ValueError("expected the password as a reference: redis://:${REDIS_PASSWORD}@10.0.0.7:6379/0")
    environ = (info.context or {}).get("environ", {})
    return SecretStr(_redis(VARIABLE.sub(lambda found: quote(variable(found[1], environ), safe=""), written)))


def _redis(text: str) -> str:
    expected = "expected a URL such as redis://10.0.0.7:6379/0, or rediss:// for TLS"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(expected) from None
    if port == 0 or parts.scheme not in ("redis", "rediss") or not parts.hostname or not re.fullmatch(r"[!-~]+", text):
        raise ValueError(expected)
    if {name.lower() for name, _ in parse_qsl(parts.query)} & {"password", "username"}:
        raise ValueError("expected user and password before the host, where they are hidden when printed")
    return text


def shown(url: SecretStr) -> str:
    """A store's URL as it may be printed."""
    parts = urlsplit(url.get_secret_value())
    if parts.password is None:
        return url.get_secret_value()
    user, host = parts.netloc.rpartition("@")[::2]
    return parts._replace(netloc=f"{user.partition(':')[0]}:{HIDDEN}@{host}").geturl()


Sha256 = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$")]
TenantName = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(tenant_name)]
KeySource = Annotated[str, AfterValidator(key_source)]
Moment = Annotated[datetime, BeforeValidator(moment)]
StoreUrl = Annotated[
    SecretStr,
    BeforeValidator(store_url),
    PlainSerializer(shown, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^rediss?://|^\$\{|^file:"}),
]
