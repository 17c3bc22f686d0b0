"""The plugin's settings."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo, model_validator

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

Sync = Literal["never", "second", "batch"]
Content = Literal["none", "plain", "hash"]


def _from_environment(written: object, info: ValidationInfo) -> object:
    """A reference; the gateway may hand the environment over as the validation's context."""
    found = _VARIABLE.fullmatch(written) if isinstance(written, str) else None
    if found is None:
        raise ValueError('expected a reference, not the salt itself: write "${NAME}"')
    environ: Mapping[str, str] = (info.context or {}).get("environ", os.environ)
    if len(environ.get(found[1], "")) < 16:
        raise ValueError(f"expected the environment variable {found[1]} to hold at least 16 characters")
    return environ[found[1]]


Salt = Annotated[SecretStr, BeforeValidator(_from_environment)]


class AuditSettings(BaseModel):
    """See the README for what each means."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    file: Annotated[str, Field(min_length=1, pattern=r"[^/]$")]
    """The file that is written to; its folder must exist. All workers of a machine share it."""
    max_size: Annotated[int, Field(ge=0)] = 100 * 1024 * 1024
    """Bytes, after which another file is begun; 0: never."""
    max_age: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 86400.0
    """Seconds after its first line, after which another file is begun; 0: never."""
    keep: Annotated[int, Field(ge=0)] = 14
    """Files kept beside the one that is written to, the newest; 0: all."""
    fsync: Sync = "second"
    """When lines are forced to the disk: never (as the kernel likes), second (once a second), batch (each write)."""
    queue: Annotated[int, Field(ge=1)] = 10_000
    """Lines that wait to be written; more are dropped and counted."""
    queue_bytes: Annotated[int, Field(ge=1)] = 64 * 1024 * 1024
    """Bytes of content that wait with them."""
    content: Content = "none"
    """What requests and answers say: none, plain, or hash (HMAC-SHA-256)."""
    content_limit: Annotated[int, Field(ge=1, le=10**7)] = 4096
    """Characters of plain content, for the request and for each choice of the answer."""
    salt: Salt | None = None
    """Of the hashes: `${NAME}` of the environment."""

    @model_validator(mode="after")
    def _salted(self) -> Self:
        if self.content == "hash" and self.salt is None:
            raise ValueError("expected a salt: without one a hash of a short text tells the text")
        return self
