"""Values of plugins' settings that stand in the environment, so that they are in no file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator, SecretStr, ValidationInfo

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def from_environment(written: object, info: ValidationInfo) -> object:
    """For `BeforeValidator`: each `${NAME}` in a text becomes that variable of the environment.

    The gateway hands its environment over as the validation's context. Raises ValueError for one that is not set.
    """
    if not isinstance(written, str):
        return written
    environ: Mapping[str, str] = (info.context or {}).get("environ", os.environ)
    missing = [name for name in _VARIABLE.findall(written) if not environ.get(name)]
    if missing:
        raise ValueError(f"expected the environment variable {missing[0]} to be set and not empty")
    return _VARIABLE.sub(lambda found: environ[found[1]], written)


# The type of a setting that must not be printed: `streamgate check` shows stars, a traceback as well.
Secret: TypeAlias = Annotated[SecretStr, BeforeValidator(from_environment)]
