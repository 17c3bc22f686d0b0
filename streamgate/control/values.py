"""The kinds of single values a configuration holds, and what each must look like. Pure, except for secrets' files.

A function here takes what was written and returns it in its final form, or raises ValueError with what was expected.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

HIDDEN = "********"
# A key is one header line; a file larger than this is not a key.
MAX_SECRET = 8192

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PATH = re.compile(r"/[!-~]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

_HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection"}
_CREDENTIALS = {"authorization", "cookie", "x-auth-token"}  # and whatever ends in api-key
_REBUILT = {"host", "content-length", "content-encoding", "accept-encoding", "expect", "x-request-id"}
_OWN_PATHS = {"/livez", "/readyz"}


class Address(str):
    """HOST:PORT; an IPv6 host in brackets, port 0 for any free one. A string that knows its parts."""

    __slots__ = ("host", "port")
    host: str  # without brackets
    port: int

    def __new__(cls, text: str) -> Self:
        host, _, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not host or (":" in host and not bracketed) or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
            raise ValueError("expected HOST:PORT, such as 127.0.0.1:8080, [::1]:8080 or 0.0.0.0:8080 (port 0 to 65535)")
        address = super().__new__(cls, text)
        address.host = _host(host[1:-1] if bracketed else host, bracketed=bracketed)
        address.port = int(port)
        return address

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], schema: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema(strict=True))


def _host(host: str, *, bracketed: bool) -> str:
    if bracketed:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("expected an IPv6 address between the brackets") from None
    elif not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        raise ValueError("expected a host name or an address before the port")
    return host


def split_url(text: str, what: str) -> SplitResult:
    """A http or https URL in its parts, with nothing in it that would be sent or shown by accident."""
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError(f"expected {what}, of printable ASCII without spaces")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"expected {what}") from None
    if port == 0 or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected {what}")
    if "@" in parts.netloc:
        raise ValueError('expected no user name or password in the URL; an API key goes to `auth: {key: "${NAME}"}`')
    return parts


def upstream_url(text: str) -> str:
    """scheme://host[:port][/prefix], without a slash at the end."""
    parts = split_url(text, "a URL such as http://10.0.0.5:8000 or https://api.openai.com/v1")
    if "?" in text or "#" in text:
        raise ValueError("expected a URL without query and fragment")
    if any(segment in (".", "..") for segment in parts.path.split("/")):
        raise ValueError("expected a URL without . or .. in its path")
    return text.rstrip("/")


def origin(text: str) -> str:
    """`*`, or a browser origin: scheme://host[:port] and nothing more."""
    if text != "*":
        parts = split_url(text, "* or an origin such as https://chat.example.com")
        if parts.path or "?" in text or "#" in text:
            raise ValueError("expected an origin without a path, such as https://chat.example.com")
    return text


def glob(text: str) -> str:
    """A model name, or a pattern of `*`, `?` and `[abc]`."""
    if not text.isprintable() or re.search(r"\[[^\]]*$", text) or "[]" in text:
        raise ValueError("expected a model name or a pattern such as llama-* (every [ needs its ])")
    return text


def plain_model(text: str) -> str:
    """A model name as the upstream knows it."""
    if not text.isprintable() or any(sign in text for sign in "*?["):
        raise ValueError("expected one model name, not a pattern")
    return text


def api_path(text: str) -> str:
    if not _PATH.fullmatch(text) or any(sign in text for sign in "?#%*{}"):
        raise ValueError("expected a path that begins with /, of printable ASCII, without query or pattern")
    if text in _OWN_PATHS:
        raise ValueError("expected another path: this one is the gateway's own")
    return text


def forwarded_header(text: str) -> str:
    """A request header that may be passed on, in lower case."""
    name = text.lower()
    if not _HEADER.fullmatch(text):
        raise ValueError("expected the name of a header")
    if name in _HOP_BY_HOP or name.startswith("proxy-"):
        raise ValueError("expected an end-to-end header: hop-by-hop headers are never passed on")
    if name in _CREDENTIALS or name.endswith("api-key"):
        raise ValueError("expected no credentials: a client's own key passes only with `auth: client`")
    if name in _REBUILT:
        raise ValueError("expected another header: this one is always written by the gateway itself")
    return name


def network(text: str) -> str:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("expected an address or a network, such as 10.0.0.0/8") from None
    return text


def existing_file(path: str) -> str:
    if not Path(path).is_file():
        raise ValueError("expected a file that exists")
    return path


def secret(written: object, info: ValidationInfo) -> SecretStr:
    """What a reference refers to; the environment comes with the validation context, as `environ`."""
    if isinstance(written, SecretStr):
        return written
    if not isinstance(written, str):
        raise ValueError('expected a reference in quotes: "${NAME}" or "file:/path"')  # noqa: TRY004 - pydantic's contract
    environ = (info.context or {}).get("environ", {})
    if not VARIABLE.search(written) and not written.startswith("file:"):
        raise ValueError('expected a reference, not the secret itself: write "${NAME}" or "file:/path"')
    value = VARIABLE.sub(lambda found: variable(found[1], environ), written)
    if written.startswith("file:"):
        value = _content(Path(value.removeprefix("file:")))
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("expected the referenced secret to be printable ASCII without spaces or line breaks")
    return SecretStr(value)


def variable(name: str, environ: dict[str, str]) -> str:
    if not environ.get(name):
        raise ValueError(f"expected the environment variable {name} to be set and not empty")
    return environ[name]


def _content(path: Path) -> str:
    """The file's text without the line break that editors and `echo` leave at its end."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET + 1)
    except (OSError, ValueError):
        raise ValueError("expected the file of this reference to be readable") from None
    if len(content) > MAX_SECRET:
        raise ValueError(f"expected the file of this reference to hold one key of at most {MAX_SECRET} bytes")
    return content.decode("latin-1").rstrip("\r\n")


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
_Model = Annotated[str, Field(min_length=1, max_length=256)]
Glob = Annotated[_Model, AfterValidator(glob)]
PlainModel = Annotated[_Model, AfterValidator(plain_model)]
UpstreamUrl = Annotated[str, AfterValidator(upstream_url)]
Origin = Annotated[str, AfterValidator(origin)]
ApiPath = Annotated[str, AfterValidator(api_path)]
HeaderName = Annotated[str, AfterValidator(forwarded_header)]
Network = Annotated[str, AfterValidator(network)]
ExistingFile = Annotated[str, AfterValidator(existing_file)]
Secret = Annotated[
    SecretStr,
    BeforeValidator(secret),
    PlainSerializer(lambda _: HIDDEN, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}|^file:", "writeOnly": True}),
]
