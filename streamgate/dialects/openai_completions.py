"""`/v1/completions`: choices that speak by `text`."""

from __future__ import annotations

from typing import Any, Final

from streamgate.dialects.openai_choices import STRING_REST, Choices
from streamgate.dialects.texts import Speech

TOKEN: Final = rb"""(?:"finish_reason":\ ?null,\ ?|) "text":\ ?"(?!") """ + STRING_REST + rb"""(?:,\ ?"index":\ ?0|)"""


def speaks(choice: dict[str, Any]) -> bool:
    """Whether there is any text."""
    return bool(choice.get("text"))


SPEECH: Final = Speech("", {"text": "content"})

OPENAI_COMPLETIONS: Final = Choices("openai_completions", TOKEN, speaks, (SPEECH, SPEECH))
