"""The plugin's settings."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_SECRET = re.compile(r"authorization|cookie|token|secret|key|session", re.IGNORECASE)


def _header(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise ValueError("expected the name of a header")
    if _SECRET.search(name):
        raise ValueError("expected a header that holds no secret: cassettes are passed around")
    return name.lower()


class RecordReplaySettings(BaseModel):
    """See the README for what each means."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    directory: Annotated[str, Field(min_length=1)]
    """Where cassettes are; made when it is not there."""
    mode: Literal["record", "replay", "auto"] = "auto"
    """record: keep the upstreams' streams; replay: ask no upstream; auto: replay what is there, record the rest."""
    speed: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """How fast streams are replayed: 1 as they came, 2 twice as fast, 0 at once."""
    missing: Literal["refuse", "pass"] = "refuse"
    """In replay: what becomes of requests without a cassette."""
    ignore: tuple[str, ...] = ("user", "metadata", "safety_identifier", "prompt_cache_key")
    """Fields of the body that do not tell requests apart, and are not kept."""
    headers: tuple[Annotated[str, AfterValidator(_header)], ...] = ("content-type",)
    """Headers of the response that are kept and replayed; none of the request's ever is."""
    max_size: Annotated[int, Field(ge=1)] = 8 * 1024 * 1024
    """Characters of one stream; longer ones are not recorded."""
